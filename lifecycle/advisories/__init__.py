"""What is known against packages: OSV feeds, the order of versions, matches, and the findings of an image."""
