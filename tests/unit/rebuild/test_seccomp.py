"""The profile of system calls keeps what programs need, and has none of the calls that reach past a namespace."""

from __future__ import annotations

import json

import pytest

from lifecycle.rebuild.builders import seccomp

pytestmark = pytest.mark.skipif(not seccomp.DEFAULT.exists(), reason="buildah's default profile is not installed")


def rules_for(document, name):
    return [rule for rule in document["syscalls"] if name in rule["names"]]


@pytest.mark.parametrize(
    "name", ["unshare", "setns", "mount", "keyctl", "bpf", "open_by_handle_at", "ptrace", "clone3"]
)
def test_denied_call_is_allowed_by_no_rule(name):
    default = json.loads(seccomp.DEFAULT.read_text())
    assert any(rule["action"] == "SCMP_ACT_ALLOW" for rule in rules_for(default, name))
    assert {rule["action"] for rule in rules_for(seccomp.profile(), name)} == {"SCMP_ACT_ERRNO"}


@pytest.mark.parametrize("name", ["read", "openat", "execve", "fork", "connect", "chroot", "setuid", "fchownat"])
def test_call_that_programs_need_is_still_allowed(name):
    default = json.loads(seccomp.DEFAULT.read_text())
    before, after = ([rule | {"names": []} for rule in rules_for(profile, name)] for profile in
                     (default, seccomp.profile()))  # fmt: skip
    assert after == before != []


def test_sockets_are_only_of_families_with_a_namespace():
    rules = rules_for(seccomp.profile(), "socket")
    allowed = [rule["args"][0]["value"] for rule in rules if rule["action"] == "SCMP_ACT_ALLOW"]
    assert allowed == [1, 2, 10, 16]  # not 40, vsock
    assert all(rule["args"] for rule in rules)
