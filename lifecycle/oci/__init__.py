"""The OCI specifications: manifests, references, tokens, and a registry client. It uses no model."""
