"""Builders of recipes. So far one: buildah on this machine, for trusted recipes."""
