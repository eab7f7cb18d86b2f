"""Known vulnerabilities: OSV feeds, affected version ranges, and matches to package versions."""
