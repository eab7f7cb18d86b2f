"""What to do about open findings: rebuild on a newer base, upgrade a package, or wait."""
