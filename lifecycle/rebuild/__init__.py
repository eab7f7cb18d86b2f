"""How images on a changed base are renewed: recipes, watches, plans, waves, rebase and build."""
