"""The agent for Kubernetes reports nothing while it is blind. The package `kubernetes` is not needed for that."""

from __future__ import annotations

import importlib.util
import queue
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

AGENT = Path(__file__).parents[3] / "deploy" / "agent" / "agent.py"


class Stopped(Exception):
    pass


@pytest.fixture
def agent(monkeypatch):
    stand_in = ModuleType("kubernetes")
    stand_in.client, stand_in.config = ModuleType("client"), ModuleType("config")
    monkeypatch.setitem(sys.modules, "kubernetes", stand_in)
    spec = importlib.util.spec_from_file_location("agent_under_test", AGENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Sender:
    def __init__(self):
        self.kinds = []

    def send(self, kind, *_):
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
