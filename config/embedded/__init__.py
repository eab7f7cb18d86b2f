"""Everything on one machine: the servers that `make up` runs, how they are written down, started and stopped.

`python -m config.embedded up|down|logs|status|demo` is the command; `system.py` is the one file here that the bare
system Python runs before there is any environment. Nothing that serves a request or runs a job imports this package;
the demonstration and the benches take single parts of it.
"""
