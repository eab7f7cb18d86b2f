"""The agent for Kubernetes by itself: what it reports of many pods, and how little of it it keeps."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lifecycle.bench import cluster_api
from lifecycle.runtime.reports import read_content, read_header
from lifecycle.runtime.skeletons import skeleton
from tests.listening import NO_ANSWER, Listener
from tests.reporters import AGENT, as_module

PODS = 250  # more than two pages


@pytest.fixture(scope="module")
def agent() -> ModuleType:
    """The program as a module."""
    return as_module(AGENT)


def await_true(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.05)


def said(listener: Listener, kind: str) -> list[dict[str, Any]]:
    return [report for report in listener.reports if report["kind"] == kind]


def test_pods_are_listed_in_pages_and_their_changes_follow(tmp_path: Path) -> None:
    log, configuration = tmp_path / "agent.log", tmp_path / "kubeconfig"
    # Not accepted at first: the same state is sent again.
    with cluster_api.serving(PODS) as api, Listener(NO_ANSWER) as listener, log.open("w") as errors:
        context = {"cluster": "x", "user": "x"}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": api.url}}],
            "users": [{"name": "x", "user": {}}], "contexts": [{"name": "x", "context": context}],
        }  # fmt: skip
        configuration.write_text(json.dumps(document))
        environment = {
            "GRAVINGDOCK_URL": listener.url, "GRAVINGDOCK_CLUSTER": "north", "AGENT_TOKEN": "t",
            "KUBECONFIG": str(configuration), "PATH": os.environ["PATH"],
        }  # fmt: skip
        process = subprocess.Popen([sys.executable, AGENT], env=environment, stderr=errors)
        try:
            await_true(lambda: len(listener.reports) > 0, log)
            api.change_all()
            await_true(lambda: len(said(listener, "full")) > 1, log)

            def all_restarted() -> bool:
                entries = {
                    entry["key"]: entry["started_at"] for report in listener.reports for entry in report["containers"]
                }
                return len(entries) == PODS and set(entries.values()) == {cluster_api.RESTARTED_AT}

            await_true(all_restarted, log)
        finally:
            process.kill()
            process.wait()
    first = listener.reports[0]
    assert (first["kind"], first["sequence"], len(first["containers"])) == ("full", 1, PODS)
    assert said(listener, "full")[1]["sequence"] == 1
    assert len(first["specs"]) == PODS // 5  # one for each workload
    assert "value 1 of" not in json.dumps(first)
    assert "--verbose" not in json.dumps(first)
    read_header(first)
    content = read_content(first)
    assert (len(content.containers), content.refused) == (PODS, [])


def test_pods_of_a_workload_share_a_skeleton_and_other_settings_do_not(agent: ModuleType) -> None:
    one, other = cluster_api.pod(0), cluster_api.pod(1)
    other["spec"]["affinity"] = {"nodeAffinity": {"of": "this pod"}}
    other["spec"]["hostname"] = "app-1"
    assert one["spec"] != other["spec"]
    assert agent.entries_of(one, {})[1] == agent.entries_of(other, {})[1]
    other["spec"]["hostPID"] = True
    assert agent.entries_of(one, {})[1] != agent.entries_of(other, {})[1]


def test_the_server_leaves_out_the_same_as_the_agent(agent: ModuleType) -> None:
    spec = cluster_api.pod(0)["spec"]
    assert skeleton(spec) == agent.skeleton(spec)
    assert skeleton(spec)["volumes"][0]["name"] == "kube-api-access"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_report_is_joined_from_what_is_json_already(agent: ModuleType, count: int) -> None:
    entries = [{"key": f"{number}", "name": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"} for number in range(count)]
    specs = {f"{number:064}": {"hostPID": True} for number in range(count)}
    packed = agent.packed(
        {"schema": "s"}, [agent.json_of(entry) for entry in entries],
        {sha: agent.json_of(spec) for sha, spec in specs.items()},
    )  # fmt: skip
    assert json.loads(gzip.decompress(packed)) == {"schema": "s", "containers": entries, "specs": specs}
