"""How findings change over time: daily facts of repositories and teams, kept for 400 days."""
