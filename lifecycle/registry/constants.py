"""Limits and reserved tag names in repositories."""

from __future__ import annotations

from typing import Final

PROTECTED_PATTERNS_MAX: Final = 50  # in one repository

# Prefixes of tags that our own workers push: unchecked rebuild results and build contexts. No image is built on them,
# and pages hide them by default.
OWN_TAGS: Final = ("rebuild-", "build-context-")

# Types of artifacts that our own workers push, such as build contexts.
OWN_ARTIFACTS: Final = "application/vnd.gravingdock."
# The first part of the names of repositories with withdrawn images: no team and no environment can have it.
VAULT_PREFIX: Final = "quarantine"
# The same for the repository with checkpoints of the audit log: only Gravingdock itself has rights there.
ANCHOR_PREFIX: Final = "audit-anchors"

HELM_CHART: Final = "application/vnd.cncf.helm.config.v1+json"
