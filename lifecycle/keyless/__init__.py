"""CI jobs without stored secrets: trust rules, and identity tokens exchanged for short tokens of robots."""
