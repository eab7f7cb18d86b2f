"""Everything on one machine: the servers that `make up` runs, how they are written down, started and stopped.

The command is `python -m config.embedded up|down|logs|status|demo`. Only `system.py` runs with the system's Python,
before `.venv/` exists. No code that serves requests or runs jobs imports this package. The demonstration and the
benches use parts of it.
"""
