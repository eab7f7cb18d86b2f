"""The registry's token service: who can push, pull and delete, in signed tokens."""
