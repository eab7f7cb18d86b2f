"""The registry's token service: who may push, pull and delete, signed."""
