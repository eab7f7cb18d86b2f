"""Break-glass annotations that controllers carry on: they count only where we saw who brought them in."""

from __future__ import annotations

import orjson
import pytest

from lifecycle.admission import snapshot
from lifecycle.admission.carrying import Entries, key_of, text_hash
from lifecycle.admission.constants import ANNOTATION, CONTROLLERS
from lifecycle.admission.server import Application
from tests.factories.reviews import content, deployment, image, pod, review, send

TEXT = "INC-7: shop is down"
REASON = {ANNOTATION: TEXT}
REPLICASETS = {"username": "system:serviceaccount:kube-system:replicaset-controller"}
WEB = ("Deployment", "web")


def key(workload=WEB, text=TEXT, namespace="prod"):
    return key_of(namespace, workload, text_hash(text))


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
    snapshot.write(tmp_path, content(entries=[key(), key(("Pod", "web-1"))]))
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
    snapshot.write(tmp_path, content(entries=[key(entered)]))
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
    assert (entries.has(1, ["b", "a"]), entries.has(2, ["a"]), entries.has(1, [])) == (True, False, False)
    entries.forget_before(1100)
    assert entries.has(1, ["a"])
    entries.forget_before(1301)
    assert not entries.has(1, ["a"])
    monkeypatch.setattr("lifecycle.admission.carrying._KEPT_MAX", 2)
    for number in range(3):
        entries.add(1, str(number))
    assert [entries.has(1, [str(number)]) for number in range(3)] == [False, True, True]
