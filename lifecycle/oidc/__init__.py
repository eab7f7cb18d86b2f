"""OpenID Connect: discovery, keys, ID tokens verified, and the code flow of a client. It uses no model."""
