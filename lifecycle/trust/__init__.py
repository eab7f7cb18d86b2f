"""Trusted sources of base images, and the signatures and attestations of images, verified against them."""
