"""Settings with the owner role of the database. `manage.py migrate` uses them automatically."""

from config.settings import *  # noqa: F403 -- the same settings with another role
from config.settings import DATABASE_OWNER_URL, database

DATABASES = {"default": database(DATABASE_OWNER_URL)}
# Migrations wait longer for a lock than requests, but not forever.
DATABASES["default"]["OPTIONS"]["options"] = "-c lock_timeout=10s"
