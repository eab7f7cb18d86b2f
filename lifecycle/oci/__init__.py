"""The OCI specifications: manifests, references, tokens, and a client that speaks to registries; it knows no row."""
