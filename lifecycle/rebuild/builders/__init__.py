"""Builders of recipes. So far one: buildah on this machine, in a box."""
