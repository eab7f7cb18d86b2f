"""The commands of `manage.py`: each parses, calls a service, and prints."""
