"""Rows of what runs where: reporters, their reports, and containers and images that run, as intervals of time."""
