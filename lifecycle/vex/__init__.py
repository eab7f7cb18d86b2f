"""What people and vendors decided about findings: VEX documents, own decisions, and what counts for each image."""
