"""The token service of the managed registry: it asks us who may pull, push and delete."""
