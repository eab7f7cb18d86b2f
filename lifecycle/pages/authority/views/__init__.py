"""The pages of teams, roles, robots, people and tokens."""
