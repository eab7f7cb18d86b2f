#!/bin/sh
# deploy/backup.sh FOLDER: back up database, registry content and secrets to a new folder, without stopping anything.
set -eu
target=$(realpath -m -- "${1:?usage: deploy/backup.sh FOLDER}")
cd "$(dirname "$0")/.."
exec .venv/bin/python -m config.embedded.backup make "$target"
