"""Access as code: roles, teams, grants, environments and robots from a file, compared and applied."""
