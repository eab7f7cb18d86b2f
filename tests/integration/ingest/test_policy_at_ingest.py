"""The rules at ingest: judged when the facts are there, stored, shown, and told to the team."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from freezegun import freeze_time

from accounts.models import User
from lifecycle import events
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.signed_replies import Reply
from lifecycle.evidence import at_ingest
from lifecycle.evidence.at_ingest import judge_due, mark_again
from lifecycle.evidence.models import IngestVerdict
from lifecycle.ingest import services as ingest
from lifecycle.notices.models import InboxItem, Notice
from lifecycle.policies import asking, checks
from lifecycle.policies.models import ExternalAnswer
from lifecycle.policies.types import Scope
from lifecycle.registry.models import Image
from lifecycle.registry.services import ensure_managed_registry
from lifecycle.trust.models import TrustCheck
from tests.clients import Caller
from tests.factories import dock, oci
from tests.factories.policies import rule, save
from tests.fakes.registry import InMemoryRegistry

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
LABELS = {"labels": ["team"]}


@pytest.fixture
def anna(shelf: InMemoryRegistry) -> User:
    return User.objects.get(username="anna")


def with_rules(anna: User, *rules: dict[str, Any]) -> None:
    save(Scope(dock.team("shop")), *rules, actor=anna)


def push(shelf: InMemoryRegistry, name: str = "app", tag: str = "1.0") -> Image:
    """Push an image as anna, as a notification does."""
    item = oci.image("base", name)
    oci.push(shelf, "shop/api", item, tag)
    digest = item.manifest.digest.text
    return ingest.ingest_manifest(ensure_managed_registry().pk, "shop/api", digest, tag=tag, actor_name="anna")


def complete(image: Image) -> None:
    """Say that the image is scanned and its signatures are read, as the jobs do."""
    Image.objects.filter(pk=image.pk).update(scanned_at=clock.now(), package_count=1)
    TrustCheck.objects.update_or_create(image=image, defaults={"is_due": False})
    IngestVerdict.objects.update(due_at=clock.now())


def told() -> set[str]:
    items = InboxItem.objects.filter(notice__topic="policy.ingest_failed")
    return set(items.values_list("person__username", flat=True))


def test_image_is_judged_once_its_facts_are_there(shelf: InMemoryRegistry, anna: User) -> None:
    with_rules(anna, rule("who", "labels", modes={"ingest": "enforce"}, **LABELS))
    image = push(shelf)
    row = IngestVerdict.objects.get()
    assert (row.image, row.repository.name, row.judged_at) == (image, "shop/api", None)
    assert judge_due() == 0  # neither scanned nor matched
    complete(image)
    TrustCheck.objects.update(is_due=True)
    assert judge_due() == 0  # its signatures are not read yet
    complete(image)
    assert judge_due() == 1
    row.refresh_from_db()
    assert (row.is_allowed, row.due_at, [each["rule"] for each in row.failed]) == (False, None, ["who"])
    assert [scope for scope, *_ in row.revisions] == ["team:shop"]
    assert judge_due() == 0
    event = AuditEvent.objects.get(action="image.policy_failed")
    assert (event.team.slug, event.details) == ("shop", {"rules": ["who"], "is_allowed": False})


@pytest.mark.parametrize(
    ("mode", "is_told", "is_allowed"),
    [("off", False, True), ("observe", False, True), ("warn", True, True), ("enforce", True, False)],
)
def test_team_is_told_when_a_rule_warns_or_enforces(
    mode: str, is_told: bool, is_allowed: bool, shelf: InMemoryRegistry, anna: User
) -> None:
    dock.user("creator", "creator", of=dock.team("shop"))
    dock.user("viewer", "viewer", of=dock.team("shop"))
    dock.user("stranger", "owner", of=dock.team("other"))
    with_rules(anna, rule("who", "labels", modes={"ingest": mode}, **LABELS))
    image = push(shelf)
    complete(image)
    assert judge_due() == 1
    assert told() == ({"anna", "creator"} if is_told else set())
    assert AuditEvent.objects.filter(action="image.policy_failed").exists() == is_told
    row = IngestVerdict.objects.get()
    assert (row.is_allowed, bool(row.failed)) == (is_allowed, is_told)
    if is_told:
        notice = Notice.objects.get(topic="policy.ingest_failed")
        assert notice.subject == f"shop/api@{image.digest[:19]} fails 1 rule at ingest"
        assert notice.link == f"/t/shop/r/shop/api/i/{image.digest}/?tab=policy"
        assert notice.text.startswith("It only warns." if mode == "warn" else "It is not allowed.")


def test_image_that_passes_is_stored_and_not_told(shelf: InMemoryRegistry, anna: User) -> None:
    with_rules(anna, rule("sbom", "sbom", modes={"ingest": "enforce"}))
    image = push(shelf)
    complete(image)
    assert judge_due() == 1
    row = IngestVerdict.objects.get()
    assert (row.is_allowed, row.failed, [each["status"] for each in row.shown]) == (True, [], ["satisfied"])
    assert told() == set()


def test_what_is_missing_after_an_hour_is_unknown_and_a_rescan_judges_again(
    shelf: InMemoryRegistry, anna: User
) -> None:
    with_rules(anna, rule("sbom", "sbom", modes={"ingest": "enforce"}))
    image = push(shelf)
    with freeze_time(clock.now() + timedelta(hours=2)):
        assert judge_due() == 1
        assert not IngestVerdict.objects.get().is_allowed
        assert told() == {"anna"}
        IngestVerdict.objects.update(due_at=clock.now())
        assert judge_due() == 1
    assert Notice.objects.filter(topic="policy.ingest_failed").count() == 1  # the same is told once
    complete(image)
    assert judge_due() == 1
    assert IngestVerdict.objects.get().is_allowed


def test_without_a_rule_set_and_for_targets_nothing_is_judged(shelf: InMemoryRegistry, anna: User) -> None:
    push(shelf)
    assert not IngestVerdict.objects.exists()
    with_rules(anna, rule("sbom", "sbom", modes={"ingest": "enforce"}))
    push(shelf, tag="2.0")  # the same image under another tag: now it is judged
    assert IngestVerdict.objects.count() == 1


def test_page_and_api_show_what_was_stored(shelf: InMemoryRegistry, anna: User) -> None:
    with_rules(
        anna,
        rule("who", "labels", modes={"ingest": "enforce"}, **LABELS),
        rule("quiet", "not_root", modes={"ingest": "observe"}),
    )
    image = push(shelf)
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    page = f"/t/shop/r/shop/api/i/{image.digest}/?tab=policy"
    client = Client()
    client.force_login(viewer, backend=BACKEND)
    assert "It is judged soon: its packages are being listed." in client.get(page).content.decode()
    path = f"images/{image.digest}/verdict/"
    assert Caller(viewer).get(path).json()["at_ingest"]["state"] == "waiting"
    complete(image)
    judge_due()
    text = client.get(page).content.decode()
    assert "When it was pushed" in text
    assert "Not allowed by rules" in text
    stored = Caller(viewer).get(path).json()["at_ingest"]
    assert (stored["state"], stored["allowed"]) == ("judged", False)
    assert [each["rule"] for each in stored["rules"]] == ["who"]  # not what is only observed
    assert [each["rule"] for each in Caller(anna).get(path).json()["at_ingest"]["rules"]] == ["who", "quiet"]
    stranger = dock.user("stranger", "owner", of=dock.team("other"))
    assert Caller(stranger).get(path).status_code == 404


def test_editor_says_what_ingest_does_and_that_admission_waits(shelf: InMemoryRegistry, anna: User) -> None:
    client = Client()
    client.force_login(anna, backend=BACKEND)
    sent = {"act": "add", "add": "sbom", "count": "0", "revision": "0"}
    text = client.post("/policies/team:shop/", sent).content.decode()
    assert "Waits for the connection to clusters" in text
    assert "Nothing stops a push" in text


def answer(has_passed: bool | None) -> None:
    """Store what the service says, as the job does."""
    row = ExternalAnswer.objects.get()
    asking.record_reply(row.pk, Reply(has_passed, "Looked at.", is_signed=True), revision=row.check_asked.revision)


def with_check(anna: User, mode: str) -> None:
    checks.create_check(dock.team("shop"), "scanner", "http://127.0.0.1:9/check", actor=anna)
    with_rules(anna, rule("ask", "external", modes={"ingest": mode}, check="team:shop:scanner", max_age_hours=24))


@pytest.mark.parametrize("says", [True, False])
def test_external_check_is_waited_for_and_only_its_answer_is_told(
    says: bool, shelf: InMemoryRegistry, anna: User, settings: Any
) -> None:
    settings.OUTBOUND_ALLOW = ["127.0.0.1:9"]
    with_check(anna, "enforce")
    complete(push(shelf))
    assert judge_due() == 0
    row = IngestVerdict.objects.get()
    assert (row.rules, row.judged_at, told()) == ([], None, set())
    assert row.due_at is not None
    assert timedelta(seconds=50) < row.due_at - clock.now() <= timedelta(minutes=1)
    answer(says)
    assert judge_due() == 1
    assert IngestVerdict.objects.get().is_allowed is says
    assert told() == (set() if says else {"anna"})


def test_external_check_that_never_answers_is_told_after_an_hour(
    shelf: InMemoryRegistry, anna: User, settings: Any
) -> None:
    settings.OUTBOUND_ALLOW = ["127.0.0.1:9"]
    with_check(anna, "enforce")
    complete(push(shelf))
    start = clock.now()
    for minutes, is_judged in ((0, 0), (30, 0), (59, 0), (62, 1)):
        with freeze_time(start + timedelta(minutes=minutes)):
            if minutes:  # a reply without an answer makes the image due, and must not prolong the hour
                answer(None)
                IngestVerdict.objects.update(due_at=clock.now())
            assert judge_due() == is_judged
    assert told() == {"anna"}


def test_external_check_that_is_only_observed_holds_nothing_up(
    shelf: InMemoryRegistry, anna: User, settings: Any
) -> None:
    settings.OUTBOUND_ALLOW = ["127.0.0.1:9"]
    with_check(anna, "observe")
    complete(push(shelf))
    assert judge_due() == 1


def test_rescan_of_an_old_image_waits_for_its_facts(shelf: InMemoryRegistry, anna: User) -> None:
    with_rules(anna, rule("sbom", "sbom", modes={"ingest": "enforce"}))
    image = push(shelf)
    complete(image)
    assert judge_due() == 1
    later = clock.now() + timedelta(days=3)
    with freeze_time(later):
        TrustCheck.objects.update(is_due=True)
        mark_again([image.pk])
        assert judge_due() == 0
    with freeze_time(later + timedelta(minutes=61)):
        mark_again([image.pk])  # the hour began with the first mark
        assert judge_due() == 1


def test_matches_make_images_due_again_with_their_indexes(shelf: InMemoryRegistry, anna: User) -> None:
    with_rules(anna, rule("sbom", "sbom", modes={"ingest": "enforce"}))
    image, package = push(shelf), dock.package("evil", "1.0", kind="pypi")
    dock.carry(image, 0, package)
    top, other = dock.index("top", image), dock.image("other")
    place = IngestVerdict.objects.get().repository
    for more in (top, other):
        IngestVerdict.objects.create(image=more, repository=place)
    IngestVerdict.objects.update(due_at=None)
    events.publish(events.MatchesChanged(frozenset({package.pk})))
    due = IngestVerdict.objects.filter(due_at__isnull=False, marked_at__isnull=False)
    assert set(due.values_list("image", flat=True)) == {image.pk, top.pk}


def test_error_about_one_image_stops_no_other(
    shelf: InMemoryRegistry, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_rules(anna, rule("sbom", "sbom", modes={"ingest": "enforce"}))
    first, second = push(shelf, "one", "1"), push(shelf, "two", "2")
    complete(first)
    complete(second)
    real = at_ingest.judge

    def judge(image: Image, *rest: Any) -> Any:
        if image.pk == first.pk:
            raise ZeroDivisionError
        return real(image, *rest)

    monkeypatch.setattr(at_ingest, "judge", judge)
    assert judge_due() == 1
    assert IngestVerdict.objects.get(image=second).judged_at is not None
    bad = IngestVerdict.objects.get(image=first)
    assert (bad.judged_at, bad.due_at is not None and bad.due_at > clock.now()) == (None, True)
    assert judge_due() == 0
    monkeypatch.setattr(at_ingest, "judge", real)
    with freeze_time(clock.now() + timedelta(minutes=2)):
        assert judge_due() == 1
