"""Who may do what, where: grants, `may()`, what a reader sees; and the acts on teams, roles, robots and tokens."""
