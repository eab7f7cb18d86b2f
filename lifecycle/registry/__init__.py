"""What registries hold (repositories, images by digest, tags), clients that speak to them, tokens they ask us for."""
