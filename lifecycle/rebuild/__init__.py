"""Rebuilding images on a changed base: recipes, watches, plans, waves, rebase and build."""
