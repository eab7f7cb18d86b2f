"""Signatures of images: DSSE, sigstore, cosign and notation, verified without model and network."""
