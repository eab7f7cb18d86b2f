"""The contents of images: scans by syft, inventory files, each package version stored once."""
