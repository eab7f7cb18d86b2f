"""Settings, addresses, logging and the entry points of processes; `env.py` reads what an operator may change."""
