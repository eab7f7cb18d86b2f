"""The agent for Kubernetes: silent while it is blind, careful with certificates."""

from __future__ import annotations

import base64
import hashlib
import queue
import time

import pytest

from lifecycle.admission import certificates
from tests.reporters import AGENT, as_module


class Stopped(Exception):
    pass


@pytest.fixture
def agent():
    return as_module(AGENT)


class Sender:
    def __init__(self):
        self.kinds = []

    def send(self, kind, *_, bundle, templates=None):
        self.kinds.append(kind)
        raise Stopped


@pytest.mark.parametrize(("silent_s", "kinds"), [(0, ["full"]), (100, ["full"]), (1000, [])])
def test_nothing_is_sent_while_the_api_server_is_away(agent, monkeypatch, silent_s, kinds):
    def stop(_seconds):
        raise Stopped

    monkeypatch.setattr(agent.time, "sleep", stop)
    inventory, changed, sender = agent.Inventory(), queue.SimpleQueue(), Sender()
    inventory.seen_at = time.monotonic() - silent_s
    changed.put("listed")
    with pytest.raises(Stopped):
        agent.send_for_ever(inventory, changed, sender, once=False)
    assert sender.kinds == kinds


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Api:
    """The webhook configurations of an API server, by kind; changes are applied as RFC 6902 says."""

    def __init__(self, agent, *, may_patch=True, **bundles):
        self.agent, self.may_patch, self.patches = agent, may_patch, []
        self.kept = {
            kind: {
                "metadata": {"resourceVersion": "7"},
                "webhooks": [{"clientConfig": {"url": "https://x", **({"caBundle": encoded(text)} if text else {})}}
                             for text in texts],
            }
            for kind, texts in bundles.items()
        }  # fmt: skip

    def _kind(self, path):
        assert path.endswith("configurations/gravingdock")
        return "validating" if "/validating" in path else "mutating"

    def get(self, path):
        if self._kind(path) not in self.kept:
            raise self.agent.Refused("absent", 404)
        return self.kept[self._kind(path)]

    def patch(self, path, changes):
        if not self.may_patch:
            raise self.agent.Refused("forbidden", 403)
        self.patches.append(changes)
        row = self.kept[self._kind(path)]
        for change in changes:
            at = change["path"].split("/")[1:]
            if change["op"] == "test":
                assert row["metadata"]["resourceVersion"] == change["value"]
            else:
                assert (at[0], at[2:]) == ("webhooks", ["clientConfig", "caBundle"])
                row["webhooks"][int(at[1])]["clientConfig"]["caBundle"] = change["value"]
        return row

    def trusted(self):
        return {
            base64.b64decode(hook["clientConfig"].get("caBundle", "")).decode()
            for row in self.kept.values()
            for hook in row["webhooks"]
        }


def test_webhooks_trust_what_gravingdock_wants(agent):
    api = Api(agent, validating=["old", "new", "old"], mutating=["old"])
    assert agent.trust(api, "new") == sha("new")
    assert (api.trusted(), len(api.patches), len(api.patches[0])) == ({"new"}, 2, 3)
    assert agent.trust(api, "new") == sha("new")
    assert len(api.patches) == 2


@pytest.mark.parametrize(
    ("bundles", "wanted", "may_patch", "said"),
    [
        ({"validating": ["old", "old"]}, "", True, sha("old")),  # nothing is never passed on
        ({"validating": ["old"]}, "new", False, sha("old")),
        ({"validating": ["old"], "mutating": ["new"]}, "new", False, ""),
        ({"validating": [""]}, "new", True, None),  # the cluster trusts the address anyway
        ({}, "new", True, None),
    ],
)
def test_what_cannot_or_must_not_change_is_reported_as_it_is(agent, bundles, wanted, may_patch, said):
    api = Api(agent, may_patch=may_patch, **bundles)
    before = api.trusted()
    assert (agent.trust(api, wanted), api.trusted(), api.patches) == (said, before, [])


def test_only_certificates_are_passed_on(agent, tmp_path):
    certificates.ensure(tmp_path, ["localhost"])
    certificates.rotate(tmp_path)
    bundle = certificates.bundle(tmp_path)
    assert agent.is_bundle(bundle)
    for text in ("", "garbage", bundle[:200], "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        assert not agent.is_bundle(text), text


class Told:
    """Takes reports, and stops the agent after some."""

    def __init__(self, most):
        self.heard, self.most = [], most

    def send(self, kind, *_, bundle, templates=None):
        self.heard.append((kind, bundle))
        if len(self.heard) >= self.most:
            raise Stopped
        return 202


def test_changed_trust_is_reported_at_once(agent, monkeypatch):
    inventory, changed, told = agent.Inventory(), queue.SimpleQueue(), Told(2)
    changed.put("listed")
    inventory.bundle = "a"

    def change(_seconds):
        inventory.bundle = "b"

    monkeypatch.setattr(agent.time, "sleep", change)
    changed.put("bundle")
    with pytest.raises(Stopped):
        agent.send_for_ever(inventory, changed, told, once=False)
    assert told.heard == [("full", "a"), ("heartbeat", "b")]


class Lists:
    """An API server with these objects, that lets nobody list `hidden`."""

    def __init__(self, hidden="", **objects):
        self.hidden, self.objects = hidden, objects

    def pages(self, path):
        name = path.rpartition("/")[2]
        if name == self.hidden:
            raise self.refused(f"GET {path} answered 403", 403)
        yield {"items": self.objects.get(name, [])}


def controller(name, keys=("spec", "template"), **more):
    given = {"spec": {"containers": [{"name": "app", "image": "x:1", "args": ["secret"]}]}}
    for key in reversed(keys):
        given = {key: given}
    return {"metadata": {"name": name, "namespace": "shop"}, **given, **more}


def test_templates_of_all_controllers_without_pods_are_named(agent):
    Lists.refused = agent.Refused
    owned = controller("web-5d")
    owned["metadata"]["ownerReferences"] = [{"controller": True, "kind": "Deployment", "name": "web"}]
    over = controller("done", status={"conditions": [{"type": "Complete", "status": "True"}]})
    lists = {
        path.rpartition("/")[2]: [controller(f"a-{kind.lower()}", keys)] for kind, path, keys in agent.CONTROLLERS
    }  # fmt: skip
    lists["replicasets"].append(owned)
    lists["jobs"].append(over)
    inventory = agent.Inventory()
    assert inventory.without_pods() == (None, {})
    agent.look_around(Lists(**lists), inventory)
    pod = {
        "metadata": {
            "uid": "u", "name": "p", "namespace": "shop",
            "ownerReferences": [{"controller": True, "kind": "StatefulSet", "name": "a-statefulset"}],
        },
        "spec": {"containers": [{"name": "app", "image": "x:1"}]},
    }  # fmt: skip
    inventory.put(pod)
    templates, specs = inventory.without_pods()
    assert sorted(row["kind"] for row in templates) == sorted(
        {kind for kind, _, _ in agent.CONTROLLERS} - {"StatefulSet"}
    )  # fmt: skip
    assert {row["spec"] for row in templates} == set(specs)
    assert not any(b"secret" in text for text in specs.values())
    inventory.drop("u")
    assert len(inventory.without_pods()[0]) == 8
    agent.look_around(Lists(hidden="cronjobs", **lists), inventory)  # the rights of an earlier manifest
    assert inventory.without_pods() == (None, {})
