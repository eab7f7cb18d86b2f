"""Everything on one machine: the servers that `make up` runs, how they are written down, started and stopped.

`python -m config.embedded up|down|logs|status|demo` is the command; `system.py` is the one file here that the bare
system Python runs before there is any environment. Nothing of Gravingdock itself imports this package.
"""
