"""Limits of trust rules and identity tokens, and the claims that name an owner."""

from __future__ import annotations

from typing import Final

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
IDENTITY_MAX: Final = 16 * 1024  # characters of an identity token
IDENTITY_LIFE_MAX_S: Final = 24 * 3600  # from iat to exp
LEEWAY_S: Final = 30  # for clocks that differ
TOKEN_LIFE_S: Final = 15 * 60
CLAIMS_MAX: Final = 10  # of one rule
PATTERN_MAX: Final = 300  # characters
RULES_MAX: Final = 100  # of one team
RSA_BITS_MIN: Final = 2048

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
SUBJECT_TYPES: Final = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")
ISSUED_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"

# Claims that say whose job it is. A rule needs one of them, without a star where the owner stands.
WITH_PATH: Final = ("repository", "project_path")  # owner/name
EXACT: Final = (
    "repository_id", "repository_owner", "repository_owner_id", "project_id", "namespace_id", "namespace_path",
    "kubernetes.io/namespace", "email",
)  # fmt: skip
SUBJECT: Final = "sub"
