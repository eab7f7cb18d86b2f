"""Descriptions and examples of the OpenAPI document: what a field name means everywhere, and one real exchange."""

from __future__ import annotations

from typing import Any, Final

_DIGEST: Final = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_OTHER: Final = "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
_NOW: Final = "2026-11-28T09:30:00Z"

# Field -> its meaning, the same in every object that has it. A description in the code wins.
FIELDS: Final[dict[str, str]] = {
    "action": "What happened, for example `promotion.approved`",
    "actor": "Name of the account that asked for it",
    "actor_name": "Name of the account at that time",
    "address": "IP address of the request",
    "after": "Id of the last line, for the next request",
    "allowed": "Users who have access now",
    "annotations": "OCI annotations of the manifest",
    "approve_by": "The request lapses without a decision by then",
    "at": "When it happened",
    "attempts": "Number of attempts so far",
    "author": "Name of the user who wrote this revision",
    "base": "Repository of the base image",
    "base_digest": "Digest of the base that the image declares; empty if none",
    "base_name": "Name of the base that the image declares; empty if none",
    "base_references": "Images that the recipe builds on",
    "begins_with": "Start of the token's text, to recognise it",
    "build_args": "Build arguments by name",
    "changed_at": "When it last changed",
    "changed_by": "User who changed it last; null if not known",
    "changes": "Ways to get access; empty when access is allowed",
    "code": "Stable code of the problem",
    "comment": "Reason that the voter gave",
    "confirmed_at": "When the wave was confirmed; null until then",
    "confirmed_by": "User who confirmed the wave; null until then",
    "containerfile": "Text of the Containerfile",
    "context": "Files of the build context: path and content in base64",
    "context_digest": "Digest of the build context",
    "created_at": "When it was created",
    "created_by": "User who created it; null if not known",
    "decided_at": "When the request was approved, rejected or withdrawn; null until then",
    "description": "Description",
    "detail": "The problem or result, in one sentence",
    "details": "More about the event; the audit reference lists the fields of each action",
    "digest": "Digest: `sha256:` and 64 hexadecimal digits",
    "distro": "Distribution, for example `debian-12`; empty if not known",
    "environment": "Slug of the environment",
    "environments": "Number of environments",
    "error_code": "Stable code of the last error; empty without one",
    "errors": "Wrong fields or parameters",
    "evaluation": "Digest of the evidence that the voter saw; null if not recorded",
    "evidence": "Why we think so",
    "execute_by": "An approved request lapses if it is not run by then",
    "expires_at": "When it expires; null: never",
    "failure": "Why the promotion failed; empty if it did not",
    "family": "Name without the prefix of an environment; patterns of grants match it",
    "findings_after": "Number of open findings of the new image; null until it is scanned",
    "findings_before": "Number of open findings of the old image",
    "finished_at": "When it finished; null until then",
    "first_seen_at": "When Gravingdock first saw the image",
    "fixed": "Advisories that the rebuild fixed",
    "granted_by": "User who granted the role; null if not known",
    "granters": "Users who can change the grants",
    "holders": "Number of users with a live grant of the role",
    "id": "Number of the row",
    "introduced": "Advisories that the rebuild added",
    "is_active": "Whether the account can sign in or use tokens",
    "is_admin": "Whether the account is an admin",
    "is_allowed": "The answer",
    "is_builtin": "Whether the role is part of the product and cannot be changed",
    "is_final": "Whether no more lines will come",
    "is_met": "Result of the check; null if it does not apply",
    "is_on": "Whether the builder can run here",
    "jobs_by_state": "Number of images by state",
    "key": "Name of the pair",
    "kind": "Kind",
    "labels": "Labels of the configuration",
    "lapse_reason": "Why the vote no longer counts; empty if it does",
    "lapsed_at": "When the vote stopped to count; null if it counts",
    "last_digest": "Digest at which the tag was last seen",
    "last_error": "Message of the last error; empty without one",
    "last_used_at": "Last use, at most a minute old; null: never used",
    "last_used_ip": "IP address of the last use; null: never used",
    "level": "Distance from the base: 1 is built directly on it",
    "max_attempts": "Attempts before the job fails",
    "media_type": "OCI media type of the manifest",
    "method_reason": "Why this method was chosen",
    "name": "Name",
    "new_digest": "Digest of the new image; null until there is one",
    "next": "Address of the next page; null on the last one",
    "old_digest": "Digest of the image before; null if there is none",
    "package_count": "Number of packages that the scan found; null before the first scan",
    "patterns": "Tag patterns; `*` stands for any characters",
    "people": "Number of people with a role in the team",
    "planned_by": "User who planned the wave",
    "position": "Position on the promotion path; 0 is first",
    "prefix": "First part of the repository names in this environment",
    "problem": "What is wrong; empty if nothing is",
    "progress_done": "Steps done",
    "progress_text": "Current step",
    "progress_total": "Steps in all",
    "protected_tags": "Patterns of protected tags",
    "reason": "Reason, as given",
    "recipe_revision": "Revision of the recipe that was used; null for a rebase",
    "registry": "Name of the registry",
    "remaining_count": "Number of open findings that remain",
    "repositories": "Names of repositories, or their pattern in a grant: `*` stands for any characters",
    "repository": "Name of the repository, for example `shop/api`",
    "repository_id": "Number of the repository",
    "request_id": "Id of the request, also in `X-Request-Id` and in the logs",
    "requested_by": "Name of the user who requested it",
    "required_approvals": "Approvals that a promotion to this environment needs",
    "results": "The rows of this page",
    "revision": "Number of the revision, from 1",
    "robots": "Number of active robots",
    "role": "Slug of the role",
    "scan_problem": "Why the scan is missing or incomplete; empty if it is not",
    "scanned_at": "When the image was scanned; null before the first scan",
    "sentence": "The answer as a sentence",
    "size_bytes": "Size in bytes, as the manifest states it",
    "slug": "Short name, used in addresses",
    "started_at": "When it started; null until then",
    "status": "Status",
    "still_open": "Advisories of the plan that are still open",
    "subject_id": "Number of the row that it is about",
    "subject_kind": "Kind of the row that it is about",
    "summary": "The result in one sentence",
    "tag": "Name of the tag; empty without one",
    "team": "Slug of the team; null if it belongs to none",
    "team_id": "Number of the team; null if it belongs to none",
    "text": "Text",
    "title": "Short title",
    "token": "Text of the token. Only this response contains it",
    "token_lookup": "First random characters of the token that was used; empty for a session",
    "tokens": "Number of tokens that are not revoked",
    "trigger": "What planned the wave",
    "turned_on_at": "When it was turned on; null if it is off",
    "turned_on_by": "User who turned it on; null if it is off",
    "updated_at": "When it last changed",
    "username": "Name of the account",
    "value": "Value",
    "critical": "Open critical findings; null if not known",
    "high": "Open high findings; null if not known",
    "medium": "Open medium findings; null if not known",
    "low": "Open low findings; null if not known",
    "fixable": "Open findings with a fix; null if not known",
    "unjudged_count": "Packages that could not be judged",
    "verbs": "Permissions, for example `image.view`",
    "voter": "Name of the voter",
    "who": "Users who can meet the requirement",
    "would_fix": "Advisories that the plan expects to fix; null if not known",
}

_IMAGE: Final[dict[str, Any]] = {
    "digest": _DIGEST,
    "places": [{"repository": "shop/api", "tags": ["1.4.0", "latest"]}],
    "kind": "manifest",
    "media_type": "application/vnd.oci.image.manifest.v1+json",
    "platform": "linux/amd64",
    "size_bytes": 48200000,
    "distro": "debian-12",
    "labels": {"org.opencontainers.image.title": "api"},
    "annotations": {},
    "base_name": "",
    "base_digest": "",
    "created_at": _NOW,
    "first_seen_at": _NOW,
    "scanned_at": _NOW,
    "scan_problem": "",
    "package_count": 214,
    "unjudged_count": 0,
    "findings": {
        "state": "open",
        "critical": 0,
        "high": 2,
        "medium": 5,
        "low": 11,
        "unknown": 0,
        "fixable": 4,
        "unjudged": 0,
        "unjudged_reasons": {},
        "why": "",
    },
}
_PROMOTION: Final[dict[str, Any]] = {
    "id": 13,
    "state": "open",
    "kind": "forward",
    "team": "shop",
    "repository": "shop/api",
    "digest": _DIGEST,
    "tag": "1.4.0",
    "environment": "staging",
    "requested_by": "shop-dev",
    "reason": "Release 1.4",
    "failure": "",
    "approve_by": "2026-12-05T09:30:00Z",
    "execute_by": None,
    "created_at": _NOW,
    "decided_at": None,
    "finished_at": None,
}
_TOKEN: Final[dict[str, Any]] = {"name": "laptop", "days": 30}

# (method, path) -> (example of the body, example of the response); None where there is none.
EXAMPLES: Final[dict[tuple[str, str], tuple[Any, Any]]] = {
    ("get", "/api/v1/images/"): (None, {"results": [_IMAGE], "next": None}),
    ("get", "/api/v1/images/{digest}/"): (None, _IMAGE),
    ("get", "/api/v1/promotions/"): (None, {"results": [_PROMOTION], "next": None}),
    ("post", "/api/v1/promotions/"): (
        {
            "digest": _DIGEST, "repository": "shop/api", "environment": "staging", "reason": "Release 1.4",
            "tag": "1.4.0",
        },
        None,
    ),
    ("post", "/api/v1/promotions/{id}/approve/"): ({"reason": "Tests are green."}, None),
    ("post", "/api/v1/promotions/{id}/reject/"): ({"reason": "CVE-2026-1234 is open."}, None),
    ("post", "/api/v1/promotions/{id}/withdraw/"): ({"reason": "Wrong digest."}, None),
    ("post", "/api/v1/rebuild-waves/"): ({"base": "base/python:bookworm"}, None),
    ("put", "/api/v1/repositories/{id}/protected-tags/"): ({"patterns": ["latest", "v*"]}, None),
    ("put", "/api/v1/repositories/{repository_id}/metadata/"): (
        {"key": "owner", "kind": "text", "value": "Team Shop"},
        None,
    ),
    ("put", "/api/v1/repositories/{repository_id}/recipe/"): (
        {
            "containerfile": "FROM base/python:bookworm\nCOPY app.py /app.py\n",
            "context": {"app.py": "cHJpbnQoImhlbGxvIikK"},
            "build_args": {},
            "tag": "latest",
        },
        None,
    ),
    ("post", "/api/v1/repositories/{repository_id}/watches/"): ({"tag": "bookworm"}, None),
    ("post", "/api/v1/roles/"): ({"slug": "crew", "name": "Crew", "verbs": ["image.view", "audit.read"]}, None),
    ("put", "/api/v1/roles/{role}/"): ({"name": "Crew", "verbs": ["image.view"]}, None),
    ("post", "/api/v1/teams/"): ({"slug": "shop", "name": "Shop"}, None),
    ("post", "/api/v1/teams/{team}/environments/"): (
        {"slug": "staging", "name": "Staging", "prefix": "staging", "required_approvals": 1},
        None,
    ),
    ("post", "/api/v1/teams/{team}/grants/"): (
        {"username": "kim", "role": "approver", "repositories": "shop/*", "environment": "staging"},
        None,
    ),
    ("post", "/api/v1/teams/{team}/robots/"): ({"name": "ci"}, None),
    ("post", "/api/v1/teams/{team}/robots/{robot_id}/tokens/"): (_TOKEN, None),
    ("post", "/api/v1/tokens/"): (_TOKEN, None),
    ("get", "/api/v1/environments/"): (
        None,
        {
            "results": [
                {
                    "id": 2, "team": "shop", "slug": "staging", "name": "Staging", "position": 1, "prefix": "staging",
                    "required_approvals": 1,
                }
            ],
            "next": None,
        },
    ),
    ("get", "/api/v1/me/"): (
        None,
        {
            "username": "shop-dev",
            "kind": "person",
            "is_admin": False,
            "admin_verbs": [],
            "teams": [
                {
                    "slug": "shop",
                    "name": "Shop",
                    "grants": [
                        {
                            "role": "viewer", "verbs": ["image.view"], "repositories": "*", "environment": None,
                            "expires_at": None,
                        }
                    ],
                }
            ],
            "token": {"id": 7, "name": "laptop", "begins_with": "gdk_pat_bgjyP6dFfm…", "expires_at": _NOW},
        },
    ),
}  # fmt: skip
# Path parameters, by name.
PATHS: Final[dict[str, Any]] = {"digest": _DIGEST, "team": "shop", "role": "viewer"}
QUERIES: Final[dict[str, Any]] = {"repository": "shop/api", "to": _OTHER}


def describe(document: dict[str, Any]) -> None:
    """Add descriptions, summaries and examples to an OpenAPI document, in place. What it has already wins."""
    for component in document["components"]["schemas"].values():
        for name, shape in component.get("properties", {}).items():
            if name in FIELDS and "description" not in shape:
                if "$ref" in shape:  # OpenAPI 3.1 allows a description beside a reference
                    shape.setdefault("description", FIELDS[name])
                else:
                    shape["description"] = FIELDS[name]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _describe_operation(path, method, operation)


def _describe_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    first_line = operation.get("description", "").strip().partition("\n")[0]
    operation.setdefault("summary", first_line.partition(". ")[0].rstrip("."))
    for parameter in operation.get("parameters", ()):
        examples = PATHS if parameter["in"] == "path" else QUERIES if parameter["in"] == "query" else {}
        if parameter["name"] in examples:
            parameter.setdefault("example", examples[parameter["name"]])
    body, answer = EXAMPLES.get((method, path), (None, None))
    if body is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = body
    if answer is not None:
        (success,) = (code for code in operation["responses"] if code.startswith("2"))
        operation["responses"][success]["content"]["application/json"]["example"] = answer
