"""Who can do what, where: grants, `may()`, visibility; actions on teams, roles, robots and tokens."""
