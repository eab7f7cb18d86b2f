"""What changes from one image to another: findings, packages, layers and configuration."""
