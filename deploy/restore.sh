#!/bin/sh
# deploy/restore.sh FOLDER: restore a backup into an empty home (GRAVINGDOCK_HOME, or var/), and start everything.
set -eu
source=$(realpath -- "${1:?usage: deploy/restore.sh FOLDER}")
cd "$(dirname "$0")/.."
exec .venv/bin/python -m config.embedded.backup restore "$source"
