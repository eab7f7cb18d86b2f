"""Every action has a meaning, typed details and a place in the code that records it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lifecycle.audit import details
from lifecycle.audit import details_of_access as of_access
from lifecycle.audit import details_of_clusters as of_clusters
from lifecycle.audit import details_of_groups as of_groups
from lifecycle.audit import details_of_images as of_images
from lifecycle.audit import details_of_keyless as of_keyless
from lifecycle.audit import details_of_log as of_log
from lifecycle.audit import details_of_promotion as of_promotion
from lifecycle.audit import details_of_retention as of_retention
from lifecycle.audit.actions import Action
from lifecycle.audit.details import Details
from lifecycle.audit.details_of_actions import DETAILS_OF

ROOT = Path(__file__).parents[3]
SOURCES = [path for folder in ("accounts", "lifecycle") for path in sorted((ROOT / folder).rglob("*.py"))]
AUDIT_TESTS = sorted((ROOT / "tests" / "integration" / "audit").rglob("*.py"))
# All that the modules of details define, by name.
DEFINED = {
    **vars(details), **vars(of_access), **vars(of_clusters), **vars(of_groups), **vars(of_images), **vars(of_promotion),
    **vars(of_retention), **vars(of_log), **vars(of_keyless),
}  # fmt: skip
BEFORE = of_access.RoleContent("Crew", ("image.view",))
AFTER = of_access.RoleContent("Crew", ("image.scan", "image.view"))
# These keys are stored permanently: renaming a field changes what exports and the API return.
STORED = [
    (
        of_access.RegistryCollectionFailed("registry", "It did not stop.", 90),
        {"registry": "registry", "problem": "It did not stop.", "seconds": 90},
    ),
    (
        of_access.RegistryCollected("registry", 3, 2048, 12),
        {"registry": "registry", "blobs": 3, "freed_bytes": 2048, "seconds": 12},
    ),
    (
        of_retention.RetentionRulesChanged({}, {"keep_last": "3"}),
        {"before": {}, "after": {"keep_last": "3"}},
    ),
    (
        of_retention.RetentionPlanned("RP-1", 2, 3, True),
        {"plan": "RP-1", "delete": 2, "keep": 3, "accept_unknown_runtime": True},
    ),
    (of_retention.RetentionFinished("RP-1", 2, 1), {"plan": "RP-1", "deleted": 2, "kept": 1}),
    (
        of_retention.RetentionRestored("RP-1", 1, ("sha256:ab",)),
        {"plan": "RP-1", "count": 1, "digests": ["sha256:ab"]},
    ),
    (
        of_promotion.QuarantineDetails("sha256:ab", True, "INC-7"),
        {"digest": "sha256:ab", "descendants": True, "incident": "INC-7"},
    ),
    (of_promotion.WithdrawalDetails("sha256:ab", ("1.0",)), {"digest": "sha256:ab", "tags": ["1.0"]}),
    (
        of_images.PentestSent("sarif", "full", "https://a", 3, 2, 1, 0, 0),
        {
            "format": "sarif",
            "scope": "full",
            "target": "https://a",
            "results": 3,
            "new": 2,
            "fixed": 1,
            "reopened": 0,
            "refused": 0,
        },
    ),
    (
        of_images.PentestDecided("xss", "high", "2026-12-24T09:00:00+00:00"),
        {"rule": "xss", "severity": "high", "until": "2026-12-24T09:00:00+00:00", "retest": ""},
    ),
    (
        of_clusters.AdmissionDebtReviewed("north", "Deployment prod/web", "justified"),
        {"slug": "north", "workload": "Deployment prod/web", "outcome": "justified"},
    ),
    (
        of_clusters.ClusterCreated("north", "docker", {"mode": "warn"}),
        {"slug": "north", "kind": "docker", "settings": {"mode": "warn"}},
    ),
    (
        of_clusters.ClusterChanged("north", {"mode": "off"}, {"mode": "warn"}),
        {"slug": "north", "before": {"mode": "off"}, "after": {"mode": "warn"}},
    ),
    (
        of_clusters.ClusterBindings("north", (), ("prod: shop/live as cluster",)),
        {"slug": "north", "before": [], "after": ["prod: shop/live as cluster"]},
    ),
    (of_clusters.ClusterAgentBound("north", "shop+agent-north"), {"slug": "north", "user": "shop+agent-north"}),
    (of_clusters.ClusterSecretMade("north", "alerts"), {"slug": "north", "kind": "alerts"}),
    (details.UserDetails("kim"), {"user": "kim"}),
    (details.TagDetails("v1"), {"tag": "v1"}),
    (
        of_access.ChannelDetails("ops", "webhook", "example.com", ("promotion.asked",)),
        {"channel": "ops", "kind": "webhook", "host": "example.com", "topics": ["promotion.asked"]},
    ),
    (
        of_images.AlertDetails("finding.new", "CVE-2026-1", "", "2026-12-24T09:00:00+00:00"),
        {"kind": "finding.new", "vulnerability": "CVE-2026-1", "digest": "", "until": "2026-12-24T09:00:00+00:00"},
    ),
    (
        of_images.FixDetails("0f", "none", "openssl", "kim", "", "", until_fix=True),
        {
            "remedy": "0f",
            "kind": "none",
            "package": "openssl",
            "person": "kim",
            "to_team": "",
            "until": "",
            "until_fix": True,
        },
    ),
    (
        of_images.PrivateAdvisoryDetails("ACME-1", "high", ("npm left-pad",), withdrawn=False),
        {"advisory": "ACME-1", "severity": "high", "packages": ["npm left-pad"], "withdrawn": False},
    ),
    (of_promotion.DueDatesSaved(2, ("high: 30 days",)), {"revision": 2, "rows": ["high: 30 days"]}),
    (of_images.IngestFailed(("severe",), is_allowed=False), {"rules": ["severe"], "is_allowed": False}),
    (
        of_promotion.ExternalCheckDetails("team:shop:lab", "example.com"),
        {"check": "team:shop:lab", "host": "example.com"},
    ),
    (of_access.GrantDetails("kim", "owner", "*"), {"user": "kim", "role": "owner", "repositories": "*"}),
    (
        of_access.GrantCreated("kim", "owner", "*", "never"),
        {"user": "kim", "role": "owner", "repositories": "*", "expires_at": "never"},
    ),
    (
        of_access.GrantChanged(
            "kim", "owner", "*", of_access.GrantExpiry("never"), of_access.GrantExpiry("2030-01-01")
        ),
        {
            "user": "kim",
            "role": "owner",
            "repositories": "*",
            "before": {"expires_at": "never"},
            "after": {"expires_at": "2030-01-01"},
        },
    ),
    (
        of_access.RoleCreated("crew", AFTER),
        {"role": "crew", "after": {"name": "Crew", "verbs": ["image.scan", "image.view"]}},
    ),
    (
        of_access.RoleChanged("crew", BEFORE, AFTER),
        {
            "role": "crew",
            "before": {"name": "Crew", "verbs": ["image.view"]},
            "after": {"name": "Crew", "verbs": ["image.scan", "image.view"]},
        },
    ),
    (of_access.RoleDeleted("crew", BEFORE), {"role": "crew", "before": {"name": "Crew", "verbs": ["image.view"]}}),
    (
        of_access.UserCreated("kim", is_admin=True, secret_kind="link"),
        {"user": "kim", "is_admin": True, "secret_kind": "link"},
    ),
    (of_access.KeysRotated("0a1b2c3d", 2, 0), {"key": "0a1b2c3d", "sealed": 2, "unreadable": 0}),
    (of_access.UserSecret("kim", "link", 2), {"user": "kim", "secret_kind": "link", "tokens_ended": 2}),
    (of_access.TokensEnded("kim", 2), {"user": "kim", "tokens_ended": 2}),
    (
        of_access.LinkUsed("kim", "reset", "ada", same_address=False),
        {"user": "kim", "kind": "reset", "made_by": "ada", "same_address": False},
    ),
    (
        of_access.ProfileChanged("kim", of_access.Profile("", "", "UTC"), of_access.Profile("Kim", "k@x.org", "UTC")),
        {
            "user": "kim",
            "before": {"name": "", "mail": "", "time_zone": "UTC"},
            "after": {"name": "Kim", "mail": "k@x.org", "time_zone": "UTC"},
        },
    ),
    (of_access.UserUnlocked("kim", 3), {"user": "kim", "forgotten": 3}),
    (
        of_access.TokenCreated("kim", "abc", 90, "pat", "", "ada"),
        {"user": "kim", "lookup": "abc", "days": 90, "kind": "pat", "parent": "", "seen_by": "ada"},
    ),
    (
        of_access.RobotTakenOver("shop+ci", "kim", "lee", 2),
        {"user": "shop+ci", "before": "kim", "after": "lee", "revoked": 2},
    ),
    (of_access.TokenRevoked("kim", "abc"), {"user": "kim", "lookup": "abc"}),
    (
        of_access.TokenReplaced("shop+ci", "abc", "def", "2026-12-01", "2026-11-30"),
        {
            "user": "shop+ci",
            "lookup": "abc",
            "replaced_by": "def",
            "before": "2026-12-01",
            "after": "2026-11-30",
        },
    ),
    (
        of_promotion.EnvironmentCreated("dev", 1, "managed"),
        {"prefix": "dev", "required_approvals": 1, "registry": "managed"},
    ),
    (
        of_promotion.EnvironmentChanged({"soak_s": "0"}, {"soak_s": "60"}, False),
        {"before": {"soak_s": "0"}, "after": {"soak_s": "60"}, "is_about_approvals": False},
    ),
    (of_promotion.EnvironmentRemoved("dev", "dev"), {"slug": "dev", "prefix": "dev"}),
    (
        of_promotion.WindowDetails("sale", "freeze", "team shop", "2026-11-26T16:00:00", 60, "UTC", ""),
        {
            "name": "sale",
            "kind": "freeze",
            "place": "team shop",
            "starts_at": "2026-11-26T16:00:00",
            "duration_s": 60,
            "time_zone": "UTC",
            "rule": "",
        },
    ),
    (
        of_promotion.HoldDetails("shop/production", "all", "never"),
        {"place": "shop/production", "scope": "all", "expires_at": "never"},
    ),
    (of_access.AccessRefused("POST", "/x/", "not_found"), {"method": "POST", "path": "/x/", "code": "not_found"}),
    (of_access.AuditExported("csv", {"team": "shop"}), {"format": "csv", "filter": {"team": "shop"}}),
    (
        of_log.AnchorDetails("auditors", "mail", "audit@example.com"),
        {"anchor": "auditors", "kind": "mail", "target": "audit@example.com"},
    ),
    (
        of_log.LogStarted("localhost/audit", "started", "", 3),
        {"origin": "localhost/audit", "why": "started", "previous": "", "backlog": 3},
    ),
    (
        of_keyless.TrustRuleDetails("shop+ci", "main", "https://gitlab.com", "dock", ("project_path=acme/shop",)),
        {
            "user": "shop+ci",
            "rule": "main",
            "issuer": "https://gitlab.com",
            "audience": "dock",
            "claims": ["project_path=acme/shop"],
        },
    ),
    (
        of_keyless.TokenExchanged("shop+ci", "gdk_job_ab", "main", "https://gitlab.com", "project_path:acme/shop"),
        {
            "user": "shop+ci",
            "lookup": "gdk_job_ab",
            "rule": "main",
            "issuer": "https://gitlab.com",
            "subject": "project_path:acme/shop",
        },
    ),
    (of_access.FactorDetails("kim", "totp", "", ""), {"user": "kim", "kind": "totp", "name": "", "key_sha256": ""}),
    (of_access.RecoveryCodeUsed("kim", 9), {"user": "kim", "left": 9}),
    (of_access.SessionConfirmed("kim", "passkey"), {"user": "kim", "kind": "passkey"}),
    (of_access.SessionsRevoked("kim", 2), {"user": "kim", "count": 2}),
    (
        of_access.SecurityChanged(
            of_access.SecurityContent(False, (), False), of_access.SecurityContent(True, ("owner",), True)
        ),
        {
            "before": {"second_factor_for_admins": False, "second_factor_for_roles": [], "step_up_is_on": False},
            "after": {"second_factor_for_admins": True, "second_factor_for_roles": ["owner"], "step_up_is_on": True},
        },
    ),
    (of_access.AccessFileApplied(3, 1), {"changes": 3, "removals": 1}),
    (
        of_access.AccessAsked("kim", "deployer", "*", 7, "image.push"),
        {"user": "kim", "role": "deployer", "repositories": "*", "days": 7, "verb": "image.push"},
    ),
    (
        of_clusters.ClusterDeleted("north", "docker", 1, 2, 3, 4, 5, 6, 7),
        {
            "slug": "north",
            "kind": "docker",
            "bindings": 1,
            "secrets": 2,
            "running_images": 3,
            "running_containers": 4,
            "past_images": 5,
            "alerts": 6,
            "decisions": 7,
        },
    ),
    (of_images.VisibilityChanged("private", "public"), {"before": "private", "after": "public"}),
    (of_images.RepositoryArchived(True), {"is_archived": True}),
    (of_images.RepositoryDeletionRequested(2, 1), {"tags": 2, "images": 1}),
    (of_images.RepositoryDeleted("shop/api", 1), {"name": "shop/api", "images": 1}),
    (of_promotion.VoteApproved("ab12"), {"key_sha256": "ab12"}),
    (of_access.DemoSeeded(("a", "b")), {"accounts": ["a", "b"]}),
    (of_access.JobCancelled("scan", of_access.JobState("queued")), {"kind": "scan", "before": {"state": "queued"}}),
    (of_access.JobRetried("scan", 7), {"kind": "scan", "again": 7}),
    (
        of_images.AdvisoriesSynced(3, 2, 1, 4),
        {"stored": 3, "tombstoned": 2, "errors": 1, "unreadable": 4},
    ),
    (
        of_images.FeedDetails("kev", "kev", "https://example.com/kev.json", 4),
        {"feed": "kev", "kind": "kev", "location": "https://example.com/kev.json", "every_hours": 4},
    ),
    (
        of_images.ExploitsSynced("kev", 9, 3, 2, 1),
        {"kind": "kev", "entries": 9, "added": 3, "changed": 2, "removed": 1},
    ),
    (of_images.InventoryImported(3, 2, 1), {"images": 3, "scanned": 2, "placed": 1}),
    (of_images.LineageDeclared("sha256:a"), {"base": "sha256:a"}),
    (
        of_images.ImagePushed("v1", "push", "index", ""),
        {"tag": "v1", "via": "push", "kind": "index", "replaced": ""},
    ),
    (of_images.ImagePushAttributed("v1", "push"), {"tag": "v1", "via": "push"}),
    (of_images.TagMoveRefused("v1", "sha256:a"), {"tag": "v1", "kept": "sha256:a"}),
    (of_images.TagsProtected((), ("v*",)), {"before": [], "patterns": ["v*"]}),
    (of_images.RepositoryDescribed("", "The shop."), {"before": "", "after": "The shop."}),
    (of_images.DeletionRequested("v1"), {"tag": "v1"}),
    (
        of_images.MetadataChanged("owner", "text", "", "kim"),
        {"key": "owner", "kind": "text", "before": "", "after": "kim"},
    ),
    (
        of_access.TeamChanged("shop", of_access.TeamName("Shop"), of_access.TeamName("The shop")),
        {"slug": "shop", "before": {"name": "Shop"}, "after": {"name": "The shop"}},
    ),
    (
        of_access.TeamDeleted("shop", of_access.TeamName("Shop"), 2),
        {"slug": "shop", "before": {"name": "Shop"}, "grants": 2},
    ),
    (of_access.RepositoryMoved("shop", "pay"), {"before": "shop", "after": "pay"}),
    (
        of_access.RepositoriesMoved("pay", ("shop/api",)),
        {"to_team": "pay", "repositories": ["shop/api"]},
    ),
    (
        of_promotion.PolicySaved("team shop", 3, "sha256:a", ("+ signed",)),
        {"scope": "team shop", "revision": 3, "digest": "sha256:a", "changes": ["+ signed"]},
    ),
    (
        of_promotion.WaiverDetails("no_findings", "CVE-2026-1", "openssl", "", "2026-12-01"),
        {"rule": "no_findings", "advisory": "CVE-2026-1", "package": "openssl", "digest": "", "until": "2026-12-01"},
    ),
    (
        of_images.VexDetails("CVE-2026-1", "fixed", "", "digest", "pkg:npm/x", "sha256:a", ""),
        {
            "vulnerability": "CVE-2026-1",
            "status": "fixed",
            "justification": "",
            "scope": "digest",
            "package": "pkg:npm/x",
            "digest": "sha256:a",
            "until": "",
        },
    ),
    (
        of_images.VexDocumentDetails("csaf", "V-1", "Vendor", "1", "sha256:a", 3, 1),
        {
            "format": "csaf",
            "name": "V-1",
            "author": "Vendor",
            "version": "1",
            "digest": "sha256:a",
            "statements": 3,
            "refused": 1,
        },
    ),
    (
        of_images.VexFeedDetails("vendor", "https://v.example/", "sha256:a", ("pkg:deb/debian/",), 24),
        {
            "feed": "vendor",
            "location": "https://v.example/",
            "key": "sha256:a",
            "speaks_for": ["pkg:deb/debian/"],
            "every_hours": 24,
        },
    ),
    (
        of_images.VexFeedSynced("vendor", 2, 1, 0),
        {"feed": "vendor", "stored": 2, "withdrawn": 1, "failed": 0},
    ),
    (of_access.SigningKeyDetails("release", "ab12"), {"key": "release", "fingerprint": "ab12"}),
    (
        of_promotion.SourceDetails("debian", 2, "registry.example/debian", "key release"),
        {"source": "debian", "revision": 2, "places": "registry.example/debian", "signers": "key release"},
    ),
    (
        of_access.RegistryDetails(
            "harbor", "https://harbor.example.com", "robot", is_password_changed=True, is_certificate_changed=False
        ),
        {
            "registry": "harbor",
            "endpoint": "https://harbor.example.com",
            "username": "robot",
            "is_password_changed": True,
            "is_certificate_changed": False,
        },
    ),
    (
        of_promotion.PromotionExecuting("sha256:a", 2, "registry.example.com/production/shop/api"),
        {"evaluation": "sha256:a", "fence": 2, "target": "registry.example.com/production/shop/api"},
    ),
    (of_promotion.VoteLapsed("kim"), {"voter": "kim"}),
    (
        of_promotion.PromotionReminded("run", "2026-11-28T10:00:00+00:00"),
        {"deadline": "run", "due_at": "2026-11-28T10:00:00+00:00"},
    ),
    (of_promotion.PromotionRequested("1.0", "rollback"), {"tag": "1.0", "kind": "rollback"}),
    (
        of_promotion.BreakGlassUsed("INC-7", ("1 approval",), "2026-11-28T10:00:00+00:00"),
        {"incident": "INC-7", "bypassed": ["1 approval"], "due_at": "2026-11-28T10:00:00+00:00"},
    ),
    (
        of_promotion.VerificationAsked("manual", "2026-11-28T10:00:00+00:00"),
        {"by": "manual", "due_at": "2026-11-28T10:00:00+00:00"},
    ),
    (of_promotion.CommentMade(4, True), {"thread": 4, "is_blocking": True}),
    (of_promotion.ThreadResolved(4), {"thread": 4}),
    (of_promotion.ReviewSettled("justified"), {"outcome": "justified"}),
    (of_promotion.ReleaseSetMembers(("PR-2 shop/api:1@sha256:a",)), {"members": ["PR-2 shop/api:1@sha256:a"]}),
    (of_promotion.PromotionSuperseded("PR-2"), {"newer": "PR-2"}),
    (of_promotion.VoteWithdrawn("object"), {"vote": "object"}),
    (of_promotion.ObjectionOverruled("kim"), {"voter": "kim"}),
    (of_images.RecipeChanged(2), {"revision": 2}),
    (of_images.ImageRebuilt("sha256:a", "rebase"), {"old": "sha256:a", "method": "rebase"}),
    (of_images.RebuildPlanned(4, "watch"), {"images": 4, "trigger": "watch"}),
    (of_images.RebuildSuperseded(9), {"by": 9}),
    (of_images.RebuildFinished("succeeded"), {"state": "succeeded"}),
    (
        of_images.SbomSent("sha256:a", "SPDX 2.3 JSON", 3, 1),
        {"sbom": "sha256:a", "format": "SPDX 2.3 JSON", "packages": 3, "dropped": 1},
    ),
    (of_images.SbomChosen("sha256:a", "", "Signed."), {"sbom": "sha256:a", "before": "", "why": "Signed."}),
    (
        of_groups.GroupCreated("shop/devs", "manual", of_groups.GroupName("Developers")),
        {"group": "shop/devs", "source": "manual", "after": {"name": "Developers"}},
    ),
    (
        of_groups.GroupChanged("devs", of_groups.GroupName("a"), of_groups.GroupName("b")),
        {"group": "devs", "before": {"name": "a"}, "after": {"name": "b"}},
    ),
    (of_groups.GroupDeleted("devs", 2, 3), {"group": "devs", "members": 2, "grants": 3}),
    (
        of_groups.GroupMemberDetails("devs", "kim", "", "corp"),
        {"group": "devs", "user": "kim", "member": "", "source": "corp"},
    ),
    (of_groups.IdentityDetails("kim", "corp", "1"), {"user": "kim", "provider": "corp", "subject": "1"}),
    (of_groups.SignInRefused("corp", "", "No nonce."), {"provider": "corp", "user": "", "why": "No nonce."}),
    (
        of_groups.ProviderDetails("corp", "https://a", "us", True, True, True, False),
        {
            "provider": "corp",
            "issuer": "https://a",
            "client": "us",
            "is_secret_changed": True,
            "is_enabled": True,
            "creates_accounts": True,
            "links_by_mail": False,
        },
    ),
    (of_groups.ClaimRuleDetails("corp", "groups is x"), {"provider": "corp", "rule": "groups is x"}),
    (of_groups.SignInPolicyDetails(True), {"passwords_only_for_admins": True}),
]


def test_every_action_has_unique_meaning_in_one_sentence():
    meanings = [action.meaning for action in Action]
    assert [text for text in meanings if not (text[:1].isupper() and text.endswith("."))] == []
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize(("details", "stored"), STORED, ids=lambda part: type(part).__name__)
def test_details_are_stored_by_field_name(details, stored):
    assert details.as_json() == stored


def test_every_details_class_belongs_to_an_action_and_is_tested():
    classes = {kind for kind in DEFINED.values() if isinstance(kind, type) and issubclass(kind, Details)}
    assert set(DETAILS_OF.values()) == classes - {Details}
    assert {type(details) for details, _ in STORED} == classes - {Details}


def test_every_action_is_recorded_somewhere():
    recorded = {call.name for path in SOURCES for call in _calls(path)}
    assert set(Action.__members__) - recorded == set()


def test_every_call_records_an_action():
    calls = [call for path in (*SOURCES, *AUDIT_TESTS) for call in _calls(path)]
    assert [call for call in calls if call.name not in Action.__members__] == []


def test_every_call_passes_details_class_of_its_action():
    expected = {action.name: DETAILS_OF[action].__name__ if action in DETAILS_OF else "" for action in Action}
    calls = [call for path in SOURCES for call in _calls(path)]
    assert [call for call in calls if call.details != expected[call.name]] == []


class Call(NamedTuple):
    """A call of `record` or `_record`."""

    name: str  # of the action, or the source text of any other argument
    details: str  # name of the details class; "" for none
    where: str


def _calls(path: Path) -> Iterator[Call]:
    """Yield the calls in a file. Skip wrappers that pass on their own parameter of type Action."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    makers = {**_PUBLIC_MAKERS, **_makers(functions)}
    made_inside = _details_of_wrapper(functions)
    passed_on = {id(name) for function in functions for name in _uses_of_action_parameter(function)}
    for function in functions:
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or _name(node.func) not in {"record", "_record"}:
                continue
            first = node.args[0] if node.args else node
            if id(first) not in passed_on:
                is_action = isinstance(first, ast.Attribute) and ast.unparse(first.value) == "Action"
                name = first.attr if is_action else ast.unparse(first)
                details = _details(node, function) or (made_inside if _name(node.func) == "_record" else "")
                yield Call(name, makers.get(details, details), f"{path.relative_to(ROOT)}:{node.lineno}")


def _makers(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """Return the functions that make details for calls, with the class that each of them returns."""
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return {function.name: made for function in functions if (made := _details_that_it_returns(function))}


def _details_that_it_returns(function: ast.FunctionDef) -> str:
    """Return the details class that a function says it returns, which mypy checks; "" for any other function."""
    returned = ast.unparse(function.returns) if function.returns is not None else ""
    made = DEFINED.get(returned)
    return returned if isinstance(made, type) and issubclass(made, Details) else ""


def _details_of_wrapper(functions: list[ast.FunctionDef]) -> str:
    """Return the details class that the file's own `_record` makes for all its callers; "" if callers pass details."""
    wrapper = next((function for function in functions if function.name == "_record"), None)
    calls = [node for node in ast.walk(wrapper) if isinstance(node, ast.Call)] if wrapper else []
    return next((made for call in calls if _name(call.func) == "record" and (made := _details(call, wrapper))), "")


def _details(call: ast.Call, function: ast.FunctionDef) -> str:
    """Return the class of a call's details, created in place or assigned to a variable of the function."""
    named = [word.value for word in call.keywords if word.arg == "details"]
    positional = [value for value in call.args[1:] if _is_details(value)]
    value = next(iter((*named, *positional)), None)
    if isinstance(value, ast.Name):
        assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
        value = next((node.value for node in assigned if ast.unparse(node.targets[0]) == value.id), None)
    return _name(value.func) if isinstance(value, ast.Call) else ""


def _is_details(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and _name(value.func) in DEFINED


def _uses_of_action_parameter(function: ast.FunctionDef) -> list[ast.Name]:
    names = {
        parameter.arg
        for parameter in function.args.args
        if parameter.annotation is not None and ast.unparse(parameter.annotation) == "Action"
    }
    return [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id in names]


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


_PUBLIC_MAKERS = {
    name: made
    for path in SOURCES
    for name, made in _makers(ast.parse(path.read_text()).body).items()
    if not name.startswith("_")
}
