"""Those who build a recipe; for now one, buildah on this machine, for trusted recipes."""
