"""Isolation: the check of manifests by API, page and command, and the rule at promotion."""

from __future__ import annotations

import json

import pytest

from lifecycle.core import clock
from lifecycle.policies.types import Scope
from lifecycle.registry.models import Image
from lifecycle.sbom.models import ContentCheck
from tests.clients import Caller, browser
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import ENFORCE, rule, save

pytestmark = pytest.mark.django_db
GOOD = """
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  template:
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: app
        image: shop/api
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""
BAD = GOOD.replace("runAsNonRoot: true", "runAsUser: 0")


@pytest.fixture
def configured(dock):
    """Give the image a configuration that runs as root and has a secret, and files that were checked."""
    config = {"config": {"User": "root", "Env": ["API_TOKEN=x"], "Healthcheck": {"Test": ["CMD", "true"]}}}
    Image.objects.filter(pk=dock.image.pk).update(config=config)
    ContentCheck.objects.create(image=dock.image, checked_at=clock.now(), malware="off", rules_version=1)
    return dock


def opened(answer):
    return {v["check"]: v["result"] for v in answer["pods"][0]["verdicts"] if v["result"] in {"fail", "unknown"}}


def test_a_manifest_is_checked_against_a_profile(dock):
    client = Caller(dock.owner)
    good = client.post("isolation/check/", {"manifest": GOOD}).json()
    assert (good["result"], good["others"], good["pods"][0]["pod_security"]) == (
        "pass", 0, {"baseline": True, "restricted": True},
    )  # fmt: skip
    bad = client.post("isolation/check/", {"manifest": BAD + "---\nkind: Service\n"}).json()
    assert (bad["result"], bad["others"], opened(bad)) == ("fail", 1, {"run-as-root": "fail"})
    assert {v["pointer"] for v in bad["pods"][0]["verdicts"] if v["result"] == "fail"} == {
        "/spec/template/spec/securityContext/runAsUser",
        "/spec/template/spec/containers/0/securityContext/runAsNonRoot",
    }
    body = {"object": {"containers": [{"name": "a"}]}, "profile": "baseline"}
    assert client.post("isolation/check/", body).json()["result"] == "pass"


def test_images_that_the_caller_can_see_count_and_no_other(configured):
    body = {"manifest": GOOD, "profile": "all", "digest": configured.image.digest}
    seen = opened(Caller(configured.owner).post("isolation/check/", body).json())
    assert {name: seen.get(name) for name in ("run-as-root", "secret-in-env", "setuid", "healthcheck", "ssh")} == {
        "run-as-root": "fail", "secret-in-env": "fail", "setuid": None, "healthcheck": None, "ssh": None,
    }  # fmt: skip
    stranger = person("stranger")
    assert Caller(stranger).post("isolation/check/", body).status_code == 404
    named = {"manifest": GOOD.replace("shop/api", f"shop/api@{configured.image.digest}"), "profile": "all"}
    assert opened(Caller(configured.owner).post("isolation/check/", named).json()) == seen
    hidden = opened(Caller(stranger).post("isolation/check/", named).json())
    assert (hidden["secret-in-env"], hidden["ssh"], "run-as-root" in hidden) == ("unknown", "unknown", False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"manifest": "kind: Service"}, 400),
        ({"manifest": "a: ["}, 400),
        ({"manifest": GOOD, "object": {"kind": "Pod"}}, 400),
        ({"object": {"containers": []}}, 400),
        ({"manifest": GOOD, "environment": "production"}, 404),
        ({"manifest": GOOD, "environment": "other/production"}, 404),
        ({"manifest": GOOD, "profile": "none"}, 400),
    ],
)
def test_wrong_bodies_are_refused(dock, body, status):
    answer = Caller(dock.owner).post("isolation/check/", body)
    assert answer.status_code == status, answer.json()


def test_a_digest_needs_one_open_container(configured):
    two = {"containers": [{"name": "a"}, {"name": "b"}]}
    answer = Caller(configured.owner).post("isolation/check/", {"object": two, "digest": configured.image.digest})
    assert answer.status_code == 400
    assert "2 containers without a digest" in answer.json()["detail"]


def test_modes_are_those_of_the_environment_at_admission(dock):
    place = Scope(dock.team, dock.dev)
    save(place, rule("root", "isolation", modes={"admission": "enforce"}, checks=["run-as-root"]))
    save(
        Scope(dock.team),
        rule("more", "isolation", modes={"admission": "warn"}, checks=["ssh", "limits"]),
    )
    client, body = Caller(dock.owner), {"manifest": BAD, "profile": "all", "environment": f"shop/{dock.dev.slug}"}
    answer = client.post("isolation/check/", body).json()
    modes = {v["check"]: v["mode"] for v in answer["pods"][0]["verdicts"]}
    assert {name: modes[name] for name in ("run-as-root", "limits", "seccomp")} == {
        "run-as-root": "enforce", "limits": "warn", "seccomp": "off",
    }  # fmt: skip
    assert answer["is_blocked"]
    assert not client.post("isolation/check/", body | {"manifest": GOOD}).json()["is_blocked"]


def test_the_rule_judges_the_image_at_promotion(configured):
    checks = ["run-as-root", "secret-in-env", "setuid", "healthcheck", "ssh", "privileged"]
    save(Scope(configured.team), rule("isolated", "isolation", modes=ENFORCE, checks=checks))
    client = Caller(configured.owner)

    def verdict():
        found = client.get(f"images/{configured.image.digest}/verdict/", environment=configured.dev.slug).json()
        (one,) = [item for item in found["rules"] if item["rule"] == "isolated"]
        return one["status"], one["summary"]

    assert verdict() == ("unsatisfied", "The image runs as root. The image's ENV has API_TOKEN.")
    good = {"config": {"User": "1000", "Healthcheck": {"Test": ["CMD", "true"]}}}
    Image.objects.filter(pk=configured.image.pk).update(config=good)
    assert verdict()[0] == "satisfied"
    ContentCheck.objects.update(problem="The scan was cut.")
    assert verdict() == ("error", "No setuid files: The files of the image were not checked.")


def test_unknown_checks_are_refused_by_name(dock):
    body = {"rules": [rule("r", "isolation", checks=["ssh", "sssh"])]}
    answer = Caller(dock.owner).put("policies/team:shop/", body, If_Match='"team:shop.0"')
    assert answer.status_code == 400
    assert "sssh is unknown. Choose from privileged," in answer.json()["detail"]


def test_page_keeps_the_input_and_shows_verdicts(dock):
    client = browser(dock.owner)
    shown = client.post("/isolation/", {"manifest": BAD, "profile": "restricted"})
    text = shown.content.decode()
    assert shown.status_code == 200
    assert "Deployment api" in text
    assert "runAsUser is 0." in text
    assert "PSS restricted" in text
    assert "runAsUser: 0" in text  # the form keeps what was typed
    refused = client.post("/isolation/", {"manifest": "a: [", "profile": "all"})
    assert refused.status_code == 422
    assert "no YAML or JSON" in refused.content.decode()
    assert client.get("/isolation/").status_code == 200


def test_command_exits_with_3_when_a_pod_fails(dock, run, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(f"{GOOD}\n---{BAD}")
    code, out, _ = run(dock.owner, "isolation", "check", "-f", good)
    assert (code, out) == (0, "Deployment/api: pass. Kubernetes admits it at baseline and restricted.\n")
    code, out, err = run(dock.owner, "isolation", "check", "-f", bad)
    assert code == 3
    assert "runAsUser is 0." in out
    assert "Not every check of restricted passes." in err
    answer = json.loads(run(dock.owner, "isolation", "check", "-f", bad, "--json")[1])
    assert [pod["result"] for pod in answer["pods"]] == ["pass", "fail"]
    assert run(dock.owner, "isolation", "check", "-f", bad, "--env", "shop/dev")[0] == 0  # no rule enforces it
    assert run(dock.owner, "isolation", "check", "-f", tmp_path / "none")[0] == 2
    assert run(dock.owner, "isolation", "check", "-f", good, "--image", rows.sha("nothing"))[0] == 1
