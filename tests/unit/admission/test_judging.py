"""What is decided about each kind of object, image and person."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest

from lifecycle.admission import messages, snapshot
from lifecycle.admission.constants import ANNOTATION, TEMPLATES
from lifecycle.admission.judging import judge_review, pinned
from lifecycle.admission.messages import message_of, warnings_of
from lifecycle.admission.reviews import parse_review, read_request
from lifecycle.admission.snapshot import Snapshot
from lifecycle.admission.types import BadReview, Code, Named
from tests.factories.reviews import HOST, content, deployment, image, pod, review, sha

REASON = {ANNOTATION: "INC-7: shop is down"}
REPLICASETS = "system:serviceaccount:kube-system:replicaset-controller"


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snapshot")
    snapshot.write(folder, content())
    return Snapshot(folder / snapshot.NAME)


def decide(taken, document, **more):
    cluster = taken.clusters["north"]
    return judge_review(taken, cluster, parse_review(json.dumps(document).encode()), **more)


def codes(outcome):
    return [result.code.value for result in outcome.refused]


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        (image("good"), None),
        (f"{HOST}/shop/api:good", None),
        (f"{HOST}/shop/api:known@{sha('good')}", None),
        (f"{HOST}/shop/api:good@{sha('known')}", "not_promoted"),
        (image("known"), "not_promoted"),
        (image("elsewhere"), "not_promoted"),
        (image("rejected"), "rejected"),
        (image("ruled"), "policy"),
        (image("bad"), "quarantined"),
        (f"{HOST}/shop/api:bad", "quarantined"),
        (f"evil.example.com/shop/api@{sha('bad')}", "quarantined"),
        (image("never seen"), "unknown_digest"),
        (f"{HOST}/dev/api:good", "tag_not_allowed"),
        (f"{HOST}/dev/api@{sha('good')}", None),
        (f"{HOST}/dev/api:known", "not_promoted"),
        (f"{HOST}/dev/api:bad", "quarantined"),
        (f"{HOST}/shop/api:nope", "unknown_tag"),
        (f"{HOST}/shop/api", "unknown_tag"),
        ("nginx", "unknown_tag"),
        ("index.docker.io/library/nginx:1", "unknown_tag"),
        (f"quay.io/shop/api@{sha('good')}", "foreign_registry"),
        ("localhost:5000/x", "foreign_registry"),
        ("", "malformed_reference"),
        (" ", "malformed_reference"),
        (f" {image('good')}", "malformed_reference"),
        (f"{image('good')}\n", "malformed_reference"),
        (f"{HOST}/Shop/api:good", "malformed_reference"),
        (f"{HOST}/shop/api@sha256:abc", "malformed_reference"),
        (f"{HOST} .evil/shop/api:good", "malformed_reference"),
        (f"https://{HOST}/shop/api:good", "malformed_reference"),
        (f"{HOST}/" + "x/" * 400 + "x", "malformed_reference"),
        (7, "malformed_reference"),
        (None, "malformed_reference"),
    ],
)
def test_image_is_decided_by_its_digest(taken, reference, code):
    outcome = decide(taken, review(pod(reference)))
    assert codes(outcome) == ([code] if code else [])
    assert outcome.is_allowed is (code is None)


def test_every_image_of_a_pod_is_found(taken):
    given = pod(
        image("known"),
        initContainers=[{"name": "i", "image": image("rejected")}],
        ephemeralContainers=[{"name": "e", "image": image("bad")}],
        volumes=[{"name": "v", "image": {"reference": image("ruled")}}, {"name": "w", "emptyDir": {}}],
    )
    found = {result.where: result.code.value for result in decide(taken, review(given)).refused}
    assert found == {
        "container c0": "not_promoted",
        "init container i": "rejected",
        "ephemeral container e": "quarantined",
        "volume v": "policy",
    }


@pytest.mark.parametrize("kind", TEMPLATES, ids=lambda kind: kind[1])
def test_template_of_every_controller_is_judged(taken, kind):
    given = pod(image("known"))
    for key in reversed(TEMPLATES[kind]):
        given = {key: given}
    outcome = decide(taken, review(given, group=kind[0], kind=kind[1]))
    assert codes(outcome) == ["not_promoted"]
    allowed = json.loads(json.dumps(given).replace(sha("known"), sha("good")))
    assert decide(taken, review(allowed, group=kind[0], kind=kind[1])).is_allowed


@pytest.mark.parametrize(
    "given",
    [None, {}, {"spec": None}, {"spec": []}, {"spec": {"containers": {}}}, {"spec": {"containers": [7]}}, [], "pod"],
)
def test_object_without_readable_pod_spec_is_refused(taken, given):
    outcome = decide(taken, review(given))
    assert (codes(outcome), outcome.is_allowed) == (["malformed_reference"], False)


def test_update_judges_only_new_images(taken):
    old = pod(image("known"))
    same = review(pod(image("known")), operation="UPDATE", oldObject=old)
    assert decide(taken, same).is_allowed
    more = review(pod(image("known"), image("rejected")), operation="UPDATE", oldObject=old)
    assert codes(decide(taken, more)) == ["rejected"]
    debug = pod(image("known"), ephemeralContainers=[{"name": "debug", "image": "busybox"}])
    added = review(debug, operation="UPDATE", oldObject=old, subResource="ephemeralcontainers")
    assert codes(decide(taken, added)) == ["unknown_tag"]
    unreadable = review(pod(image("known")), operation="UPDATE", oldObject={"spec": 3})
    assert codes(decide(taken, unreadable)) == ["not_promoted"]


@pytest.mark.parametrize(
    "more", [{"operation": "DELETE"}, {"operation": "CONNECT"}, {"operation": "UPDATE", "subResource": "status"}]
)
def test_what_changes_no_image_is_allowed(taken, more):
    outcome = decide(taken, review(pod(image("bad")), **more))
    assert (outcome.is_allowed, outcome.refused) == (True, ())


def test_placeholder_in_a_template_waits_for_its_pods(taken):
    assert decide(taken, review(deployment("auto", ""), group="apps", kind="Deployment")).is_allowed
    assert codes(decide(taken, review(pod("auto")))) == ["unknown_tag"]


@pytest.mark.parametrize(
    ("namespace", "mode", "is_allowed"),
    [("prod", "enforce", False), ("prod-observed", "observe", True), ("lab", "warn", True), ("off", "off", True)],
)
def test_mode_of_the_binding_counts(taken, namespace, mode, is_allowed):
    outcome = decide(taken, review(pod(image("known")), namespace=namespace))
    assert (outcome.mode, outcome.is_allowed, bool(outcome.refused)) == (mode, is_allowed, mode != "off")


def test_namespace_without_binding(tmp_path, taken):
    outcome = decide(taken, review(pod(image("good")), namespace="default"))
    assert (codes(outcome), outcome.is_allowed) == (["no_environment"], False)
    snapshot.write(tmp_path, content(unbound="observe"))
    observed = decide(Snapshot(tmp_path / snapshot.NAME), review(pod(image("good")), namespace="default"))
    assert (codes(observed), observed.is_allowed, observed.mode) == (["no_environment"], True, "observe")


def test_allowed_host_lets_images_in_only_where_it_is_bound(taken):
    assert codes(decide(taken, review(pod("quay.io/x/y:1"), namespace="lab"))) == []
    assert codes(decide(taken, review(pod(f"quay.io/x/y@{sha('bad')}"), namespace="lab"))) == ["quarantined"]
    assert codes(decide(taken, review(pod("quay.io/x/y:1")))) == ["foreign_registry"]


def test_tag_is_refused_where_digests_are_required(tmp_path):
    snapshot.write(tmp_path, content(tags="require_digest"))
    strict = Snapshot(tmp_path / snapshot.NAME)
    outcome = decide(strict, review(pod(f"{HOST}/shop/api:good")))
    assert (codes(outcome), sha("good") in outcome.refused[0].who) == (["tag_not_allowed"], True)
    assert decide(strict, review(pod(image("good")))).is_allowed
    assert codes(decide(strict, review(pod(f"{HOST}/shop/api:nope")))) == ["unknown_tag"]


def test_old_snapshot_is_not_trusted(taken):
    later = time.time() + 3601
    assert codes(decide(taken, review(pod(image("good"))), now=later)) == ["snapshot_stale"]
    assert codes(decide(taken, review(pod(image("bad"))), now=later)) == ["quarantined"]
    assert decide(taken, review(pod(image("good"))), now=later - 60).is_allowed
    assert codes(decide(taken, review(pod(image("good"))), now=time.time() - 4000)) == ["snapshot_stale"]


@pytest.mark.parametrize(
    ("user", "is_allowed"),
    [
        ({"username": "kim", "groups": []}, True),
        ({"username": "sam", "groups": ["oncall"]}, True),
        ({"username": "alice", "groups": ["dev"]}, False),
        ({"username": "", "groups": "oncall"}, False),
        (None, False),
    ],
)
def test_only_subjects_break_glass(taken, user, is_allowed):
    outcome = decide(taken, review(pod(image("known"), annotations=REASON), userInfo=user))
    assert outcome.is_allowed is is_allowed
    assert codes(outcome) == ([] if is_allowed else ["breakglass_not_permitted", "not_promoted"])
    assert [result.code for result in outcome.opened] == ([Code.NOT_PROMOTED] if is_allowed else [])


def test_breakglass_opens_all_but_two(taken):
    kim = {"username": "kim"}
    names = [image("known"), image("rejected"), image("ruled"), image("never"), "quay.io/x:1", image("bad"), "X"]
    outcome = decide(taken, review(pod(*names, annotations=REASON), userInfo=kim))
    assert codes(outcome) == ["quarantined", "malformed_reference"]
    assert [result.code.value for result in outcome.opened] == [
        "not_promoted", "rejected", "policy", "unknown_digest", "foreign_registry",
    ]  # fmt: skip
    outside = decide(taken, review(pod(image("known"), annotations=REASON), userInfo=kim, namespace="x"))
    assert (outside.is_allowed, [row.code.value for row in outside.opened]) == (True, ["no_environment"])


def test_short_reason_opens_nothing(taken):
    given = pod(image("known"), annotations={ANNOTATION: "  urgent  "})
    outcome = decide(taken, review(given, userInfo={"username": "kim"}))
    assert (codes(outcome), outcome.opened) == (["not_promoted"], ())


def test_annotation_on_update(taken):
    old = deployment(image("known"), annotations=REASON)

    def change(new, user):
        document = review(
            new, group="apps", kind="Deployment", operation="UPDATE", oldObject=old, userInfo={"username": user}
        )
        return decide(taken, document)

    assert change(deployment(image("known")), "alice").is_allowed  # taking it away is always allowed
    assert change(deployment(image("known"), annotations=REASON), "alice").is_allowed  # nothing changes
    other = deployment(image("known"), annotations={ANNOTATION: "another long reason"})
    assert codes(change(other, "alice")) == ["breakglass_not_permitted"]
    assert change(other, "kim").is_allowed
    assert codes(change(deployment(image("rejected"), annotations=REASON), "alice")) == ["rejected"]
    assert change(deployment(image("rejected"), annotations=REASON), "kim").is_allowed


@pytest.mark.parametrize(
    ("metadata", "workload"),
    [
        ({"name": "x"}, ("Pod", "x")),
        ({"generateName": "x-"}, ("Pod", "x-")),
        ({"ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d", "controller": True}],
          "labels": {"pod-template-hash": "5d"}}, ("Deployment", "web")),
        ({"ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": True}]}, ("ReplicaSet", "web")),
        ({"ownerReferences": [{"kind": "Job", "name": "tidy-29404812", "controller": True}]}, ("CronJob", "tidy")),
        ({"ownerReferences": [{"kind": "Job", "name": "tidy", "controller": True}]}, ("Job", "tidy")),
        ({"ownerReferences": [{"kind": "Job", "name": "tidy"}, 7], "name": "x"}, ("Pod", "x")),
    ],
)  # fmt: skip
def test_workload_is_what_people_deploy(metadata, workload):
    assert read_request(review({"metadata": metadata, "spec": {}})["request"]).workload == workload


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"7", b"null", b"{}", b'{"kind": "AdmissionReview"}',
        json.dumps(review(pod("x")) | {"apiVersion": "admission.k8s.io/v1beta1"}).encode(),
        json.dumps(review(pod("x"), uid="")).encode(),
        json.dumps(review(pod("x"), uid=7)).encode(),
        json.dumps(review(pod("x"), uid="u" * 200)).encode(),
        json.dumps(review(pod("x")) | {"request": []}).encode(),
        json.dumps(review(pod("x"))).encode().replace(b'"uid-1"', b"[" * 70 + b"]" * 70),
        b'{"a":' * 70 + b"1" + b"}" * 70,
        json.dumps(review(pod("x"))).encode().replace(b"prod", b"\xff"),
    ],
)  # fmt: skip
def test_what_is_no_review_is_refused(body):
    with pytest.raises(BadReview):
        parse_review(body)


def test_brackets_in_texts_are_not_depth():
    given = pod("x", annotations={"last-applied": '{"a":' * 100})
    assert parse_review(json.dumps(review(given)).encode()).images == (
        Named("container c0", "x", "/spec/containers/0/image"),
    )


def test_message_and_warnings_keep_their_limits(taken):
    names = [f"{HOST}/{'team/' * 20}api:{index}" for index in range(60)]
    outcome = decide(taken, review(pod(*names)))
    address = "https://gravingdock.example.com/why/0123456789abcdef0123/"
    message = message_of(outcome, read_request(review(pod(*names))["request"]), address)
    assert (len(message) <= 1000, address in message, "unknown_tag" in message) == (True, True, True)
    warnings = warnings_of(outcome, address)
    assert (len(warnings), max(map(len, warnings)) <= 120) == (20, True)
    one = decide(taken, review(pod(image("known"))))
    message = message_of(one, read_request(review(pod(image("known")))["request"]), address)
    for part in ("container c0", image("known"), "not_promoted", "Request a promotion to shop/production.", address):
        assert part in message


@pytest.mark.parametrize(
    ("reference", "wanted"),
    [
        (f"{HOST}/shop/api:good", f"{HOST}/shop/api:good@{sha('good')}"),
        (f"{HOST}/dev/api:good", f"{HOST}/dev/api:good@{sha('good')}"),
        (f"{HOST}/shop/api:known", ""),
        (f"{HOST}/shop/api:bad", ""),
        (f"{HOST}/shop/api:nope", ""),
        (f"{HOST}/shop/api", ""),
        (image("good"), ""),
        ("quay.io/x:1", ""),
        ("X:", ""),
    ],
)
def test_tags_are_pinned(taken, reference, wanted):
    binding = taken.clusters["north"].binding_for("prod")
    assert pinned(taken, binding, Named("container c0", reference)) == wanted


def test_real_reviews_are_read():
    folder = Path(__file__).parents[2] / "data" / "admission"
    found = {}
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        request = document.get("request", document)
        found[path.stem] = [row.reference for row in read_request(request).images or ()]
    assert found
    assert all(found.values())


@pytest.mark.parametrize("key", ["containers", "initContainers", "ephemeralContainers", "volumes"])
def test_object_with_more_images_than_anybody_runs_is_refused_at_once(taken, key):
    given = pod(image("good"), **({} if key == "containers" else {key: []}))
    given["spec"][key] += [{}] * 999
    assert parse_review(json.dumps(review(given)).encode()).images is not None
    given["spec"][key] += [{}] * 2
    outcome = decide(taken, review(given))
    assert (codes(outcome), outcome.is_allowed) == (["malformed_reference"], False)


def test_many_images_cost_little_memory():
    body = json.dumps(review(pod(image("good")))).encode()
    head, _, tail = body.partition(b'"containers": [')
    body = head + b'"containers": [' + b"{}," * 300_000 + tail
    tracemalloc.start()
    try:
        assert parse_review(body).images is None
        assert tracemalloc.get_traced_memory()[1] < 60e6  # 64 bytes for each of the objects that JSON has, and the list
    finally:
        tracemalloc.stop()


def test_message_of_many_images_is_not_built_whole(taken, monkeypatch):
    calls, whole = [], messages._line
    monkeypatch.setattr(messages, "_line", lambda result: calls.append(result) or whole(result))
    given = review(pod(*[image("known")] * 900))
    text = message_of(decide(taken, given), read_request(given["request"]), "https://g.example/why/1/")
    assert len(text) <= 1000
    assert 0 < len(calls) < 20
