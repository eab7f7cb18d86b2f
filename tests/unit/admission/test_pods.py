"""Which settings of pods admission refuses, where isolation checks are enforced."""

from __future__ import annotations

import copy
import json

import pytest

from lifecycle.admission.judging import judge_review
from lifecycle.admission.reviews import parse_review
from lifecycle.admission.snapshot import Snapshot, facts_of_image
from lifecycle.evidence.isolation import worst
from lifecycle.policy.isolation_pod import root_in_image
from lifecycle.policy.isolation_types import ImageConfig
from tests.factories.reviews import HOST, content, deployment, image, pod, review

ROOT = {"1": {"run-as-root": "enforce"}}
PRIVILEGED = {"1": {"privileged": "enforce"}}


def taken_with(isolation, user: str | None = "1000"):
    return Snapshot.of(content(isolation=isolation, image_facts=facts_of_image(ImageConfig(user=user))))


def refused(taken, given, **more):
    document = json.dumps(review(given, **more)).encode()
    outcome = judge_review(taken, taken.clusters["north"], parse_review(document))
    return [(row.where, row.reference, row.code.value) for row in outcome.refused]


def with_security(given, **security):
    given = copy.deepcopy(given)
    spec = given["spec"].get("template", given)["spec"]
    spec["containers"][0]["securityContext"] = security
    return given


@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_enforced_check_refuses_pods_and_templates(kind):
    good = pod(image("good")) if kind == "Pod" else deployment(image("good"))
    group = "" if kind == "Pod" else "apps"
    taken = taken_with(PRIVILEGED)
    found = refused(taken, with_security(good, privileged=True), kind=kind, group=group)
    assert found == [("container c0", "privileged", "isolation")]
    assert refused(taken, good, kind=kind, group=group) == []
    assert refused(taken_with({}), with_security(good, privileged=True), kind=kind, group=group) == []
    assert (
        refused(taken_with({"2": PRIVILEGED["1"]}), with_security(good, privileged=True), kind=kind, group=group) == []
    )


@pytest.mark.parametrize(
    "reference", [image("good"), f"{HOST}/shop/api:good", f"{HOST}/shop/api:known@{image('good')[-71:]}"]
)
def test_user_of_the_image_counts_unless_the_pod_overrules_it(reference):
    given = with_security(pod(reference), runAsNonRoot=True)
    assert refused(taken_with(ROOT, "1000"), given) == []
    assert [row[2] for row in refused(taken_with(ROOT, "00"), given)] == ["isolation"]
    number = with_security(pod(reference), runAsNonRoot=True, runAsUser=1000)
    assert refused(taken_with(ROOT, "0"), number) == []


def test_what_cannot_be_judged_does_not_pass():
    taken = taken_with(ROOT)
    assert [row[2] for row in refused(taken, {"metadata": {}, "spec": {"containers": []}})] == ["isolation"]
    odd = pod(image("good"), securityContext=7)
    assert [row[2] for row in refused(taken, odd)] == ["isolation"]
    setuid = taken_with({"1": {"setuid": "enforce"}})
    assert [row[2] for row in refused(setuid, pod(image("good")))] == ["isolation"]


def test_only_what_changes_is_judged():
    taken = taken_with(PRIVILEGED)
    old = with_security(pod(image("good")), privileged=True)
    label = copy.deepcopy(old) | {"metadata": old["metadata"] | {"labels": {"a": "b"}}}
    assert refused(taken, label, operation="UPDATE", oldObject=old) == []
    debug = copy.deepcopy(old)
    debug["spec"]["ephemeralContainers"] = [{"name": "debug", "image": image("good")}]
    more = {"operation": "UPDATE", "oldObject": old, "subResource": "ephemeralcontainers"}
    assert refused(taken, debug, **more) == []
    debug["spec"]["ephemeralContainers"][0]["securityContext"] = {"privileged": True}
    assert refused(taken, debug, **more) == [("ephemeral container debug", "privileged", "isolation")]
    template = with_security(deployment(image("good")), privileged=True)
    same = {"kind": "Deployment", "group": "apps", "operation": "UPDATE", "oldObject": template}
    assert refused(taken, template | {"spec": template["spec"] | {"replicas": 3}}, **same) == []


def test_template_waits_for_its_pods_where_it_leaves_an_image_out():
    taken = taken_with(ROOT)
    given = with_security(deployment("auto"), runAsNonRoot=True)
    assert refused(taken, given, kind="Deployment", group="apps") == []


def test_breakglass_opens_it_for_who_may():
    given = with_security(
        pod(image("good"), annotations={"gravingdock.io/break-glass": "INC-7: shop is down"}), privileged=True
    )
    assert refused(taken_with(PRIVILEGED), given, userInfo={"username": "kim"}) == []


@pytest.mark.parametrize("root", ["00", "0:0", "root", "app", "", " 0"])
def test_platform_that_may_run_as_root_counts(root):
    assert root_in_image(worst([ImageConfig(user="1000"), ImageConfig(user=root), ImageConfig(user="7")]).user)
    assert worst([ImageConfig(user="1000"), ImageConfig(user="1000")]).user == "1000"
