"""Whether an image may start: answers to clusters from a snapshot, without database, and what was decided."""
