"""The life of container images: one Django app, cut into a package for each sub-domain (docs/adr/0001)."""
