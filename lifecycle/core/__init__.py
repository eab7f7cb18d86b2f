"""What every package may use: errors, types, the clock, calls going out, requests coming in."""
