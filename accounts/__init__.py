"""People, teams, roles and tokens. Nothing here knows of images."""
