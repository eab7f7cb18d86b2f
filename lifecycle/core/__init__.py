"""Tools for every package: errors, types, the clock, outgoing calls, the request context."""
