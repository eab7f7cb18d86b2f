"""Break-glass annotations that controllers carry on: they count only where we saw who brought them in."""

from __future__ import annotations

import orjson
import pytest

from lifecycle.admission import snapshot
from lifecycle.admission.carrying import ENDED, Entries, Term, is_open, key_of, text_hash
from lifecycle.admission.constants import ANNOTATION, CONTROLLERS, REVIEW_WITHIN_S
from lifecycle.admission.server import Application
from tests.factories.reviews import HOST, content, deployment, image, pod, review, send, sha

TEXT = "INC-7: shop is down"
REASON = {ANNOTATION: TEXT}
REPLICASETS = {"username": "system:serviceaccount:kube-system:replicaset-controller"}
WEB = ("Deployment", "web")


def key(workload=WEB, text=TEXT, namespace="prod", name=None):
    return key_of(namespace, workload, text_hash(text), name or sha("known"))


def terms(*keys, entered_at=1000.0, until=None):
    """Return what a snapshot has of entries that a review called justified."""
    return {each: [entered_at, until] for each in keys}


@pytest.fixture
def application(tmp_path):
    snapshot.write(tmp_path, content())
    return Application(tmp_path, "https://g.example")


def owned(reference="known", *, owner=("ReplicaSet", "web-5d"), text=TEXT, namespace="prod", **more):
    given = pod(image(reference), annotations={ANNOTATION: text}, owner=owner)
    given["metadata"]["labels"] = {"pod-template-hash": "5d"}
    return review(given, namespace=namespace, userInfo=REPLICASETS, **more)


def bring_in(application, user="kim", **more):
    given = deployment(image("known"), annotations=REASON)
    document = review(given, group="apps", kind="Deployment", userInfo={"username": user}, **more)
    return send(application, document)[1]["allowed"]


def is_let_in(application, document):
    return send(application, document)[1]["allowed"]


def test_annotation_from_before_enforcement_opens_nothing(application):
    answer = send(application, owned())[1]
    assert answer["allowed"] is False
    message = answer["status"]["message"]
    assert ("not_promoted" in message, "brings it in again" in message) == (True, True)
    assert is_let_in(application, owned("good"))  # what needs no break-glass


def test_pods_follow_at_once_where_it_was_brought_in(application):
    assert bring_in(application, "alice") is False
    assert is_let_in(application, owned()) is False
    assert bring_in(application) is True
    assert is_let_in(application, owned()) is True
    for other in (
        owned(text="another long reason"), owned(owner=("ReplicaSet", "shop-5d")), owned(namespace="prod-2"),
        owned(owner=("StatefulSet", "web")),
    ):  # fmt: skip
        assert is_let_in(application, other) is False
    assert is_let_in(application, owned("bad")) is False  # quarantined: never


@pytest.mark.parametrize("controller", sorted(CONTROLLERS))
def test_only_controllers_with_an_owner_carry_it_on(tmp_path, controller):
    snapshot.write(tmp_path, content(terms=terms(key(), key(("Pod", "web-1")))))
    application = Application(tmp_path, "https://g.example")
    document = owned()
    document["request"]["userInfo"] = {"username": controller}
    assert is_let_in(application, document) is True
    bare = review(pod(image("known"), annotations=REASON), userInfo={"username": controller})
    assert is_let_in(application, bare) is False
    document["request"]["userInfo"] = {"username": "system:serviceaccount:operators:deployment-controller"}
    assert is_let_in(application, document) is False


@pytest.mark.parametrize(
    ("entered", "owner"),
    [
        (("CronJob", "tidy"), ("Job", "tidy-29404812")),
        (("Job", "tidy-29404812"), ("Job", "tidy-29404812")),  # made by hand: no CronJob has it
        (("ReplicaSet", "web-5d"), ("ReplicaSet", "web-5d")),
        (("DaemonSet", "logs"), ("DaemonSet", "logs")),
    ],
)
def test_what_owns_the_pod_counts_too(tmp_path, entered, owner):
    snapshot.write(tmp_path, content(terms=terms(key(entered))))
    application = Application(tmp_path, "https://g.example")
    assert is_let_in(application, owned(owner=owner)) is True
    assert is_let_in(application, owned(owner=(owner[0], "other-5d"))) is False


def test_dry_run_and_other_modes_bring_nothing_in(tmp_path):
    snapshot.write(tmp_path, content(bindings=[["prod", 1, "observe", []], ["live", 1, "", []]]))
    application = Application(tmp_path, "https://g.example")
    assert bring_in(application)
    assert bring_in(application, namespace="live", dryRun=True)
    snapshot.write(tmp_path, content(2, bindings=[["*", 1, "", []]]))
    application.look()
    assert is_let_in(application, owned()) is False
    assert is_let_in(application, owned(namespace="live")) is False
    assert bring_in(application, namespace="live")
    assert is_let_in(application, owned(namespace="live")) is True


def test_it_outlives_the_process_while_the_database_is_away(application, tmp_path):
    assert bring_in(application)
    application.recorder.flush(now=1e12)
    assert is_let_in(Application(tmp_path, "https://g.example"), owned()) is True
    for path in (tmp_path / "spool").iterdir():
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        for row in rows:
            row["decision"]["mode"] = "observe"
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    assert is_let_in(Application(tmp_path, "https://g.example"), owned()) is False


def test_entries_are_kept_until_a_later_snapshot_has_them(monkeypatch):
    entries = Entries()
    entries.add(1, "a", at=1000)
    assert (entries.entered_at(1, "a"), entries.entered_at(2, "a"), entries.entered_at(1, "b")) == (1000, None, None)
    entries.forget_before(1100)
    assert entries.entered_at(1, "a") == 1000
    entries.forget_before(1301)
    assert entries.entered_at(1, "a") is None
    monkeypatch.setattr("lifecycle.admission.carrying._KEPT_MAX", 2)
    for number in range(3):
        entries.add(1, str(number), at=number)
    assert [entries.entered_at(1, str(number)) for number in range(3)] == [None, 1, 2]


def test_another_image_of_the_workload_is_judged_as_usual(application):
    assert bring_in(application) is True
    assert is_let_in(application, owned()) is True
    for other in ("rejected", "never"):
        answer = send(application, owned(other))[1]
        assert (answer["allowed"], "only the images that it was brought in for" in answer["status"]["message"]) == (
            False, True,
        )  # fmt: skip
    beside = owned()
    beside["request"]["object"]["spec"]["containers"].append({"name": "miner", "image": image("never")})
    message = send(application, beside)[1]["status"]["message"]
    assert ("container miner" in message, "container c0" in message) == (True, False)


def test_tag_that_moved_since_opens_nothing(tmp_path):
    """The template names a tag: what it named then is opened, not what it names now."""
    snapshot.write(tmp_path, content(terms=terms(key(name=sha("known")))))
    application = Application(tmp_path, "https://g.example")
    by_tag = owned()
    containers = by_tag["request"]["object"]["spec"]["containers"]
    containers[0]["image"] = f"{HOST}/shop/api:known"
    assert is_let_in(application, by_tag) is True
    containers[0]["image"] = f"{HOST}/shop/api:rejected"
    assert is_let_in(application, by_tag) is False


def test_failed_check_is_opened_with_its_image_and_no_other(tmp_path):
    checks = {"1": {"privileged": "enforce"}}
    snapshot.write(tmp_path, content(isolation=checks))
    application = Application(tmp_path, "https://g.example")

    def privileged(document, name):
        inner = document["request"]["object"]
        template = inner["spec"].get("template", inner)
        template["spec"]["containers"] = [{"name": "c0", "image": image(name), "securityContext": {"privileged": True}}]
        return document

    entering = review(deployment(annotations=REASON), group="apps", kind="Deployment", userInfo={"username": "kim"})
    assert is_let_in(application, privileged(entering, "known")) is True
    assert is_let_in(application, privileged(owned(), "known")) is True
    assert is_let_in(application, privileged(owned(), "good")) is False


def test_it_opens_what_the_object_had_before_the_annotation(application):
    old = deployment(image("known"), image("bad"))
    new = deployment(image("known"), image("bad"), annotations=REASON)
    more = {"operation": "UPDATE", "oldObject": old, "group": "apps", "kind": "Deployment"}
    assert is_let_in(application, review(new, userInfo={"username": "alice"}, **more)) is False
    assert is_let_in(application, owned()) is False
    assert is_let_in(application, review(new, userInfo={"username": "kim"}, **more)) is True
    assert is_let_in(application, owned()) is True
    assert is_let_in(application, owned("bad")) is False  # quarantined: never


@pytest.mark.parametrize(
    ("term", "kept", "begins_at", "now", "is_opened"),
    [
        (None, None, 0, 2000, False),
        (None, 1000, 0, 2000, True),  # came in a moment ago
        (None, 1000, 0, 1000 + REVIEW_WITHIN_S, False),  # nobody can review: the database is away
        (None, 1000, 1001, 2000, False),  # enforcement began anew
        (None, 1000, None, 2000, False),
        (Term(1000, 9000), None, 0, 8999, True),
        (Term(1000, 9000), None, 0, 9000, False),  # the debt is due
        (Term(1000, 9000), 8000, 0, 9001, False),  # the same debt
        (Term(1000, None), None, 0, 1e12, True),  # justified
        (Term(1000, None), None, 1001, 2000, False),
        (Term(1000, None), 2000, 1001, 2001, True),
        (Term(1000, ENDED), None, 0, 1001, False),  # unjustified
        (Term(1000, ENDED), 1000.0002, 0, 1001, False),  # what the server remembers is what was reviewed
        (Term(1000, ENDED), 2000, 0, 2001, True),  # brought in again: a new debt
        (Term(1000, ENDED), 2000, 0, 2000 + REVIEW_WITHIN_S, False),
    ],
)
def test_entry_ends_with_its_debt(term, kept, begins_at, now, is_opened):
    assert is_open(term, kept, begins_at, now) is is_opened


def test_each_binding_has_its_own_beginning(tmp_path):
    entries = terms(key(), key(namespace="prod-2"), entered_at=1000.0)
    bindings = [["prod-2", 1, "", []], ["prod", 1, "", []]]
    snapshot.write(tmp_path, content(terms=entries, bindings=bindings, enforced_at=[None, 1001.0, 999.0]))
    application = Application(tmp_path, "https://g.example")
    assert is_let_in(application, owned()) is True
    assert is_let_in(application, owned(namespace="prod-2")) is False


def test_entries_of_an_earlier_version_open_nothing(tmp_path):
    """They bind no image."""
    snapshot.write(tmp_path, content(entries=[key()]))
    assert is_let_in(Application(tmp_path, "https://g.example"), owned()) is False
