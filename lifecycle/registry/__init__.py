"""Rows of what registries hold: repositories, images by digest, layers, platforms, tags."""
