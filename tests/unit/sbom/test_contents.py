"""The check of files, over real layers: what each kind needs, whiteouts, ownership, limits, and nothing of a secret."""

from __future__ import annotations

import gzip
import io
import tarfile
import time

import pytest
import zstandard

from lifecycle.oci import layer_files
from lifecycle.sbom import contents
from lifecycle.sbom.contents import ContentReader, Found, owned_paths
from lifecycle.sbom.layers import package_records
from lifecycle.sbom.secret_rules import secret_rules

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAA\n" * 3
ELF = b"\x7fELF" + b"\0" * 60
DEVICE = {"type": tarfile.CHRTYPE}


def tar(*files):
    """Return a layer of (path, content, {field of TarInfo: value})."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, content, fields in files:
            member = tarfile.TarInfo(path)
            member.mode, member.size = 0o644, len(content)
            for name, value in fields.items():
                setattr(member, name, value)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def check(tmp_path):
    """Return a function that checks layers, and returns the contents."""

    def run(*layers, owned=(), folders=(), reader=None):
        paths = []
        for number, layer in enumerate(layers):
            path = tmp_path / f"{number}-{time.monotonic_ns()}"
            path.write_bytes(layer)
            paths.append(path)
        reader = reader or ContentReader()
        reader.own(set(owned), set(folders))
        package_records(paths, (), reader)
        return reader.result()

    return run


def kinds(result):
    return {position: [(item.kind, item.path) for item in layer.found] for position, layer in result.layers.items()}


def test_each_kind_of_file_is_found_with_its_layer(check):
    base = tar(
        ("usr/bin/su", ELF, {"mode": 0o4755}),
        ("usr/bin/wall", b"#!x", {"mode": 0o2755}),
        ("etc/open", b"x", {"mode": 0o666}),
        ("srv/drop", b"", {"mode": 0o777, "type": tarfile.DIRTYPE}),
        ("tmp", b"", {"mode": 0o1777, "type": tarfile.DIRTYPE}),
        ("dev/null", b"", DEVICE),
        ("usr/bin/ls", ELF, {"mode": 0o755}),
        ("usr/share/data", ELF, {"mode": 0o644}),
    )
    app = tar(
        ("root/.ssh/id_ed25519", KEY.encode(), {"mode": 0o600}),
        ("app/.env", b"AWS=AKIAQ3EGVQMIRS3Z5TBL\n", {}),
        ("app/run", b"#!/bin/sh\n", {"mode": 0o755}),
    )
    result = check(base, app, owned={"usr/bin/su", "usr/bin/ls", "usr/bin/wall"})
    assert kinds(result) == {
        0: [
            ("device", "dev/null"),
            ("setgid", "usr/bin/wall"),
            ("setuid", "usr/bin/su"),
            ("world_writable", "etc/open"),
            ("world_writable", "srv/drop"),
        ],
        1: [("credential", "app/.env"), ("private_key", "root/.ssh/id_ed25519"), ("unowned", "app/run")],
    }
    assert (result.problem, result.malware) == ("", "off")


@pytest.mark.parametrize("pack", [lambda raw: raw, gzip.compress, zstandard.ZstdCompressor().compress])
def test_layers_of_each_format_are_read(check, pack):
    assert kinds(check(pack(tar(("x", b"x", {"mode": 0o666}))))) == {0: [("world_writable", "x")]}


def test_nothing_of_a_secret_is_kept(check):
    result = check(tar(("id", KEY.encode(), {}), ("token", b"glpat-abcdefghijklmnopqrst", {})))
    assert result.layers[0].found == (
        Found("credential", "token", "gitlab-token"),
        Found("private_key", "id", "private-key"),
    )
    assert "b3BlbnNza" not in repr(result)
    assert "abcdefghij" not in repr(result)


@pytest.mark.parametrize(
    ("upper", "left"),
    [
        ([("opt/.wh.key", b"", {})], {}),
        ([(".wh.opt", b"", {})], {}),
        ([("opt/.wh..wh..opq", b"", {})], {}),
        ([("./opt/key", b"harmless", {})], {}),
        ([("opt", b"a file instead of the folder", {})], {}),
        ([("opt", b"", {"type": tarfile.SYMTYPE, "linkname": "srv"})], {}),
        ([("opt", b"", {"type": tarfile.DIRTYPE, "mode": 0o755})], {0: [("private_key", "opt/key")]}),
        ([("other/.wh.key", b"", {})], {0: [("private_key", "opt/key")]}),
        ([("opt/.wh.key", b"", {}), ("opt/key", KEY.encode(), {})], {1: [("private_key", "opt/key")]}),
        ([("opt/key", KEY.encode(), {}), ("opt/.wh..wh..opq", b"", {})], {1: [("private_key", "opt/key")]}),
        ([("opt/key2", KEY.encode(), {})], {0: [("private_key", "opt/key")], 1: [("private_key", "opt/key2")]}),
    ],
)
def test_upper_layer_removes_what_it_hides(check, upper, left):
    assert kinds(check(tar(("opt/key", KEY.encode(), {})), tar(*upper))) == left


def test_hard_link_has_the_problems_of_its_file(check):
    layer = tar(
        ("usr/bin/a", ELF, {"mode": 0o4755}),
        ("usr/bin/b", b"", {"type": tarfile.LNKTYPE, "linkname": "usr/bin/a", "mode": 0o4755}),
    )
    assert kinds(check(layer, owned={"usr/bin/a", "usr/bin/b"})) == {
        0: [("setuid", "usr/bin/a"), ("setuid", "usr/bin/b")]
    }


def test_owned_files_are_no_unowned_programs_and_no_secrets(check):
    layer = tar(
        ("bin/tool", ELF, {"mode": 0o755}),
        ("usr/lib/python3/dist-packages/ssl/tests/key.pem", KEY.encode(), {}),
        ("usr/lib/pkg/test-key.pem", KEY.encode(), {}),
        ("app/node_modules/x/bin/x.js", b"#!/usr/bin/env node\n", {"mode": 0o755}),
    )
    owned = {"usr/bin/tool", "usr/lib/pkg/test-key.pem"}  # /bin is a link to /usr/bin
    assert kinds(check(layer, owned=owned, folders={"app/node_modules/x"})) == {}
    assert len(check(layer).layers[0].found) == 3


def test_paths_of_packages_are_read_from_the_document():
    artifacts = [
        {
            "type": "deb",
            "metadata": {"files": [{"path": "/bin/su"}, {"path": 3}]},
            "locations": [{"path": "/x/status"}],
        },
        {"type": "python", "metadata": {"sitePackagesRootPath": "/usr/lib/p", "files": [{"path": "../../bin/flask"}]}},
        {"type": "npm", "locations": [{"path": "/app/node_modules/left/package.json"}]},
        {"type": "go-module", "locations": [{"path": "/usr/local/bin/server"}], "metadata": None},
        {"type": "gem", "metadata": {"files": ["lib/a.rb", None]}, "locations": None},
    ]
    paths, folders = owned_paths(artifacts)
    assert {"usr/bin/su", "usr/bin/flask", "usr/local/bin/server"} <= paths
    assert folders == {"app/node_modules/left"}


@pytest.mark.parametrize(
    "damage",
    [b"no tar at all" * 100, gzip.compress(tar(("x", b"y" * 9000, {})), mtime=0)[:-40]],
    ids=["no tar", "cut"],
)
def test_layer_that_cannot_be_read_leaves_the_result_incomplete(check, damage):
    result = check(tar(("key", KEY.encode(), {})), damage)
    assert kinds(result) == {0: [("private_key", "key")]}
    assert result.problem == "Layer 2 cannot be read."


def test_time_and_number_of_files_are_limited(check, monkeypatch):
    layer = tar(*((f"f{number}", b"x", {"mode": 0o666}) for number in range(5)))
    monkeypatch.setattr(contents, "TRACKED_MAX", 3)
    result = check(layer)
    assert (len(result.layers[0].found), "would have to be listed" in result.problem) == (3, True)
    monkeypatch.setattr(contents, "TIME_MAX_S", -1)
    result = check(layer)
    assert (result.layers, "took longer" in result.problem) == ({}, True)


def test_long_lists_are_cut_and_counted(check, monkeypatch):
    monkeypatch.setattr(contents, "LISTED_MAX", 2)
    layer = check(tar(*((f"f{number}", b"x", {"mode": 0o666}) for number in range(5)))).layers[0]
    assert (len(layer.found), layer.counts) == (2, {"world_writable": 5})


def test_paths_cannot_leave_the_root(check):
    layer = tar(("../../etc/./x", b"x", {"mode": 0o666}), ("/abs//y", b"x", {"mode": 0o666}))
    assert kinds(check(layer)) == {0: [("world_writable", "abs/y"), ("world_writable", "etc/x")]}


def test_package_records_are_read_beside_the_check(tmp_path):
    layer = tmp_path / "layer"
    listing = b"/.\n/usr/bin/su\n"
    layer.write_bytes(
        tar(("var/lib/dpkg/info/login.list", listing, {"mode": 0o666}), ("usr/bin/su", ELF, {"mode": 0o4755}))
    )
    reader = ContentReader()
    records = package_records([layer], {"usr/bin/su"}, reader)
    assert records.positions == {("deb", "login"): 0}
    assert records.owners == {"usr/bin/su": ("deb", "login")}
    assert ("world_writable", "var/lib/dpkg/info/login.list") in kinds(reader.result())[0]


def test_alive_is_called_and_can_stop(check):
    def stop():
        raise RuntimeError("lease lost")

    with pytest.raises(RuntimeError, match="lease lost"):
        check(tar(("x", b"x", {})), reader=ContentReader(alive=stop))


SECRETS = {
    "private-key": [("k.pem", KEY), ("k", KEY.replace("OPENSSH ", "RSA ")), ("sa.json", KEY.replace("\n", "\\n"))],
    "aws-access-key": [("x", "key=AKIAQ3EGVQMIRS3Z5TBL")],
    "azure-storage-key": [("x", "AccountKey=" + "a" * 86 + "==")],
    "docker-auth": [("root/.docker/config.json", '{"auths": {"h": {"auth": "dXNlcjpwYXNzd29yZA=="}}}')],
    "git-credentials": [("root/.git-credentials", "https://kim:s3cret@example.com")],
    "github-token": [("x", "ghp_" + "a" * 36), ("x", "github_pat_" + "a" * 82)],
    "gitlab-token": [("x", "glpat-" + "a" * 20)],
    "google-api-key": [("x", "AIza" + "a" * 35)],
    "kubeconfig": [("root/.kube/config", "client-key-data: " + "A" * 44)],
    "netrc": [("root/.netrc", "machine h login kim password hunter2")],
    "npm-token": [("root/.npmrc", "//registry/:_authToken=" + "a" * 36), ("x", "npm_" + "a" * 36)],
    "password-hash": [("etc/shadow", "root:$6$salt$" + "a" * 80 + ":1::::::")],
    "pgpass": [("root/.pgpass", "db:5432:shop:kim:hunter2")],
    "pypi-token": [("x", "pypi-AgEI" + "a" * 60)],
    "slack-token": [("x", "xoxb-" + "1" * 24), ("x", "https://hooks.slack.com/services/T0/B0/" + "a" * 24)],
    "stripe-key": [("x", "sk_live_" + "a" * 24)],
    "key-store": [("app/server.p12", "x")],
}
HARMLESS = [
    ("x", "if line == '-----BEGIN PRIVATE KEY-----': load()"),
    ("x", "-----BEGIN CERTIFICATE-----\n" + "A" * 64),
    ("x", "key=AKIAIOSFODNN7EXAMPLE"),
    ("etc/shadow", "root:*:19000:0:99999:7:::\nkim:!:1::::::"),
    ("x", '{"auth": "dXNlcjpwYXNzd29yZA=="}'),
    ("usr/share/doc/openssl/key.pem", KEY),
    ("x.bin", "\0" + KEY),
]


def test_every_rule_has_an_example():
    assert {rule.id for rule in secret_rules().rules} == set(SECRETS)


@pytest.mark.parametrize(("rule", "path", "text"), [(rule, *case) for rule, cases in SECRETS.items() for case in cases])
def test_rule_finds_its_example(rule, path, text):
    assert rule in {found.id for found in secret_rules().found_in(path, text.encode())}


@pytest.mark.parametrize(("path", "text"), HARMLESS)
def test_harmless_file_breaks_no_rule(check, path, text):
    assert kinds(check(tar((path, text.encode(), {})))) == {}


def test_budget_of_the_layers_holds_for_the_check_too(check, monkeypatch):
    monkeypatch.setattr("lifecycle.sbom.layers.MEMBERS_MAX", 2)
    with pytest.raises(layer_files.LimitExceeded):
        check(tar(*((f"f{number}", b"", {}) for number in range(5))))
