"""What is inside images: scans by syft, inventory files, and each package version stored once for all images."""
