"""Examples of the OpenAPI document: one real exchange for each operation, and values of parameters."""

from __future__ import annotations

from typing import Any, Final

_DIGEST: Final = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_ACCESS_FILE: Final = "version: 1\nteams:\n- name: shop\n  grants:\n  - {user: kim, role: owner}\n"
_OTHER: Final = "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
_NOW: Final = "2026-11-28T09:30:00Z"

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
    "quarantines": [],
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
_RELEASE_SET: Final[dict[str, Any]] = {
    "id": 4,
    "state": "open",
    "team": "shop",
    "environment": "staging",
    "size": 2,
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

_SBOM: Final = {
    "bomFormat": "CycloneDX", "specVersion": "1.6",
    "components": [{"type": "library", "name": "six", "version": "1.16.0", "purl": "pkg:pypi/six@1.16.0"}],
}  # fmt: skip
# (method, path) -> (example of the body, example of the response); None where there is none.
EXAMPLES: Final[dict[tuple[str, str], tuple[Any, Any]]] = {
    ("put", "/api/v1/policies/{scope}/"): (
        {
            "rules": [
                {
                    "key": "severe", "kind": "findings", "parameters": {"severity": "high", "fixable_only": True},
                    "modes": {"request": "observe", "execution": "observe"},
                }
            ],
            "note": "OPS-7",
        },
        None,
    ),
    ("post", "/api/v1/policies/what-if/"): (
        {"scope": "team:shop", "rules": [{"key": "user", "kind": "not_root"}]},
        None,
    ),
    ("post", "/api/v1/policies/test/"): (
        {
            "rules": [{"key": "user", "kind": "not_root"}],
            "cases": [{"facts": {"platforms": [{"user": "0"}]}, "expect": {"user": "unsatisfied"}}],
        },
        None,
    ),
    ("post", "/api/v1/policies/try/"): (
        {"expression": "findings.all(f, f.severity != 'high')", "digest": _DIGEST, "environment": "staging"},
        None,
    ),
    ("post", "/api/v1/waivers/"): (
        {
            "team": "shop", "rule": "severe", "repository": "shop/api", "advisory": "CVE-2026-1",
            "reason": "Not reachable.", "ticket": "OPS-8", "until": _NOW,
        },
        None,
    ),
    ("post", "/api/v1/waivers/{id}/approve/"): ({"reason": "Checked."}, None),
    ("post", "/api/v1/waivers/{id}/reject/"): ({"reason": "A fix is available."}, None),
    ("post", "/api/v1/waivers/{id}/revoke/"): ({"reason": "Fixed."}, None),
    ("post", "/api/v1/vex/statements/"): (
        {
            "vulnerability": "CVE-2026-1", "status": "not_affected",
            "justification": "vulnerable_code_not_in_execute_path", "scope": "repository", "repository": "shop/api",
            "package": "pkg:deb/debian/openssl", "reason": "The service does not use TLS.",
        },
        None,
    ),
    ("post", "/api/v1/vex/statements/{id}/approve/"): ({"reason": "Checked."}, None),
    ("post", "/api/v1/vex/statements/{id}/reject/"): ({"reason": "It does use TLS."}, None),
    ("post", "/api/v1/vex/statements/{id}/withdraw/"): ({"reason": "TLS was added."}, None),
    ("post", "/api/v1/vex/documents/"): (
        {
            "team": "shop",
            "document": {
                "@context": "https://openvex.dev/ns/v0.2.0", "@id": "https://vendor.example/vex/1",
                "author": "Vendor", "timestamp": _NOW, "version": 1,
                "statements": [
                    {
                        "vulnerability": {"name": "CVE-2026-1"},
                        "products": [{"@id": "pkg:oci/api?repository_url=registry.example.com/shop/api"}],
                        "status": "not_affected", "justification": "component_not_present",
                    }
                ],
            },
        },
        None,
    ),
    ("post", "/api/v1/vex/documents/{id}/accept/"): ({"reason": "From the vendor."}, None),
    ("post", "/api/v1/vex/documents/{id}/withdraw/"): ({"reason": "Wrong product."}, None),
    ("post", "/api/v1/vex/feeds/"): (
        {
            "name": "vendor-vex", "team": "shop", "location": "https://vendor.example/vex/",
            "speaks_for": ["pkg:deb/debian/"], "every_hours": 24,
        },
        None,
    ),
    ("patch", "/api/v1/vex/feeds/{id}/"): ({"every_hours": 12}, None),
    ("post", "/api/v1/vex/feeds/{id}/sync/"): ({"accept_smaller": False}, None),
    ("post", "/api/v1/vex/feeds/{id}/trust/"): ({"reason": "The address of our vendor."}, None),
    ("post", "/api/v1/vex/feeds/{id}/distrust/"): ({"reason": "Its statements are wrong."}, None),
    ("post", "/api/v1/clusters/"): (
        {"slug": "north", "team": "shop", "kind": "kubernetes", "mode": "observe", "tags": "resolve"},
        None,
    ),
    ("patch", "/api/v1/clusters/{slug}/"): (
        {"mode": "enforce", "breakglass_subjects": ["user:kim@example.com", "group:oncall"]},
        None,
    ),
    ("put", "/api/v1/clusters/{slug}/bindings/"): (
        {"bindings": [{"pattern": "prod-*", "environment": "production", "mode": "enforce", "allowed_hosts": []}]},
        None,
    ),
    ("post", "/api/v1/clusters/{slug}/debts/{id}/review/"): (
        {"outcome": "justified", "comment": "The shop was down."},
        None,
    ),
    ("post", "/api/v1/clusters/{slug}/forecast/"): (
        {"bindings": [{"pattern": "prod-*", "environment": "production", "mode": "enforce", "allowed_hosts": []}]},
        None,
    ),
    ("post", "/api/v1/clusters/{slug}/explain/"): (
        {"namespace": "prod-shop", "images": ["registry.example.com/shop/api:1.4.0"], "user": "kim@example.com"},
        None,
    ),
    ("post", "/api/v1/clusters/{slug}/secrets/"): ({"kind": "admission"}, None),
    ("post", "/api/v1/clusters/{slug}/reports/"): (
        {
            "schema": "gravingdock.report.v1", "report_id": "0b0e7c1e-1", "boot": "7f3a", "sequence": 1, "kind": "full",
            "observed_at": "2026-11-30T12:00:00Z", "reporter": "agent",
            "containers": [
                {
                    "key": "0a1b/main/api", "namespace": "shop", "workload": {"kind": "Deployment", "name": "api"},
                    "pod": "api-7d9f-x1", "node": "node-1", "arch": "amd64", "kind": "main", "name": "api",
                    "image": "registry.example.com/shop/api:1.0", "image_id": _DIGEST,
                    "container_id": "containerd://97c9868ea832", "state": "running",
                    "started_at": "2026-11-30T11:58:00Z",
                }
            ],
            "gone": [], "specs": {}, "namespaces": [], "templates": [], "bundle_sha256": "",
        },
        None,
    ),
    ("post", "/api/v1/quarantines/"): (
        {"digest": _DIGEST, "reason": "Contains a backdoor.", "incident": "INC-7", "withdraw": False},
        None,
    ),
    ("put", "/api/v1/due-dates/"): (
        {"rows": [{"severity": "critical", "fix": "yes", "exposure": "production", "days": 7}], "note": "Audit 2026"},
        None,
    ),
    ("post", "/api/v1/due-dates/what-if/"): ({"rows": [{"severity": "high", "days": 30}]}, None),
    ("put", "/api/v1/teams/{team}/retention/"): ({"keep_last": 10, "tags": ["v*"], "untagged_days": 7}, None),
    ("put", "/api/v1/repositories/{repository}/retention/"): ({"keep_days": 90}, None),
    ("post", "/api/v1/retention-plans/"): ({"team": "shop"}, None),
    ("post", "/api/v1/retention-plans/{id}/restore/"): ({"digests": [_DIGEST]}, None),
    ("post", "/api/v1/pentest-runs/"): (
        {"digest": "sha256:" + "a" * 64, "report": "[]", "format": "nuclei", "scope": "full", "target": "https://shop.example"},
        None,
    ),
    ("post", "/api/v1/pentest-findings/{id}/confirm/"): ({"reason": "Reproduced."}, None),
    ("post", "/api/v1/pentest-findings/{id}/dismiss/"): ({"reason": "A test page."}, None),
    ("post", "/api/v1/pentest-findings/{id}/accept/"): (
        {"reason": "The fix ships then.", "until": "2026-12-24T09:00:00Z"},
        None,
    ),
    ("post", "/api/v1/pentest-findings/{id}/retest/"): ({"digest": "sha256:" + "b" * 64}, None),
    ("post", "/api/v1/isolation/check/"): (
        {"object": {"kind": "Pod", "spec": {"containers": [{"name": "app", "image": "shop/api:1.0"}]}}},
        None,
    ),
    ("post", "/api/v1/alerts/{id}/acknowledge/"): ({"reason": "On it."}, None),
    ("post", "/api/v1/alerts/{id}/snooze/"): ({"until": "2026-12-24T09:00:00Z", "reason": "The fix ships then."}, None),
    ("post", "/api/v1/alerts/{id}/resolve/"): ({"reason": "The code is not reachable."}, None),
    ("post", "/api/v1/private-advisories/"): (
        {
            "document": {
                "id": "ACME-2026-1",
                "summary": "The client trusts any certificate",
                "affected": [{"package": {"ecosystem": "PyPI", "name": "acme-client"}, "versions": ["2.4.0"]}],
            },
            "reason": "Found in our own review.",
        },
        None,
    ),
    ("post", "/api/v1/private-advisories/{id}/approve/"): ({"reason": "Reproduced."}, None),
    ("post", "/api/v1/private-advisories/{id}/reject/"): ({"reason": "The range is too wide."}, None),
    ("post", "/api/v1/fixes/{key}/assign/"): ({"person": "kim"}, None),
    ("post", "/api/v1/fixes/{key}/snooze/"): ({"until_fix": True, "reason": "No release yet."}, None),
    ("post", "/api/v1/fixes/{key}/wake/"): ({"team": "shop"}, None),
    ("post", "/api/v1/fixes/{key}/comment/"): ({"text": "The upstream release is planned for Monday."}, None),
    ("post", "/api/v1/quarantines/{id}/request-release/"): ({"reason": "False alarm."}, None),
    ("post", "/api/v1/quarantines/{id}/release/"): ({"reason": "Checked."}, None),
    ("post", "/api/v1/quarantines/{id}/withdraw/"): ({"reason": "It is pulled by digest."}, None),
    ("post", "/api/v1/quarantines/{id}/refuse-release/"): ({"reason": "Not proven."}, None),
    ("post", "/api/v1/quarantines/{id}/exemptions/"): (
        {"digest": _DIGEST, "reason": "Does not contain the file."},
        None,
    ),
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
    ("post", "/api/v1/promotions/rollback/"): (
        {"repository": "shop/api", "environment": "production", "reason": "Payments fail since 1.4.0."},
        None,
    ),
    ("post", "/api/v1/promotions/break-glass/"): (
        {
            "repository": "shop/api", "digest": _DIGEST, "environment": "production", "reason": "Payments fail.",
            "incident": "INC-712", "password": "your own",
        },
        None,
    ),
    ("post", "/api/v1/promotions/{id}/comment/"): (
        {"text": "Does the migration lock the table?", "is_blocking": True},
        None,
    ),
    ("post", "/api/v1/promotions/{id}/resolve-thread/"): ({"thread": 12}, None),
    ("post", "/api/v1/promotions/{id}/verify/"): ({"passed": True, "comment": "Checkout works."}, None),
    ("post", "/api/v1/promotions/{id}/review/"): (
        {"outcome": "justified", "comment": "The incident could not wait; the findings are known."},
        None,
    ),
    ("post", "/api/v1/promotions/{id}/approve/"): ({"reason": "Tests are green."}, None),
    ("post", "/api/v1/promotions/{id}/object/"): ({"reason": "The load test is red."}, None),
    ("post", "/api/v1/promotions/{id}/overrule/"): ({"voter": "kim", "reason": "Known, and accepted."}, None),
    ("post", "/api/v1/promotions/{id}/withdraw-vote/"): ({"reason": "The load test is green again."}, None),
    ("post", "/api/v1/promotions/{id}/reject/"): ({"reason": "CVE-2026-1234 is open."}, None),
    ("post", "/api/v1/promotions/{id}/withdraw/"): ({"reason": "Wrong digest."}, None),
    ("get", "/api/v1/release-sets/"): (None, {"results": [_RELEASE_SET], "next": None}),
    ("post", "/api/v1/release-sets/"): (
        {
            "environment": "staging", "reason": "Release 1.4",
            "members": [{"repository": "shop/api", "tag": "1.4.0"}, {"repository": "shop/web", "digest": _DIGEST}],
        },
        None,
    ),
    ("post", "/api/v1/release-sets/{id}/approve/"): ({"reason": "Tests are green."}, None),
    ("post", "/api/v1/release-sets/{id}/object/"): ({"reason": "The load test is red."}, None),
    ("post", "/api/v1/release-sets/{id}/overrule/"): ({"voter": "kim", "reason": "Known, and accepted."}, None),
    ("post", "/api/v1/release-sets/{id}/withdraw-vote/"): ({"reason": "The load test is green again."}, None),
    ("post", "/api/v1/release-sets/{id}/reject/"): ({"reason": "CVE-2026-1234 is open."}, None),
    ("post", "/api/v1/release-sets/{id}/withdraw/"): ({"reason": "Wrong digest."}, None),
    ("post", "/api/v1/rebuild-waves/"): ({"base": "base/python:bookworm"}, None),
    ("post", "/api/v1/access-requests/"): (
        {"team": "shop", "role": "approver", "repository_pattern": "shop/*", "days": 14, "reason": "On call."},
        None,
    ),
    ("post", "/api/v1/access-requests/{id}/grant/"): ({"days": 7, "comment": "Until Friday."}, None),
    ("post", "/api/v1/access-requests/{id}/decline/"): ({"comment": "Ask Lee, who is on call."}, None),
    ("post", "/api/v1/access/file/diff/"): ({"text": _ACCESS_FILE}, None),
    ("post", "/api/v1/access/file/apply/"): ({"text": _ACCESS_FILE, "remove": False}, None),
    ("post", "/api/v1/roles/{role}/what-if/"): ({"verbs": ["image.view", "image.create"]}, None),
    ("patch", "/api/v1/repositories/{id}/"): ({"description": "The shop's API", "visibility": "internal"}, None),
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
    ("post", "/api/v1/feeds/"): ({"preset": "kev"}, None),
    ("patch", "/api/v1/feeds/{id}/"): ({"every_hours": 12}, None),
    ("post", "/api/v1/feeds/{id}/sync/"): ({"accept_smaller": False}, None),
    ("post", "/api/v1/registries/"): (
        {
            "name": "harbor", "endpoint": "https://harbor.example.com", "username": "robot$gravingdock",
            "password": "shown to nobody",
        },
        None,
    ),
    ("patch", "/api/v1/registries/{id}/"): ({"username": "robot$other", "password": "shown to nobody"}, None),
    ("post", "/api/v1/roles/"): ({"slug": "crew", "name": "Crew", "verbs": ["image.view", "audit.read"]}, None),
    ("put", "/api/v1/roles/{role}/"): ({"name": "Crew", "verbs": ["image.view"]}, None),
    ("post", "/api/v1/trusted-sources/"): (
        {"name": "debian", "places": ["docker.io/library/debian"], "is_site_wide": True, "needs_signature": False},
        None,
    ),
    ("put", "/api/v1/trusted-sources/{source_id}/"): (
        {"name": "debian", "places": ["docker.io/library/*"], "is_site_wide": True, "needs_signature": False},
        None,
    ),
    ("post", "/api/v1/signing-keys/"): ({"name": "release-2027"}, None),
    ("post", "/api/v1/audit-anchors/"): (
        {"name": "auditors", "kind": "syslog", "target": "tcp://logs.example.com:601"},
        None,
    ),
    ("post", "/api/v1/signing-keys/{name}/retire/"): ({"reason": "All clusters trust release-2027."}, None),
    ("post", "/api/v1/teams/"): ({"slug": "shop", "name": "Shop"}, None),
    ("post", "/api/v1/teams/{team}/move-repositories/"): ({"to": "web", "repositories": ["shop/api"]}, None),
    ("post", "/api/v1/teams/{team}/environments/"): (
        {"slug": "staging", "name": "Staging", "prefix": "staging", "required_approvals": 1},
        None,
    ),
    ("patch", "/api/v1/environments/{id}/"): (
        {
            "required_approvals": 2,
            "soak_s": 86_400,
            "approval_rules": [{"name": "security", "required_approvals": 1, "role": "security"}],
        },
        None,
    ),
    ("post", "/api/v1/channels/"): (
        {
            "team": "shop", "name": "deployments", "kind": "webhook", "address": "https://example.com/hook",
            "topics": ["promotion.executed", "promotion.failed"],
        },
        None,
    ),
    ("post", "/api/v1/external-checks/"): (
        {"team": "shop", "name": "scanner", "address": "https://scanner.example.com/check"},
        None,
    ),
    ("put", "/api/v1/external-checks/{id}/"): ({"address": "", "renew_secret": True}, None),
    ("put", "/api/v1/channels/{id}/"): (
        {"name": "deployments", "topics": ["promotion.failed"], "is_enabled": True},
        None,
    ),
    ("put", "/api/v1/notice-preferences/"): (
        {
            "inbox": ["promotion.asked", "promotion.decided"], "mail": ["promotion.asked"], "digest": "off",
            "quiet_from": "18:00", "quiet_until": "08:00", "time_zone": "Europe/Berlin",
        },
        None,
    ),
    ("post", "/api/v1/notice-mutes/"): (
        {"scope": "repository", "value": "shop/api", "until": "2026-12-05T09:30:00Z"},
        None,
    ),
    ("post", "/api/v1/images/{digest}/sboms/"): (_SBOM, None),
    ("post", "/api/v1/images/{digest}/sboms/{sbom_id}/withdraw/"): ({"reason": "of another build"}, None),
    ("post", "/api/v1/scan/"): (_SBOM, None),
    ("post", "/api/v1/windows/"): (
        {
            "name": "Sales weekend", "kind": "freeze", "starts_at": "2026-11-26T16:00", "duration_s": 316_800,
            "time_zone": "Europe/Berlin", "team": "shop", "environment": "production",
        },
        None,
    ),
    ("post", "/api/v1/holds/"): (
        {"team": "shop", "environment": "production", "repository": "shop/web", "reason": "Checkout test"},
        None,
    ),
    ("post", "/api/v1/teams/{team}/grants/"): (
        {"username": "kim", "role": "approver", "repositories": "shop/*", "environment": "staging"},
        None,
    ),
    ("post", "/api/v1/teams/{team}/robots/"): ({"name": "ci"}, None),
    ("put", "/api/v1/security/"): (
        {"second_factor_for_admins": True, "second_factor_for_roles": ["owner"], "step_up_is_on": True},
        None,
    ),
    ("put", "/api/v1/sign-in/policy/"): ({"passwords_only_for_admins": True}, None),
    ("post", "/api/v1/sign-in/providers/"): (
        {
            "slug": "corp", "name": "Corp", "issuer": "https://login.example.com/realms/corp",
            "client_id": "gravingdock",
            "client_secret": "shown to nobody", "scopes": "openid profile email groups",
        },
        None,
    ),
    ("patch", "/api/v1/sign-in/providers/{slug}/"): ({"is_enabled": False}, None),
    ("post", "/api/v1/sign-in/providers/{slug}/rules/"): (
        {"claim": "groups", "match": "glob", "value": "shop-*", "group": "shop/developers"},
        None,
    ),
    ("post", "/api/v1/sign-in/providers/{slug}/preview/"): ({"claims": {"groups": ["shop-dev"]}}, None),
    ("post", "/api/v1/sign-in/providers/{slug}/effects/"): (
        {"add": {"claim": "groups", "value": "shop-dev", "role": "creator", "team": "shop"}},
        None,
    ),
    ("post", "/api/v1/groups/"): ({"slug": "devs", "name": "Developers", "team": "shop"}, None),
    ("patch", "/api/v1/groups/{group_id}/"): ({"name": "All developers"}, None),
    ("post", "/api/v1/groups/{group_id}/members/"): ({"username": "kim"}, None),
    ("post", "/api/v1/teams/{team}/robots/{robot_id}/tokens/"): (_TOKEN, None),
    ("post", "/api/v1/teams/{team}/robots/{robot_id}/trust-rules/"): (
        {
            "name": "GitHub, main branch", "issuer": "https://token.actions.githubusercontent.com",
            "claims": {"repository": "acme/shop", "ref": "refs/heads/main"},
        },
        None,
    ),
    ("post", "/api/v1/teams/{team}/robots/{robot_id}/trust-rules/{rule_id}/try/"): (
        {"token": "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiIuLi4ifQ.c2lnbmF0dXJl"},
        None,
    ),
    ("post", "/api/v1/people/"): ({"username": "kim", "full_name": "Kim Lee", "email": "kim@example.com"}, None),
    ("post", "/api/v1/people/{person_id}/reset-password/"): ({"with_password": False}, None),
    ("post", "/api/v1/people/{person_id}/reactivate/"): ({"with_password": False}, None),
    ("post", "/api/v1/tokens/"): (_TOKEN, None),
    ("get", "/api/v1/environments/"): (
        None,
        {
            "results": [
                {
                    "id": 2, "team": "shop", "slug": "staging", "name": "Staging", "position": 1, "prefix": "staging",
                    "registry": None, "required_approvals": 1, "is_production": False,
                    "is_internet_facing": False, "approve_within_s": 604_800,
                    "execute_within_s": 259_200, "soak_s": 0, "queue_policy": "queue", "auto_execute": False,
                    "verification": "none", "verify_url": "", "verify_within_s": 3600, "rolls_back": False,
                    "excludes_requester": True, "excludes_build_trigger": True, "excludes_committer": True,
                    "excludes_policy_author": True, "requires_signed_votes": False, "archived_at": None,
                    "revision": 1,
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
            "registry": "registry.example.com",
            "teams": [
                {
                    "slug": "shop",
                    "name": "Shop",
                    "grants": [
                        {
                            "role": "viewer", "verbs": ["image.view"], "repositories": "*", "environment": None,
                            "expires_at": None, "origin": "",
                        }
                    ],
                }
            ],
            "token": {"id": 7, "name": "laptop", "begins_with": "gdk_pat_bgjyP6dFfm…", "expires_at": _NOW},
        },
    ),
}  # fmt: skip
# Path parameters, by name.
PATHS: Final[dict[str, Any]] = {"digest": _DIGEST, "team": "shop", "role": "viewer", "scope": "team:shop"}
QUERIES: Final[dict[str, Any]] = {"repository": "shop/api", "to": _OTHER}
