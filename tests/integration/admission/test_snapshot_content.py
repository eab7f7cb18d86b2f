"""From rows to answers: what promotions, quarantines, tags, rules and clusters make of a review."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import orjson
import pytest
from django.db import connection

from lifecycle.admission import loading, writing
from lifecycle.admission.loading import load_spool
from lifecycle.admission.models import (
    AdmissionCount,
    AdmissionDebt,
    AdmissionDecision,
    AdmissionEntry,
    AdmissionEpoch,
    AdmissionVerdict,
)
from lifecycle.admission.queries import snapshot_content
from lifecycle.admission.server import Application
from lifecycle.admission.services import why_not_review
from lifecycle.admission.writing import Writer, judge_due
from lifecycle.clusters import services as clusters
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.policies.types import Scope
from lifecycle.promotion.models import PromotionRequest
from lifecycle.quarantine import services as quarantines
from lifecycle.registry.models import IndexEntry, Repository
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import rule, save
from tests.factories.reviews import pod, review, send

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(dock):
    return person("boss", dock.team, "owner")


@pytest.fixture
def secret(dock, owner):
    clusters.create_cluster(dock.team, "north", actor=owner, mode="enforce", unbound="deny")
    clusters.set_bindings("north", [BindingWish("dev", "dev"), BindingWish("staging", "staging")], actor=owner)
    return clusters.create_secret("north", "admission", actor=owner)[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a writer whose snapshot transaction fits into the transaction of a test."""
    monkeypatch.setattr("lifecycle.admission.queries.READ_AT_ONCE", "SELECT 1")
    return tmp_path


def promote(dock, image, environment, state="succeeded"):
    return PromotionRequest.objects.create(
        image=image, repository=dock.repository, environment=environment, tag="1.0", state=state, reason="x",
        requested_by=dock.requester, approve_by=clock.now(), finished_at=clock.now(),
    )  # fmt: skip


class Asking:
    """A writer and a server of one folder."""

    def __init__(self, folder, secret):
        self.writer, self.secret = Writer(folder), secret
        self.writer.write()
        self.application = Application(folder, "https://g.example")

    def code(self, reference, namespace="staging", **more):
        self.writer.step()
        self.application.look()
        answer = send(
            self.application, review(pod(reference), namespace=namespace, **more), f"/admission/north/{self.secret}"
        )[1]
        return answer.get("auditAnnotations", {}).get("code", "allowed")


def at(name):
    """Return an image of the managed registry by digest."""
    return f"{rows.registry().host}/shop/api@{rows.sha(name)}"


def test_promotions_decide(dock, secret, folder, owner):
    good, index = rows.image("good"), rows.index("both")
    child, other = rows.image("child"), rows.image("other")
    for position, platform in enumerate((child, other)):
        IndexEntry.objects.create(index=index, child=platform, position=position, platform=f"linux/{position}")
    for what in (good, index, child):
        rows.push(dock.repository, what, what.digest[7:12])
    promote(dock, good, dock.staging)
    promote(dock, index, dock.staging)
    promote(dock, rows.image("refused"), dock.staging, state="rejected")
    again = rows.image("refused first")
    promote(dock, again, dock.staging, state="rejected")
    promote(dock, again, dock.staging)
    promote(dock, rows.image("failed"), dock.staging, state="failed")
    ask, host = Asking(folder, secret), rows.registry().host
    found = {
        name: ask.code(at(name))
        for name in ("good", "both", "child", "other", "refused", "refused first", "failed", "x")
    }
    assert found == {
        "good": "allowed", "both": "allowed", "child": "allowed", "other": "allowed", "refused": "rejected",
        "refused first": "allowed", "failed": "not_promoted", "x": "unknown_digest",
    }  # fmt: skip
    assert ask.code(at("good"), namespace="dev") == "not_promoted"
    assert ask.code(at("good"), namespace="other") == "no_environment"
    tag = good.digest[7:12]
    assert ask.code(f"{host}/shop/api:{tag}") == "tag_not_allowed"  # it can be moved to what nobody approved
    target = Repository.objects.create(
        registry=dock.repository.registry, team=dock.team, name="staging/shop/api", family="shop/api",
        source=dock.repository, environment=dock.staging,
    )  # fmt: skip
    rows.push(target, good, tag)
    ask.writer.write()
    assert ask.code(f"{host}/staging/shop/api:{tag}") == "allowed"
    clusters.set_bindings("north", [BindingWish("dev", "staging"), BindingWish("staging", "dev")], actor=owner)
    promote(dock, good, dock.dev)
    ask.writer.write()
    assert ask.code(f"{host}/staging/shop/api:{tag}") == "tag_not_allowed"  # a target of another environment
    assert ask.code(f"{host}/staging/shop/api:{tag}", namespace="dev") == "allowed"
    assert ask.code(f"{host}/shop/api:nope") == "unknown_tag"


def test_quarantine_of_a_base_closes_what_is_built_on_it(dock, secret, folder, owner):
    base, app = rows.image("base"), rows.image("app")
    rows.derive(base, app)
    rows.push(dock.repository, base, "base")
    promote(dock, app, dock.staging)
    ask = Asking(folder, secret)
    assert ask.code(at("app")) == "allowed"
    row = quarantines.quarantine(base.digest, actor=owner, reason="backdoor")
    assert ask.code(at("app")) == "quarantined"
    content, _ = snapshot_content(9)
    assert (f"(Q-{row.pk})".encode() in content, b"backdoor" in content) == (True, False)  # everybody reads refusals
    quarantines.request_release(row.pk, actor=owner, reason="false alarm")
    quarantines.release(row.pk, actor=person("other-guard", dock.team, "security"))
    assert ask.code(at("app")) == "allowed"


def test_rules_at_admission_decide(dock, secret, folder):
    good = rows.image("good")
    rows.push(dock.repository, good, "good")
    promote(dock, good, dock.staging)
    ask = Asking(folder, secret)
    assert ask.code(at("good")) == "allowed"
    save(Scope(dock.team, dock.staging), rule("scanned", "sbom", modes={"admission": "enforce"}))
    assert judge_due() == 1
    assert ask.code(at("good")) == "policy"
    verdict = AdmissionVerdict.objects.get()
    assert (verdict.is_allowed, bool(verdict.reason)) == (False, True)
    assert judge_due() == 0
    save(Scope(dock.team, dock.staging), rule("scanned", "sbom", modes={"admission": "observe"}))
    assert ask.code(at("good")) == "allowed"


def test_image_without_verdict_is_not_allowed_where_rules_enforce(dock, secret, folder):
    good = rows.image("good")
    rows.push(dock.repository, good, "good")
    promote(dock, good, dock.staging)
    save(Scope(dock.team, dock.staging), rule("scanned", "sbom", modes={"admission": "enforce"}))
    content, _ = snapshot_content(1)
    assert b"The rules were not judged yet." in content


def test_changes_are_noted_in_their_transaction(dock, secret, owner):
    AdmissionEpoch.objects.all().delete()
    clusters.change_cluster("north", actor=owner, mode="warn")
    assert AdmissionEpoch.objects.exists()
    AdmissionEpoch.objects.all().delete()
    quarantines.quarantine(dock.image.digest, actor=owner, reason="bad")
    assert AdmissionEpoch.objects.exists()


def test_decisions_are_loaded_once(dock, secret, folder):
    rows.push(dock.repository, rows.image("known"), "known")
    ask = Asking(folder, secret)
    ask.code(at("known"))
    ask.code(at("known"))
    path = ask.application.recorder.flush(now=1e12)
    content = path.read_bytes()
    assert load_spool(folder) == 1
    path.write_bytes(content)  # the process ended before it deleted the file
    load_spool(folder)
    assert [row.code for row in AdmissionDecision.objects.all()] == ["not_promoted", "not_promoted"]
    assert list((folder / "spool").iterdir()) == []


def test_allowed_ones_are_counted_by_workload_and_minute(dock, secret, folder):
    promote(dock, rows.image("good"), dock.staging)
    ask = Asking(folder, secret)
    for _ in range(3):
        ask.code(at("good"))
    ask.application.recorder.flush(now=1e12)
    load_spool(folder)
    assert {(row.workload, row.code) for row in AdmissionCount.objects.all()} == {("Pod staging/web-1", "")}
    assert sum(row.count for row in AdmissionCount.objects.all()) == 3
    assert {tuple(row.judged) for row in AdmissionCount.objects.all()} == {(rows.sha("good"),)}


@pytest.mark.parametrize(
    ("images", "expected"), [([["a"], ["b"]], ["a", "b"]), ([["a"], None], None), ([None, ["b"]], None)]
)
@pytest.mark.parametrize("files", [1, 2])
def test_the_images_of_decisions_are_kept_unless_one_names_none(tmp_path, secret, *, files, images, expected):
    line = {"count": [Cluster.objects.get().pk, "n", "Pod", "web", 1, "", 2]}
    lines = [orjson.dumps(line if each is None else line | {"images": each}) for each in images]
    (tmp_path / "spool").mkdir()
    for number in range(files):
        (tmp_path / "spool" / f"{number}.jsonl").write_bytes(b"\n".join(lines[number::files] if files > 1 else lines))
    load_spool(tmp_path)
    row = AdmissionCount.objects.get()
    assert (row.count, sorted(row.judged) if row.judged is not None else None) == (4, expected)


@pytest.mark.parametrize("content", [b"{", b'{"decision": {}}\n', b'{"decision": 7}\n', b"\xff\n"])
def test_bad_file_is_put_aside(db, tmp_path, content):
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "1.jsonl").write_bytes(content)
    load_spool(tmp_path)
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["1.bad"]


def test_bad_line_loses_no_other_line(dock, secret, folder, owner, monkeypatch):
    clusters.change_cluster("north", actor=owner, breakglass_subjects=["user:kim"])
    ask = Asking(folder, secret)
    reason = {"gravingdock.io/break-glass": "INC-7: literally \\u0000, and \0 itself"}
    given = review(pod(at("known"), annotations=reason), namespace="staging", userInfo={"username": "kim"})
    given["request"]["object"]["spec"]["containers"].append({"name": "a\0", "image": "a\0"})
    send(ask.application, given, f"/admission/north/{secret}")
    del given["request"]["object"]["spec"]["containers"][1]
    send(ask.application, given, f"/admission/north/{secret}")
    ask.application.recorder.flush(now=1e12)
    for path in list((folder / "spool").iterdir()):
        good = path.read_bytes()
        row = orjson.loads(good.splitlines()[0])["decision"]
        for bad in ({"key": "x" * 41}, {"key": "y", "images": 7}, {"at": 1e30}):
            good += orjson.dumps({"decision": row | bad}) + b"\n"
        path.write_bytes(b"{\n" + good + b'{"decision": "\\ud800"}\n')
    load_spool(folder)
    assert {(row.result, row.breakglass) for row in AdmissionDecision.objects.all()} == {
        ("refused", "INC-7: literally \\u0000, and  itself"),
        ("broke_glass", "INC-7: literally \\u0000, and  itself"),
    }
    assert AdmissionDebt.objects.get().reason == "INC-7: literally \\u0000, and  itself"
    left = list((folder / "spool").iterdir())
    assert {path.suffix for path in left} == {".bad"}
    assert {len(path.read_bytes().splitlines()) for path in left} == {5}
    monkeypatch.setattr(loading, "_BAD_FILES_MAX", 2)
    for number in range(4):
        (folder / "spool" / f"{number}.jsonl").write_bytes(b"{")
    load_spool(folder)
    assert len(list((folder / "spool").iterdir())) == 2


def test_file_that_cannot_be_read_stops_no_other(db, tmp_path, dock, secret):
    (tmp_path / "spool" / "1.jsonl").mkdir(parents=True)
    cluster = Cluster.objects.get()
    line = {"count": [cluster.pk, "n", "Pod", "web", 1, "", 2]}
    for name in ("2.jsonl", "3.jsonl"):
        (tmp_path / "spool" / name).write_bytes(b"\n".join([orjson.dumps(line)] * 2))
    assert load_spool(tmp_path) == 2
    assert [(row.workload, row.count) for row in AdmissionCount.objects.all()] == [("Pod n/web", 8)]
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["1.jsonl"]


def test_loading_ends_with_its_time(db, tmp_path):
    (tmp_path / "spool").mkdir()
    for name in ("1.jsonl", "2.jsonl"):
        (tmp_path / "spool" / name).write_bytes(b"\n")
    assert [load_spool(tmp_path, for_s=-1), load_spool(tmp_path, for_s=60)] == [0, 2]


def test_one_debt_for_a_workload_and_its_images(dock, secret, folder, owner):
    clusters.change_cluster("north", actor=owner, breakglass_subjects=["user:kim"])
    rows.push(dock.repository, rows.image("known"), "known")
    ask = Asking(folder, secret)
    reason = {"gravingdock.io/break-glass": "INC-7: shop is down"}
    application, path = ask.application, f"/admission/north/{secret}"
    for reference in (at("known"), at("known"), at("never")):
        given = review(pod(reference, annotations=reason), namespace="staging", userInfo={"username": "kim"})
        assert send(application, given, path)[1]["allowed"] is True
    application.recorder.flush(now=1e12)
    load_spool(folder)
    debts = AdmissionDebt.objects.order_by("pk")
    assert [(row.digests, row.count, row.user_name) for row in debts] == [
        ([rows.sha("known")], 2, "kim"),
        ([rows.sha("never")], 1, "kim"),
    ]
    assert (debts[0].due_at - debts[0].opened_at).total_seconds() == 86_400


@pytest.mark.django_db(transaction=True)
def test_writer_follows_a_change_within_two_seconds(dock, secret, tmp_path, owner):
    stop = threading.Event()

    def work():
        try:
            Writer(tmp_path).run(stop)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        application = Application(tmp_path, "https://g.example")
        _until(lambda: application.look() or application.snapshot)
        second = Writer(tmp_path)
        second.run(stop)  # returns at once: another writer has the lock
        started = time.monotonic()
        clusters.change_cluster("north", actor=owner, mode="warn")
        _until(lambda: application.look() or application.snapshot.clusters["north"].mode == "warn")
        assert time.monotonic() - started < 2
    finally:
        stop.set()
        thread.join()


def _until(check):
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_writer_renews_its_time(dock, secret, folder, monkeypatch):
    writer = Writer(folder)
    writer.write()
    number = Application(folder, "https://g.example").snapshot.number
    monkeypatch.setattr(writing, "_RENEW_EVERY_S", 0)
    writer._next["renew"] = 0
    (folder / "snapshot").unlink()
    writer.step()
    assert Application(folder, "https://g.example").snapshot.number == number + 1


def test_isolation_rules_are_judged_with_the_pod(dock, secret, folder):
    good = rows.image("good", config={"config": {"User": "0"}})
    rows.push(dock.repository, good, "good")
    promote(dock, good, dock.staging)
    ask = Asking(folder, secret)
    assert ask.code(at("good")) == "allowed"
    wanted = rule("apart", "isolation", checks=["run-as-root"], modes={"admission": "enforce"})
    save(Scope(dock.team, dock.staging), wanted)
    assert ask.code(at("good")) == "isolation"
    assert AdmissionVerdict.objects.count() == 0  # the image alone decides nothing

    def code(**security):
        given = pod(at("good"), securityContext=security)
        document = review(given, namespace="staging")
        answer = send(ask.application, document, f"/admission/north/{secret}")[1]
        return answer.get("auditAnnotations", {}).get("code", "allowed")

    assert code(runAsNonRoot=True, runAsUser=1000) == "allowed"
    assert code(runAsNonRoot=True) == "isolation"


def test_every_verdict_has_its_turn(dock, secret, folder):
    save(Scope(dock.team, dock.staging), rule("scanned", "sbom", modes={"admission": "enforce"}))
    images = [rows.image(f"image {number}") for number in range(6)]
    for what in images:
        rows.push(dock.repository, what, what.digest[7:12])
        for state in ("succeeded", "failed", "succeeded"):  # several requests of one pair are judged once
            promote(dock, what, dock.staging, state=state)
    assert judge_due(limit=100) == len(images)
    verdicts = AdmissionVerdict.objects.order_by("pk")
    now = clock.now()
    for age, row in enumerate(verdicts):
        verdicts.filter(pk=row.pk).update(judged_at=now - timedelta(minutes=5 + age), is_due=age == 0)
    assert writing.report_late_verdicts() == 1
    turns = []
    for _ in range(3):
        before = set(verdicts.filter(judged_at__gt=now).values_list("pk", flat=True))
        assert judge_due(limit=2) == 2
        turns += [set(verdicts.filter(judged_at__gt=now).values_list("pk", flat=True)) - before]
        # A team marks its verdict in each round: the others go on being renewed.
        verdicts.filter(pk=verdicts[0].pk).update(is_due=True)
    keys = [row.pk for row in verdicts]
    assert turns == [{keys[0], keys[5]}, {keys[4]}, {keys[3]}]
    assert writing.report_late_verdicts() == 0


def test_snapshot_follows_changes_while_rules_are_judged(dock, secret, folder, owner, monkeypatch):
    for image in (rows.image("one"), rows.image("two")):
        rows.push(dock.repository, image, image.digest[7:12])
        promote(dock, image, dock.staging)
    save(Scope(dock.team, dock.staging), rule("scanned", "sbom", modes={"admission": "enforce"}))
    modes, whole = [], writing.judge

    def slow(*given):
        """Judge, and change the cluster meanwhile; note what a server would answer from by now."""
        modes.append(Application(folder, "https://g.example").snapshot.clusters["north"].mode)
        clusters.change_cluster("north", actor=owner, mode="warn")
        return whole(*given)

    monkeypatch.setattr(writing, "judge", slow)
    monkeypatch.setattr(writing, "_FOLLOW_EVERY_S", 0)
    Writer(folder).step()
    assert modes == ["enforce", "warn"]


def test_image_that_cannot_be_judged_is_refused_and_stops_no_other(dock, secret, folder, monkeypatch):
    good, bad = rows.image("good"), rows.image("bad")
    for image in (good, bad):
        rows.push(dock.repository, image, image.digest[7:12])
        promote(dock, image, dock.staging)
    save(Scope(dock.team, dock.staging), rule("scanned", "sbom", modes={"admission": "enforce"}))
    whole = writing.judge

    def failing(image, *more):
        if image == bad:
            raise RuntimeError("a fault in a rule")
        return whole(image, *more)

    monkeypatch.setattr(writing, "judge", failing)
    assert judge_due() == 2
    verdicts = dict(AdmissionVerdict.objects.values_list("image__digest", "reason"))
    assert verdicts.keys() == {good.digest, bad.digest}
    assert "could not be judged" in verdicts[bad.digest]
    assert "could not be judged" not in verdicts[good.digest]


def test_snapshot_that_cannot_be_written_is_tried_again_and_stops_no_loading(dock, secret, folder, owner, monkeypatch):
    monkeypatch.setattr(writing, "_RETRY_AFTER_S", 0)
    writer = Writer(folder)
    writer.write()
    clusters.change_cluster("north", actor=owner, mode="warn")
    before = (folder / "snapshot").read_bytes()
    (folder / "snapshot").unlink()
    (folder / "snapshot").mkdir()
    (folder / "spool").mkdir()
    (folder / "spool" / "1.jsonl").write_bytes(b"\n")
    writer.step()
    assert list((folder / "spool").iterdir()) == []
    (folder / "snapshot").rmdir()
    (folder / "snapshot").write_bytes(before)
    writer.step()
    assert Application(folder, "https://g.example").snapshot.clusters["north"].mode == "warn"


def test_debt_keeps_everybody_who_brought_it_in_and_no_controller(dock, secret, folder, owner):
    clusters.change_cluster("north", actor=owner, breakglass_subjects=["user:oidc:Kim", "user:sam"])
    rows.push(dock.repository, rows.image("known"), "known")
    application, reason = Asking(folder, secret).application, {"gravingdock.io/break-glass": "INC-7: shop is down"}
    controller = "system:serviceaccount:kube-system:replicaset-controller"
    hash_ = {"labels": {"pod-template-hash": "5d"}}

    def use(user, now, *, is_allowed=True):
        given = pod(at("known"), annotations=reason, owner=("ReplicaSet", "web-5d"))
        given["metadata"] |= hash_
        document = review(given, namespace="staging", userInfo={"username": user})
        assert send(application, document, f"/admission/north/{secret}")[1]["allowed"] is is_allowed
        application.recorder.flush(now=now)
        load_spool(folder)
        return list(AdmissionDebt.objects.order_by("pk"))

    assert use(controller, 1e12, is_allowed=False) == []
    use("oidc:Kim", 2e12)
    use(controller, 2.5e12)
    (debt,) = use("sam", 3e12)
    assert (debt.user_name, debt.user_names, debt.count) == ("oidc:Kim", ["oidc:Kim", "sam"], 3)

    def say(outcome):
        who = {"reviewed_at": clock.now(), "reviewed_by": owner}
        AdmissionDebt.objects.filter(reviewed_at=None).update(outcome=outcome, **who)

    say("justified")
    (debt,) = use(controller, 4e12)  # its pods start again
    assert debt.count == 4
    again = use("sam", 5e12)
    assert [row.user_names for row in again] == [["oidc:Kim", "sam"], ["sam"]]
    say("unjustified")
    assert len(use(controller, 6e12)) == 3


@pytest.mark.parametrize("name", ["approver", "APPROVER", "oidc:Approver", "https://id.example.com#approver", "mail"])
def test_who_broke_the_glass_does_not_review_it_under_another_name(dock, secret, name):
    dock.approver.email = "kim@example.com"
    approver, name = dock.approver, name.replace("mail", f"sso:{dock.approver.email.upper()}")
    name = name.replace("approver", approver.username).replace("APPROVER", approver.username.upper())
    name = name.replace("Approver", approver.username.capitalize())
    debt = AdmissionDebt(cluster=dock.team.clusters.get(), user_name="first", user_names=["first", name])
    assert "yourself" in str(why_not_review(approver, debt))
    assert why_not_review(dock.second, debt) is None


def test_controllers_carry_on_what_came_in_since_enforcement_began(dock, secret, folder, owner):
    clusters.change_cluster("north", actor=owner, breakglass_subjects=["user:kim"])
    rows.push(dock.repository, rows.image("known"), "known")
    asking, reason = Asking(folder, secret), {"gravingdock.io/break-glass": "INC-7: shop is down"}
    path = f"/admission/north/{secret}"

    def use(user, kind="Pod", **more):
        given = pod(at("known"), annotations=reason, owner=("StatefulSet", "web") if kind == "Pod" else None)
        given = given if kind == "Pod" else {"metadata": {"name": "web"}, "spec": {"template": given}}
        group = "" if kind == "Pod" else "apps"
        document = review(given, kind=kind, group=group, namespace="staging", userInfo={"username": user}, **more)
        return send(asking.application, document, path)[1]["allowed"]

    def anew():
        """Load what was decided, and return a server that knows only the snapshot."""
        asking.application.recorder.flush(now=next(times))
        load_spool(folder)
        asking.writer.step()
        asking.application = Application(folder, "https://g.example")

    times = iter(range(10**12, 10**13, 10**11))
    controller = "system:serviceaccount:kube-system:statefulset-controller"
    assert use(controller) is False
    assert use("kim", "StatefulSet") is True
    anew()
    assert use(controller) is True
    entry = AdmissionEntry.objects.get()
    assert (entry.workload, entry.user_name) == ("StatefulSet staging/web", "kim")
    for mode in ("observe", "enforce"):  # meanwhile anybody could have written the same text
        clusters.change_cluster("north", actor=owner, mode=mode)
    anew()
    assert use(controller) is False
    assert use("kim", "StatefulSet") is True
    anew()
    assert use(controller) is True
