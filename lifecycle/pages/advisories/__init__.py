"""The pages of feeds and private advisories."""
