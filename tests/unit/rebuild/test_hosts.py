"""The hosts that builds can reach come from this machine's own settings, read each time, and from BUILD_HOSTS."""

from __future__ import annotations

import pytest

from lifecycle.rebuild.builders import hosts


@pytest.fixture
def machine(monkeypatch, settings, tmp_path):
    """A machine with mirrors of its own. The result maps the start of a command to its output."""
    mirrors = tmp_path / "mirrors"
    mirrors.write_text("http://apt-three.example/debian\tpriority:1\n")
    sources = [("http://apt-one.example/debian", "bookworm"), ("mirror+http://apt-two.example:8080/list", "bookworm"),
               (f"mirror+file:{mirrors}", "bookworm"), ("cdrom:[disc]/", "bookworm")]  # fmt: skip
    outputs = {
        "pip": "global.index-url='https://user:secret@pip.example/simple'\n:env:.extra-index-url='https://extra.example'\n",
        "npm": "https://npm.example/\n",
        "go": "https://go.example|https://second.example,direct\nsum.example+abc https://sums.example\n",
        "default": "https://index.example https://files.example\n",
    }

    def output(command):
        name = "pip" if "pip" in command else "default" if "-c" in command else command[0]
        return outputs[name]

    monkeypatch.setattr(hosts.settings_files, "sources", lambda folder: sources)
    monkeypatch.setattr(hosts, "_output", output)
    monkeypatch.setattr(hosts.shutil, "which", lambda name: f"/usr/bin/{name}")
    settings.BUILD_HOSTS = []
    return outputs


def web(*names):
    return {(name, port) for name in names for port in (80, 443)}


def test_list_has_the_hosts_of_all_four_and_no_other(machine):
    assert hosts.allowed() == {("apt-two.example", 8080)} | web(
        "apt-one.example", "apt-three.example", "pip.example", "extra.example", "npm.example", "go.example",
        "second.example", "sums.example",
    )  # fmt: skip


def test_defaults_of_pip_and_go_count_when_no_setting_replaces_them(machine):
    machine["pip"], machine["go"] = "global.timeout='3'\n", "https://go.example,direct\nsum.example\n"
    assert web("index.example", "files.example", "sum.example") <= hosts.allowed()
    machine["go"] = "https://go.example,direct\noff\n"
    assert not web("sum.example") & hosts.allowed()


def test_setting_adds_hosts_with_and_without_a_port(machine, settings):
    before = hosts.allowed()
    settings.BUILD_HOSTS = ["Git.example", "artifacts.example:8443", "[::1", "bad:port"]
    assert hosts.allowed() - before == {("artifacts.example", 8443), *web("git.example")}


def test_own_servers_are_on_the_list_that_nothing_opens(settings, monkeypatch):
    settings.REGISTRY_URL, settings.REDIS_URL = "http://localhost:5470", "redis://:secret@redis.example:6400/0"
    monkeypatch.setitem(settings.DATABASES["default"], "HOST", "/run/pg")
    monkeypatch.setitem(settings.DATABASES["default"], "PORT", "5471")
    never = hosts.never()
    assert {("localhost", 5470), ("127.0.0.1", 5470), ("::1", 5470), ("127.0.0.1", 5471)} <= never
    assert ("redis.example", 6400) in never
