"""The reviewed rows of the authorization matrix: every change by page or API, and who is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lifecycle.core import clock
from tests.factories import dock as rows

TRUST_BODY = {"name": "x", "issuer": "https://gitlab.com", "claims": {"project_path": "acme/shop"}}
TRUST_FORM = {"name": "x", "issuer": "https://gitlab.com", "claims": "project_path=acme/shop"}
WINDOW: Final[dict[str, object]] = {
    "name": "sale", "kind": "freeze", "starts_at": "2026-11-26T16:00", "duration_s": 60, "time_zone": "UTC",
    "team": "shop",
}  # fmt: skip
ENVIRONMENT: Final[dict[str, str]] = {
    "revision": "1", "name": "Dev", "position": "1", "required_approvals": "0", "rules": "", "approve_hours": "24",
    "execute_hours": "24", "soak_hours": "0", "queue_policy": "queue", "excludes_requester": "on",
}  # fmt: skip
WINDOW_FORM: Final[dict[str, str]] = {
    "place": "shop", "window_name": "sale", "window_kind": "freeze", "starts_at": "2026-11-26T16:00", "hours": "8",
    "zone": "UTC", "rule": "FREQ=DAILY",
}  # fmt: skip
PASSWORD: Final = "dock-side-pass"
BACKEND: Final = "allauth.account.auth_backends.AuthenticationBackend"
# POST: who holds no verb changes nothing, whatever the state.
POSTS: Final = ("approve", "reject", "object", "execute", "withdraw")
# Method, address, body: what only who may rebuild (or, for a recipe, amend) gets done.
REBUILD_ACTS: Final[tuple[tuple[str, str, dict[str, object]], ...]] = (
    ("post", "rebuild-waves/{wave}/confirm/", {}),
    ("post", "rebuild-waves/{wave}/cancel/", {}),
    ("post", "rebuild-waves/{wave}/retry/", {}),
    ("post", "repositories/{repository}/watches/", {"tag": "2.0"}),
    ("delete", "repositories/{repository}/watches/{watch}/", {}),
    ("put", "repositories/{repository}/recipe/", {"containerfile": "FROM scratch"}),
    ("put", "repositories/{repository}/protected-tags/", {"patterns": ["*"]}),
    ("patch", "repositories/{repository}/", {"visibility": "internal"}),
    ("delete", "repositories/{repository}/?name=shop/api", {}),
)
PROVIDER: Final[dict[str, str]] = {
    "slug": "mine", "name": "Mine", "issuer": "https://login.example.com", "client_id": "x", "client_secret": "x",
    "scopes": "openid", "username_claim": "sub",
}  # fmt: skip
CLAIM_RULE: Final[dict[str, str]] = {
    "claim": "groups",
    "match": "exact",
    "value": "devs",
    "role": "viewer",
    "team": "shop",
}
CLAIM_RULE_FORM: Final[dict[str, str]] = {**CLAIM_RULE, "repository_pattern": "*"}
REGISTRY: Final[dict[str, str]] = {"name": "mine", "endpoint": "registry.example.com"}
FEED: Final[dict[str, object]] = {"name": "mine", "kind": "kev", "location": "https://example.com/kev.json"}
FEED_FORM: Final[dict[str, object]] = FEED | {
    "every_hours": "4", "stale_after_hours": "72", "max_minutes": "60", "max_mib": "10",
}  # fmt: skip
EXTERNAL_CHECK = {"team": "shop", "name": "lab", "address": "https://lab.example.com/check"}
CHANNEL: Final[dict[str, str]] = {
    "name": "mine", "kind": "webhook", "address": "https://example.com/hook", "topics": "promotion.asked",
}  # fmt: skip
CHANNEL_BODY: Final[dict[str, object]] = {**CHANNEL, "team": "shop", "topics": ["promotion.asked"]}
MUTE: Final[dict[str, object]] = {"scope": "all", "until": str(clock.now() + timedelta(days=3))}
SBOM: Final[dict[str, object]] = {"bomFormat": "CycloneDX", "specVersion": "1.5"}
REPORT: Final[dict[str, object]] = {
    "schema": "gravingdock.report.v1", "report_id": "r-9", "boot": "b", "sequence": 1, "kind": "full",
    "observed_at": "2026-11-30T12:00:00Z", "reporter": "agent", "containers": [],
}  # fmt: skip
CLUSTER: Final[dict[str, object]] = {"slug": "east", "team": "shop"}
CLUSTER_SETTINGS: Final[dict[str, object]] = {
    "mode": "enforce", "tags": "resolve", "unbound": "deny", "stale_after_hours": "24",
}  # fmt: skip
BINDINGS: Final[dict[str, object]] = {"bindings": [{"pattern": "prod-*", "environment": "staging"}]}
BINDINGS_FORM: Final[dict[str, object]] = {
    "form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "0", "form-0-pattern": "prod-*",
    "form-0-environment": "shop/staging",
}  # fmt: skip
PENTEST: Final[dict[str, object]] = {"digest": "sha256:" + "a" * 64, "report": "[]", "repository": "shop/api"}
PENTEST_FORM: Final = {"digest": "sha256:" + "a" * 64, "text": "[]", "scope": "full", "repository": "shop/api"}
QUARANTINE: Final[dict[str, object]] = {"digest": "sha256:" + "a" * 64, "reason": "bad"}
EXEMPTION: Final[dict[str, object]] = {"digest": rows.sha("on bad"), "reason": "harmless"}
DECISION: Final[dict[str, object]] = {
    "vulnerability": "CVE-2026-7",
    "status": "false_positive",
    "scope": "repository",
    "repository": "shop/api",
    "reason": "another product",
}
OSV_RECORD: Final[dict[str, object]] = {
    "document": {
        "id": "ACME-2026-2",
        "affected": [{"package": {"ecosystem": "PyPI", "name": "acme"}, "versions": ["1.0"]}],
    }
}
VEX_FEED: Final[dict[str, object]] = {
    "name": "mine",
    "team": "shop",
    "location": "https://vendor.example/vex/",
    "every_hours": 24,
}
VEX_DOCUMENT: Final[dict[str, object]] = {
    "team": "shop",
    "document": {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://vendor.example/2",
        "author": "Vendor",
        "timestamp": "2026-01-02T03:04:05Z",
        "version": 1,
        "statements": [
            {
                "vulnerability": {"name": "CVE-2026-7"},
                "products": [{"@id": "pkg:deb/debian/tar"}],
                "status": "fixed",
            }
        ],
    },
}
WAIVER: Final[dict[str, object]] = {
    "team": "shop", "rule": "r", "environment": "staging", "reason": "because", "ticket": "OPS-1",
    "until": "2100-01-01T00:00:00Z",
}  # fmt: skip
# Pages that change who may what: address, form; and what an outsider and a viewer of the team are told.
FORMS: Final[tuple[tuple[str, dict[str, str], int, int], ...]] = (
    ("teams/", {"slug": "mine"}, 403, 403),
    ("audit/log/", {"name": "mine", "kind": "mail", "target": "me@example.com"}, 403, 403),
    ("audit/log/anchors/{anchor}/remove/", {}, 403, 403),
    ("teams/{team}/members/", {"username": "outsider", "role": "owner", "repository_pattern": "*"}, 404, 403),
    ("teams/{team}/grants/{grant}/revoke/", {}, 404, 403),
    ("teams/{team}/environments/", {"slug": "x", "target_prefix": "x", "required_approvals": "0"}, 404, 403),
    ("promotions/environments/{environment}/", ENVIRONMENT, 404, 403),
    ("promotions/environments/{environment}/remove/", {}, 404, 403),
    ("promotions/gates/windows/", WINDOW_FORM, 404, 403),
    ("promotions/gates/windows/{window}/remove/", {}, 404, 403),
    ("promotions/gates/holds/", {"place": "shop", "hold_reason": "x", "act": "stop"}, 404, 403),
    ("promotions/gates/holds/{hold}/lift/", {}, 404, 403),
    ("teams/{team}/builder/", {"turn": "on"}, 404, 403),
    ("rebuilds/repositories/{repository}/builder/", {"turn": "on"}, 404, 403),
    ("teams/{team}/robots/", {"name": "mine"}, 404, 403),
    ("teams/{team}/robots/{robot}/grants/", {"grant-role": "viewer", "grant-repository_pattern": "*"}, 404, 403),
    ("teams/{team}/robots/{robot}/tokens/", {"name": "mine", "days": "1"}, 404, 403),
    ("teams/{team}/robots/{robot}/tokens/{robot_token}/revoke/", {}, 404, 403),
    ("teams/{team}/robots/{robot}/retire/", {}, 404, 403),
    ("teams/{team}/robots/{robot}/take-over/", {}, 404, 403),
    (
        "teams/{team}/robots/{robot}/keyless/",
        TRUST_FORM,
        404,
        403,
    ),
    ("teams/{team}/robots/{robot}/keyless/{trust_rule}/try/", {"token": "x"}, 404, 403),
    ("teams/{team}/robots/{robot}/keyless/{trust_rule}/end/", {}, 404, 403),
    (
        "teams/{team}/groups/",
        {"of-group-group": "shop/crew", "of-group-role": "owner", "of-group-repository_pattern": "*"},
        404,
        403,
    ),
    ("groups/", {"slug": "mine", "team": "shop"}, 403, 403),
    ("groups/{group}/rename/", {"name": "mine"}, 404, 403),
    ("groups/{group}/delete/", {}, 404, 403),
    ("groups/{group}/members/", {"kind": "person", "name": "outsider"}, 404, 403),
    ("groups/{group}/members/{group_member}/remove/", {}, 404, 403),
    ("sso/{provider}/link/", {"proof": "x"}, 302, 302),  # no proof: nothing is linked
    ("account/identities/{identity}/unlink/", {}, 404, 404),  # somebody else's
    ("sign-in/", {"passwords": "admins"}, 403, 403),
    ("sign-in/new/", PROVIDER, 403, 403),
    ("sign-in/{provider}/", PROVIDER, 403, 403),
    ("sign-in/{provider}/test/", {}, 403, 403),
    ("sign-in/{provider}/preview/", {"sample": "{}"}, 403, 403),
    ("sign-in/{provider}/rules/", CLAIM_RULE_FORM, 403, 403),
    ("sign-in/{provider}/rules/{claim_rule}/delete/", {}, 403, 403),
    ("sign-in/{provider}/delete/", {}, 403, 403),
    ("roles/", {"slug": "all", "name": "All", "verbs": "team.manage"}, 403, 403),
    ("roles/{role}/", {"name": "All", "verbs": "team.manage"}, 403, 403),
    ("roles/{role}/delete/", {}, 403, 403),
    ("people/", {"username": "mine"}, 403, 403),
    ("people/{person}/deactivate/", {}, 403, 403),
    ("people/{person}/reset-password/", {}, 403, 403),
    ("people/{person}/end-sessions/", {}, 403, 403),
    ("people/{person}/reset-factors/", {}, 403, 403),
    ("security/", {"revision": "0"}, 403, 403),
    ("account/security/authenticator/remove/", {}, 404, 404),  # they have none
    ("account/security/passkeys/{passkey}/remove/", {}, 404, 404),  # somebody else's
    ("people/{person}/admin/", {"is_admin": "1"}, 403, 403),
    ("people/{person}/verify-mail/", {}, 403, 403),
    ("people/{person}/reactivate/", {}, 403, 403),
    ("t/{team}/r/{repository_name}/i/{digest}/rescan/", {}, 404, 403),
    ("t/{team}/r/{repository_name}/-/describe/", {"description": "x"}, 404, 403),
    ("access/file/", {"text": "version: 1\nteams: [{name: shop, robots: []}]", "etag": "x", "act": "apply"}, 422, 422),
    ("access-requests/new/", {"team": "shop", "role": "nobody", "reason": "x", "days": "1"}, 422, 422),
    ("access-requests/{access_request}/grant/", {}, 404, 404),
    ("access-requests/{access_request}/decline/", {"comment": "no"}, 404, 404),
    ("access-requests/{access_request}/withdraw/", {}, 404, 404),
    ("t/{team}/r/{repository_name}/-/visibility/", {"visibility": "internal"}, 404, 403),
    ("t/{team}/r/{repository_name}/-/archive/", {}, 404, 403),
    ("t/{team}/r/{repository_name}/-/delete/", {"name": "shop/api"}, 404, 403),
    ("t/{team}/r/{repository_name}/-/protect/", {"patterns": "*"}, 404, 403),
    ("t/{team}/r/{repository_name}/-/metadata/", {"key": "x", "kind": "text", "value": "y"}, 404, 403),
    ("t/{team}/r/{repository_name}/-/metadata/remove/", {"key": "owner"}, 404, 403),
    ("t/{team}/r/{repository_name}/-/tags/{tag}/delete/", {}, 404, 403),
    ("t/{team}/r/{repository_name}/i/{digest}/delete/", {}, 404, 403),
    ("signing-keys/", {"name": "next"}, 403, 403),
    ("signing-keys/{signing_key}/retire/", {}, 403, 403),
    ("trusted-sources/{trusted_source}/", {"name": "x"}, 404, 403),
    ("trusted-sources/{trusted_source}/retire/", {}, 404, 403),
    ("trusted-sources/new/", {"name": "x", "places": "quay.io/x/*", "scope": "all"}, 403, 403),
    ("t/{team}/r/{repository_name}/i/{digest}/signatures/", {}, 404, 403),
    ("t/{team}/r/{repository_name}/i/{digest}/sboms/", {}, 404, 403),
    ("t/{team}/r/{repository_name}/i/{digest}/sboms/{sbom}/withdraw/", {}, 404, 403),
    ("teams/{team}/rename/", {"name": "x"}, 404, 403),
    ("teams/{team}/delete/", {}, 404, 403),
    ("teams/{team}/move/", {"to": "empty", "names": "shop/api"}, 404, 403),
    ("policies/{scope}/", {"act": "save", "revision": "1", "count": "0"}, 404, 403),
    ("clusters/{cluster}/", CLUSTER_SETTINGS, 404, 403),
    ("clusters/{cluster}/bindings/", BINDINGS_FORM, 404, 403),
    ("clusters/{cluster}/delete/", {"slug": "north"}, 404, 403),
    ("clusters/{cluster}/secrets/", {"kind": "admission"}, 404, 403),
    ("clusters/{cluster}/debts/{debt}/review/", {"outcome": "justified", "comment": "x"}, 404, 403),
    ("pentests/runs/", PENTEST_FORM, 404, 403),
    ("pentests/{pentest}/confirm/", {}, 404, 403),
    ("pentests/{pentest}/dismiss/", {"reason": "x"}, 404, 403),
    ("pentests/{pentest}/ask/", {"reason": "x", "until": "2026-12-24"}, 404, 403),
    ("pentests/{pentest}/accept/", {}, 404, 403),
    ("pentests/{pentest}/retest/", {}, 404, 403),
    ("retention/teams/{team}/", {"revision": "0", "keep_last": "3"}, 404, 403),
    ("retention/teams/{team}/plan/", {}, 404, 403),
    ("retention/repositories/{repository}/", {"revision": "0", "keep_last": "3"}, 404, 403),
    ("retention/repositories/{repository}/plan/", {}, 404, 403),
    ("retention/{retention_plan}/confirm/", {}, 404, 403),
    ("retention/{retention_plan}/restore/", {}, 404, 403),
    ("quarantines/new/", QUARANTINE, 404, 403),
    ("quarantines/{quarantine}/request-release/", {"reason": "x"}, 404, 403),
    ("quarantines/{quarantine}/release/", {"reason": "x"}, 404, 403),
    ("quarantines/{quarantine}/refuse-release/", {"reason": "x"}, 404, 403),
    ("quarantines/{quarantine}/withdraw/", {"reason": "x"}, 404, 403),
    ("quarantines/{quarantine}/exemptions/", EXEMPTION, 404, 403),
    ("fixes/{fix}/assign/", {"team": "shop"}, 404, 403),
    ("fixes/{fix}/snooze/", {"team": "shop", "days": "3"}, 404, 403),
    ("fixes/{fix}/wake/", {"team": "shop"}, 404, 403),
    ("alerts/{alert}/acknowledge/", {}, 404, 403),
    ("alerts/{alert}/snooze/", {"days": "1"}, 404, 403),
    ("alerts/{alert}/resolve/", {"reason": "x"}, 404, 403),
    ("vex/{vex_statement}/approve/", {}, 404, 403),
    ("vex/{vex_statement}/reject/", {"reason": "no"}, 404, 403),
    ("vex/{vex_statement}/withdraw/", {}, 404, 403),
    ("private-advisories/{private_advisory}/approve/", {}, 404, 404),
    ("private-advisories/{private_advisory}/reject/", {"reason": "no"}, 404, 404),
    ("private-advisories/{private_advisory}/cancel/", {}, 404, 404),
    ("vex/documents/{vex_document}/accept/", {}, 404, 403),
    ("vex/documents/{vex_document}/withdraw/", {}, 404, 403),
    ("vex/feeds/{vex_feed}/", VEX_FEED, 404, 403),
    ("vex/feeds/{vex_feed}/sync/", {}, 404, 403),
    ("vex/feeds/{vex_feed}/trust/", {}, 404, 403),
    ("vex/feeds/{vex_feed}/distrust/", {}, 404, 403),
    ("vex/feeds/{vex_feed}/remove/", {}, 404, 403),
    ("waivers/{waiver}/approve/", {}, 404, 403),
    ("waivers/{waiver}/reject/", {"reason": "no"}, 404, 403),
    ("waivers/{waiver}/revoke/", {}, 404, 403),
    ("notices/{notice}/open/", {}, 404, 404),  # somebody else's
    ("notices/{notice}/read/", {}, 404, 404),
    ("account/notices/mutes/{mute}/end/", {}, 404, 404),
    ("external-checks/new/", EXTERNAL_CHECK, 422, 422),  # not among the teams that they can choose
    ("external-checks/{check}/", {"renew_secret": "on"}, 404, 403),
    ("external-checks/{check}/delete/", {}, 404, 403),
    ("channels/new/", CHANNEL | {"team": "shop"}, 422, 422),  # not among the teams that they can choose
    ("channels/{channel}/", {"name": "x", "topics": "promotion.asked"}, 404, 404),
    ("due-dates/", {"revision": "0"}, 403, 403),
    ("feeds/new/", FEED_FORM, 403, 403),
    ("feeds/{feed}/", FEED_FORM, 403, 403),
    ("feeds/{feed}/sync/", {}, 403, 403),
    ("feeds/{feed}/remove/", {}, 403, 403),
    ("registries/new/", REGISTRY, 403, 403),
    ("registries/{registry}/", REGISTRY, 403, 403),
    ("registries/{registry}/test/", {}, 403, 403),
    ("registries/{registry}/remove/", {}, 403, 403),
    ("channels/{channel}/test/", {}, 404, 404),
    ("channels/{channel}/delete/", {}, 404, 404),
    ("channels/messages/{message}/redeliver/", {}, 404, 404),
    ("account/sessions/{session}/end/", {}, 404, 404),  # somebody else's
    ("account/tokens/{token}/revoke/", {}, 404, 404),  # somebody else's
    ("jobs/{job}/cancel/", {}, 404, 404),  # as above
    ("jobs/{job}/retry/", {}, 404, 404),
)
_SECURITY: Final[dict[str, object]] = {
    "second_factor_for_admins": False, "second_factor_for_roles": [], "step_up_is_on": False,
}  # fmt: skip
_SITE_SOURCE: Final[dict[str, object]] = {
    "name": "x", "places": ["quay.io/x/*"], "is_site_wide": True, "needs_signature": False,
}  # fmt: skip
# The same over the API: method, address, body, and what an outsider and a viewer are told.
API_ACTS: Final[tuple[tuple[str, str, dict[str, object], int, int], ...]] = (
    ("post", "teams/", {"slug": "mine"}, 403, 403),
    ("post", "audit-anchors/", {"name": "mine", "kind": "mail", "target": "me@example.com"}, 403, 403),
    ("delete", "audit-anchors/{anchor}/", {}, 403, 403),
    ("post", "access/file/diff/", {"text": "version: 1\nteams: [{name: shop}]"}, 404, 200),
    ("post", "access/file/apply/", {"text": "version: 1\nteams: [{name: shop}]"}, 428, 428),
    ("post", "teams/{team}/grants/", {"username": "outsider", "role": "owner"}, 404, 403),
    ("post", "teams/{team}/grants/", {"username": "shop+ci", "role": "owner"}, 404, 403),
    ("post", "teams/{team}/grants/", {"group": "shop/crew", "role": "owner"}, 404, 403),
    ("delete", "teams/{team}/grants/{grant}/", {}, 404, 403),
    ("put", "sign-in/policy/", {"passwords_only_for_admins": True}, 403, 403),
    ("post", "sign-in/providers/", PROVIDER, 403, 403),
    ("patch", "sign-in/providers/{provider}/", {"name": "Mine"}, 403, 403),
    ("delete", "sign-in/providers/{provider}/", {}, 403, 403),
    ("post", "sign-in/providers/{provider}/test/", {}, 403, 403),
    ("post", "sign-in/providers/{provider}/preview/", {"claims": {}}, 403, 403),
    ("post", "sign-in/providers/{provider}/effects/", {}, 403, 403),
    ("post", "sign-in/providers/{provider}/rules/", CLAIM_RULE, 403, 403),
    ("delete", "sign-in/providers/{provider}/rules/{claim_rule}/", {}, 403, 403),
    ("post", "groups/", {"slug": "mine"}, 403, 403),
    ("post", "groups/", {"slug": "mine", "team": "shop"}, 404, 403),
    ("patch", "groups/{group}/", {"name": "mine"}, 404, 403),
    ("delete", "groups/{group}/", {}, 404, 403),
    ("post", "groups/{group}/members/", {"username": "outsider"}, 404, 403),
    ("delete", "groups/{group}/members/{group_member}/", {}, 404, 403),
    ("post", "teams/{team}/move-repositories/", {"to": "shop"}, 404, 403),
    ("post", "teams/{team}/robots/", {"name": "mine"}, 404, 403),
    ("delete", "teams/{team}/robots/{robot}/", {}, 404, 403),
    ("post", "teams/{team}/robots/{robot}/take-over/", {}, 404, 403),
    (
        "post",
        "teams/{team}/robots/{robot}/trust-rules/",
        TRUST_BODY,
        404,
        403,
    ),
    ("post", "teams/{team}/robots/{robot}/trust-rules/{trust_rule}/try/", {"token": "x"}, 404, 403),
    ("delete", "teams/{team}/robots/{robot}/trust-rules/{trust_rule}/", {}, 404, 403),
    ("post", "teams/{team}/robots/{robot}/tokens/", {"name": "mine"}, 404, 403),
    ("delete", "teams/{team}/robots/{robot}/tokens/{robot_token}/", {}, 404, 403),
    ("post", "teams/{team}/environments/", {"slug": "x", "prefix": "x"}, 404, 403),
    ("patch", "environments/{environment}/", {"name": "Mine"}, 404, 403),
    ("delete", "environments/{environment}/", {}, 404, 403),
    ("post", "windows/", WINDOW, 404, 403),
    ("delete", "windows/{window}/", {}, 404, 403),
    ("post", "holds/", {"reason": "x", "team": "shop"}, 404, 403),
    ("delete", "holds/{hold}/", {}, 404, 403),
    ("put", "teams/{team}/builder/", {}, 404, 403),
    ("delete", "teams/{team}/builder/", {}, 404, 403),
    ("put", "repositories/{repository}/builder/", {}, 404, 403),
    ("delete", "repositories/{repository}/builder/", {}, 404, 403),
    ("post", "roles/", {"slug": "all", "name": "All", "verbs": ["team.manage"]}, 403, 403),
    ("put", "roles/{role}/", {"name": "All", "verbs": ["team.manage"]}, 403, 403),
    ("delete", "roles/{role}/", {}, 403, 403),
    ("post", "people/", {"username": "mine"}, 403, 403),
    ("post", "people/{person}/reset-password/", {}, 403, 403),
    ("post", "people/{person}/deactivate/", {}, 403, 403),
    ("post", "people/{person}/reactivate/", {}, 403, 403),
    ("post", "people/{person}/verify-mail/", {}, 403, 403),
    ("delete", "people/{person}/sessions/", {}, 403, 403),
    ("delete", "people/{person}/second-factors/", {}, 403, 403),
    ("put", "security/", _SECURITY, 403, 403),
    ("put", "people/{person}/admin/", {}, 403, 403),
    ("delete", "people/{person}/admin/", {}, 403, 403),
    ("post", "notices/{notice}/read/", {}, 404, 404),
    ("delete", "notice-mutes/{mute}/", {}, 404, 404),
    ("put", "due-dates/", {"rows": []}, 403, 403),
    ("post", "due-dates/what-if/", {"rows": []}, 403, 403),
    ("post", "feeds/", FEED, 403, 403),
    ("patch", "feeds/{feed}/", {"every_hours": 5}, 403, 403),
    ("delete", "feeds/{feed}/", {}, 403, 403),
    ("post", "feeds/{feed}/sync/", {}, 403, 403),
    ("post", "registries/", REGISTRY, 403, 403),
    ("patch", "registries/{registry}/", {"name": "x"}, 403, 403),
    ("delete", "registries/{registry}/", {}, 403, 403),
    ("post", "registries/{registry}/test/", {}, 403, 403),
    ("post", "external-checks/", EXTERNAL_CHECK, 404, 403),
    ("put", "external-checks/{check}/", {"renew_secret": True}, 404, 403),
    ("delete", "external-checks/{check}/", {}, 404, 403),
    ("post", "channels/", CHANNEL_BODY, 404, 403),
    ("put", "channels/{channel}/", {"name": "x", "topics": ["promotion.asked"]}, 404, 404),
    ("delete", "channels/{channel}/", {}, 404, 404),
    ("post", "channels/{channel}/test/", {}, 404, 404),
    ("post", "messages/{message}/redeliver/", {}, 404, 404),
    ("delete", "tokens/{token}/", {}, 404, 404),
    ("post", "jobs/{job}/cancel/", {}, 404, 404),
    ("post", "jobs/{job}/retry/", {}, 404, 404),
    ("post", "signing-keys/", {"name": "next"}, 403, 403),
    ("post", "signing-keys/{signing_key}/retire/", {}, 403, 403),
    ("post", "trusted-sources/", _SITE_SOURCE, 403, 403),
    ("put", "trusted-sources/{trusted_source}/", _SITE_SOURCE, 404, 403),
    ("delete", "trusted-sources/{trusted_source}/", {}, 404, 403),
    ("post", "images/{digest}/signatures/", {}, 404, 404),
    ("post", "images/{digest}/sboms/", SBOM, 404, 403),
    ("post", "images/{digest}/sboms/{sbom}/withdraw/", {}, 404, 403),
    ("put", "policies/{scope}/", {"rules": []}, 404, 403),
    ("post", "policies/what-if/", {"scope": "team:shop", "rules": []}, 404, 403),
    ("post", "clusters/", CLUSTER, 404, 403),
    ("patch", "clusters/{cluster}/", {"mode": "enforce"}, 404, 403),
    ("put", "clusters/{cluster}/bindings/", BINDINGS, 404, 403),
    ("post", "clusters/{cluster}/forecast/", BINDINGS, 404, 403),
    ("delete", "clusters/{cluster}/", {}, 404, 403),
    ("post", "clusters/{cluster}/debts/{debt}/review/", {"outcome": "justified", "comment": "x"}, 404, 403),
    ("post", "clusters/{cluster}/secrets/", {"kind": "admission"}, 404, 403),
    ("post", "clusters/{cluster}/reports/", REPORT, 404, 403),
    ("post", "pentest-runs/", PENTEST, 404, 403),
    ("post", "pentest-findings/{pentest}/confirm/", {}, 404, 403),
    ("post", "pentest-findings/{pentest}/dismiss/", {"reason": "x"}, 404, 403),
    ("post", "pentest-findings/{pentest}/accept/", {"reason": "x", "until": "2026-12-24T09:00:00Z"}, 404, 403),
    ("post", "pentest-findings/{pentest}/retest/", {}, 404, 403),
    ("put", "teams/{team}/retention/", {"keep_last": 3}, 404, 403),
    ("put", "repositories/{repository}/retention/", {"keep_last": 3}, 404, 403),
    ("post", "retention-plans/", {"team": "shop"}, 404, 403),
    ("post", "retention-plans/{retention_plan}/confirm/", {}, 404, 403),
    ("post", "retention-plans/{retention_plan}/restore/", {}, 404, 403),
    ("post", "quarantines/", QUARANTINE, 404, 403),
    ("post", "quarantines/{quarantine}/request-release/", {"reason": "x"}, 404, 403),
    ("post", "quarantines/{quarantine}/release/", {}, 404, 403),
    ("post", "quarantines/{quarantine}/refuse-release/", {"reason": "x"}, 404, 403),
    ("post", "quarantines/{quarantine}/withdraw/", {"reason": "x"}, 404, 403),
    ("post", "quarantines/{quarantine}/exemptions/", EXEMPTION, 404, 403),
    ("post", "fixes/{fix}/assign/", {}, 404, 403),
    ("post", "fixes/{fix}/snooze/", {"until": str(clock.now() + timedelta(days=3))}, 404, 403),
    ("post", "fixes/{fix}/wake/", {}, 404, 403),
    ("post", "alerts/{alert}/acknowledge/", {}, 404, 403),
    ("post", "alerts/{alert}/snooze/", {"until": str(clock.now() + timedelta(days=3))}, 404, 403),
    ("post", "alerts/{alert}/resolve/", {"reason": "x"}, 404, 403),
    ("post", "vex/statements/", DECISION, 404, 403),
    ("post", "vex/statements/{vex_statement}/approve/", {}, 404, 403),
    ("post", "vex/statements/{vex_statement}/reject/", {"reason": "no"}, 404, 403),
    ("post", "vex/statements/{vex_statement}/withdraw/", {}, 404, 403),
    ("post", "private-advisories/", OSV_RECORD, 403, 403),
    ("post", "private-advisories/{private_advisory}/approve/", {}, 404, 404),
    ("post", "private-advisories/{private_advisory}/reject/", {"reason": "no"}, 404, 404),
    ("post", "private-advisories/{private_advisory}/cancel/", {}, 404, 404),
    ("post", "vex/documents/", VEX_DOCUMENT, 404, 403),
    ("post", "vex/documents/{vex_document}/accept/", {}, 404, 403),
    ("post", "vex/documents/{vex_document}/withdraw/", {}, 404, 403),
    ("post", "vex/feeds/", VEX_FEED, 404, 403),
    ("patch", "vex/feeds/{vex_feed}/", {"every_hours": 5}, 404, 403),
    ("delete", "vex/feeds/{vex_feed}/", {}, 404, 403),
    ("post", "vex/feeds/{vex_feed}/sync/", {}, 404, 403),
    ("post", "vex/feeds/{vex_feed}/trust/", {}, 404, 403),
    ("post", "vex/feeds/{vex_feed}/distrust/", {}, 404, 403),
    ("post", "waivers/", WAIVER, 404, 403),
    ("post", "waivers/{waiver}/approve/", {}, 404, 403),
    ("post", "waivers/{waiver}/reject/", {"reason": "no"}, 404, 403),
    ("post", "waivers/{waiver}/revoke/", {}, 404, 403),
)
