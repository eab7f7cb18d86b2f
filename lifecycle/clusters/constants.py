"""Limits of clusters, their bindings and their secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

BINDINGS_MAX: Final = 500  # of a cluster
HOSTS_MAX: Final = 20  # allowed registry hosts of a binding
SUBJECTS_MAX: Final = 50  # who may break glass in a cluster
SUBJECT_MAX: Final = 256  # characters of `user:NAME` or `group:NAME`
SECRETS_MAX: Final = 10  # valid ones of a kind; each new secret leaves the one before it valid for OVERLAP
CLUSTERS_MAX: Final = 200  # of a team
STALE_MIN_S: Final = 60
STALE_MAX_S: Final = 30 * 86_400
STALE_S: Final = 86_400
OVERLAP: Final = timedelta(hours=24)  # how long the previous secret of a kind stays valid
