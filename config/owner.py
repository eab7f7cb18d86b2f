"""Settings for what the owner of the tables does: `manage.py migrate` takes them by itself."""

from config.settings import *  # noqa: F403 -- the same settings, another role
from config.settings import DATABASE_OWNER_URL, database

DATABASES = {"default": database(DATABASE_OWNER_URL)}
# Migrations wait longer than requests, but never queue behind a long one for ever.
DATABASES["default"]["OPTIONS"]["options"] = "-c lock_timeout=10s"
