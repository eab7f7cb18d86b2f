"""The checks of files end to end: scanned with syft, stored once per layer, judged by policies, shown everywhere."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time

import httpx
import pytest
from django.test import Client

from accounts import tokens
from accounts.queries import system_user
from lifecycle.cli import client as cli_client
from lifecycle.cli.main import main
from lifecycle.core import clock
from lifecycle.core.types import Digest
from lifecycle.evidence.contents import contents_of
from lifecycle.evidence.verdicts import judge
from lifecycle.jobs import running
from lifecycle.jobs import services as jobs
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.models import Job
from lifecycle.oci.constants import MediaType
from lifecycle.oci.types import ManifestContent
from lifecycle.policies.types import Scope
from lifecycle.policy.rulesets import Point
from lifecycle.quarantine import services as quarantines
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Registry
from lifecycle.sbom import services
from lifecycle.sbom.clamd import Clamd, FileTooLarge, ScannerUnavailable
from lifecycle.sbom.contents import ContentReader, Contents, Found, LayerContents
from lifecycle.sbom.layers import package_records
from lifecycle.sbom.models import ContentCheck, ContentSet, ImageContentSet
from tests.clients import to_application
from tests.factories import dock as rows
from tests.factories import oci
from tests.factories.policies import ENFORCE, rule, save, waiver
from tests.integration.sbom.test_scan import known

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
KEY = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ\n" * 3
MARKER = b"gravingdock-test-signature-of-no-malware"


def layer(*files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path, content, mode in files:
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def image_of(*layers):
    packed = [gzip.compress(raw, mtime=0) for raw in layers]
    diff_ids = [oci.sha(raw) for raw in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config_bytes = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "config": {
            "mediaType": MediaType.OCI_CONFIG.value, "digest": oci.sha(config_bytes), "size": len(config_bytes)
        },
        "layers": [{"mediaType": oci.GZIP_LAYER, "digest": oci.sha(p), "size": len(p)} for p in packed],
    }  # fmt: skip
    content = json.dumps(manifest).encode()
    blobs = {oci.sha(p): p for p in packed} | {oci.sha(config_bytes): config_bytes}
    return oci.OciImage(
        ManifestContent(Digest.of(content), MediaType.OCI_MANIFEST.value, content), config, blobs, diff_ids
    )


BASE = layer(
    ("etc/os-release", b'ID=debian\nVERSION_ID="12"\n', 0o644),
    ("usr/bin/su", b"\x7fELF" + b"\0" * 60, 0o4755),
    (
        "var/lib/dpkg/status",
        b"Package: login\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n",
        0o644,
    ),
    ("var/lib/dpkg/info/login.list", b"/bin/su\n", 0o644),
    ("var/lib/dpkg/info/login.md5sums", b"d41d8cd98f00b204e9800998ecf8427e  bin/su\n", 0o644),
)


@pytest.fixture
def place(services, transactional_db, settings):
    services.need_registry()
    settings.REGISTRY_URL = services.registry.url
    Registry.objects.create(name="managed", endpoint=services.registry.url, is_managed=True)
    return rows.repository("shop/scanned")


def scan(image, **payload):
    job = jobs.queue(kind_called("scan"), subject_id=image.pk, actor=system_user(), max_attempts=1, payload=payload)
    running.run(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.SUCCEEDED, job.last_error
    return contents_of([image.pk])[image.pk]


def pushed(place, item, tag):
    oci.push(client_for(place.registry), place.name, item, tag)
    return known(place, item)


def test_scan_checks_the_files_and_images_share_what_a_layer_has(place, settings):
    settings.CLAMD = ""
    one = pushed(place, image_of(BASE, layer(("app/key.pem", KEY.encode(), 0o600))), "1")
    two = pushed(place, image_of(BASE, layer(("app/.wh.key.pem", b"", 0o600), ("app/run", b"#!/bin/sh\n", 0o755))), "2")
    found = scan(one)
    assert [(item.kind, item.path, item.layer) for item in found.found] == [
        ("private_key", "app/key.pem", 1),
        ("setuid", "usr/bin/su", 0),
    ]
    assert (found.problem, found.malware) == ("", "off")
    assert [(item.kind, item.layer) for item in scan(two).found] == [("setuid", 0), ("unowned", 1)]
    assert (ContentSet.objects.count(), ImageContentSet.objects.count()) == (3, 4)  # the base's set is there once
    assert ContentCheck.objects.get(image=one).rules_version >= 1
    assert scan(one, again=True).found == found.found
    assert ImageContentSet.objects.filter(image=one).count() == 2


class Address:
    """The address of a started clamd."""

    def __init__(self, folder, binary, *extra):
        database = folder / "db"
        database.mkdir()
        (database / "test.ndb").write_text(f"Gravingdock.Test:0:*:{MARKER.hex()}\n")
        self.text = f"unix:{folder}/clamd.sock"
        configuration = folder / "clamd.conf"
        lines = [f"DatabaseDirectory {database}", f"LocalSocket {folder}/clamd.sock", "Foreground yes", *extra]
        configuration.write_text("\n".join(lines) + "\n")
        self.process = subprocess.Popen([binary, f"--config-file={configuration}"], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                Clamd(self.text).version()
                return
            except ScannerUnavailable:
                time.sleep(0.2)
        raise AssertionError("clamd did not start")


@pytest.fixture
def clamd(tmp_path):
    """A real clamd, whose only signature is ours."""
    binary = shutil.which("clamd")
    if binary is None:
        pytest.skip("clamd is not installed (Debian: clamav-daemon)")
    address = Address(tmp_path, binary, "StreamMaxLength 1M")
    yield Clamd(address.text)
    address.process.terminate()
    address.process.wait(timeout=20)


def checked(tmp_path, clamd, *files):
    path = tmp_path / "layer"
    path.write_bytes(layer(*files))
    reader = ContentReader(clamd=clamd)
    reader.own({"usr/bin/owned"})
    package_records([path], (), reader)
    return reader.result()


def test_real_scanner_finds_its_signature_also_in_files_of_packages(tmp_path, clamd):
    clean = checked(tmp_path, clamd, ("x", b"harmless", 0o644), ("empty", b"", 0o644))
    assert (clean.malware, clean.malware_problem, clean.layers) == ("clean", "", {})
    assert clean.engine.startswith("ClamAV")
    bad = checked(tmp_path, clamd, ("usr/bin/owned", b"a" * 70_000 + MARKER, 0o644))
    assert bad.malware == "found"
    assert bad.layers[0].found == (Found("malware", "usr/bin/owned", "Gravingdock.Test.UNOFFICIAL"),)


def test_file_that_the_scanner_does_not_take_leaves_malware_unknown(tmp_path, clamd):
    with pytest.raises(FileTooLarge):
        clamd.infection_of(io.BytesIO(b"x" * 3 * 1024 * 1024))
    result = checked(tmp_path, clamd, ("big", b"x" * 3 * 1024 * 1024, 0o644))
    assert (result.malware, "larger than the malware scanner takes" in result.malware_problem) == ("unknown", True)
    assert result.problem == ""


def test_scanner_that_is_away_leaves_malware_unknown(tmp_path):
    result = checked(tmp_path, Clamd(f"unix:{tmp_path}/nothing.sock"), ("x", MARKER, 0o644))
    assert (result.malware, "does not answer" in result.malware_problem) == ("unknown", True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ScannerUnavailable):
        Clamd(f"tcp://127.0.0.1:{port}").version()


def store(image, *found, problem="", malware="off", layer=0):
    """Store what a check found in one layer."""
    counts = {kind: sum(item.kind == kind for item in found) for kind in {item.kind for item in found}}
    layers = {layer: LayerContents(tuple(found), counts)} if found else {}
    services.store_contents(image.pk, Contents(layers, problem=problem, malware=malware))


def status(dock, kind, key="r", **parameters):
    save(Scope(dock.team, dock.staging), rule(key, kind, modes=ENFORCE, **parameters), actor=dock.owner)
    verdict = judge(dock.image, dock.repository, dock.staging, (Point.REQUEST,))
    return verdict.judged[0].outcome.status.value, verdict.is_allowed


SU = Found("setuid", "usr/bin/su")
SECRET = Found("private_key", "app/key.pem", "private-key")


@pytest.mark.parametrize(
    ("kind", "found", "more", "expected"),
    [
        ("secrets", [SECRET], {}, "unsatisfied"),
        ("secrets", [SU], {}, "satisfied"),
        ("secrets", [], {"problem": "Layer 2 cannot be read."}, "error"),
        ("secrets", [SECRET], {"problem": "Layer 2 cannot be read."}, "unsatisfied"),
        ("setuid", [SU], {}, "unsatisfied"),
        ("setuid", [SECRET], {}, "satisfied"),
        ("file_modes", [Found("device", "dev/x")], {}, "unsatisfied"),
        ("file_modes", [Found("world_writable", "x")], {}, "unsatisfied"),
        ("unowned", [Found("unowned", "app/run")], {}, "unsatisfied"),
        ("malware", [], {"malware": "clean"}, "satisfied"),
        ("malware", [], {"malware": "off"}, "error"),
        ("malware", [], {"malware": "unknown"}, "error"),
        ("malware", [Found("malware", "x", "Eicar")], {"malware": "found"}, "unsatisfied"),
    ],
)
def test_rules_judge_what_was_found_and_unknown_never_passes(dock, kind, found, more, expected):
    store(dock.image, *found, **more)
    assert status(dock, kind) == (expected, expected == "satisfied")


@pytest.mark.parametrize("kind", ["secrets", "setuid", "file_modes", "malware", "unowned"])
def test_image_that_was_not_checked_passes_no_rule(dock, kind):
    assert status(dock, kind) == ("error", False)


def test_accepted_paths_and_waivers_open_a_rule(dock):
    store(dock.image, SU, Found("setuid", "usr/bin/sudo"))
    assert status(dock, "setuid", **{"except": ["/usr/bin/*"]}) == ("satisfied", True)
    assert status(dock, "setuid", **{"except": ["/usr/bin/su"]}) == ("unsatisfied", False)
    waiver(dock.team, "r", by=dock.owner, approver=dock.approver, environment=dock.staging, advisory="/usr/bin/sudo")
    assert status(dock, "setuid", **{"except": ["/usr/bin/su"]}) == ("waived", True)


def test_cut_list_is_not_compared_as_if_it_were_whole(dock):
    services.store_contents(dock.image.pk, Contents({0: LayerContents((SU,), {"setuid": 5})}))
    assert status(dock, "setuid", **{"except": ["/usr/bin/su"]}) == ("error", False)


def test_index_is_judged_by_all_its_platforms(dock):
    other = rows.image("other", architecture="arm64")
    index = rows.index("index", dock.image, other)
    rows.push(dock.repository, index, "all")
    dock.image = index
    store(rows.Image.objects.get(digest="sha256:" + "a" * 64))
    assert status(dock, "setuid") == ("error", False)
    store(other, SU)
    assert status(dock, "setuid") == ("unsatisfied", False)


def test_expressions_and_the_quarantine_rule_read_the_same_facts(dock):
    store(dock.image, SU)
    assert status(dock, "cel", "r1", expression="files.all(x, x.kind != 'private_key')") == ("satisfied", True)
    assert status(dock, "cel", "r2", expression="!files.exists(x, x.path == '/usr/bin/su')") == ("unsatisfied", False)
    assert status(dock, "quarantine", "r3") == ("satisfied", True)
    quarantines.quarantine(dock.image.digest, actor=dock.owner, reason="bad")
    assert status(dock, "quarantine", "r4") == ("unsatisfied", False)
    assert status(dock, "cel", "r5", expression="size(quarantines) == 0") == ("unsatisfied", False)


def test_api_page_and_command_show_the_layer_at_fault(dock, tmp_path, monkeypatch, capsys):
    base = rows.image("debian", layers=1)
    rows.push(dock.repository, base, "base")
    app = rows.image("app", layers=2, under=base)
    rows.push(dock.repository, app, "app")
    rows.derive(base, app)
    Image.objects.filter(pk=app.pk).update(scanned_at=clock.now())
    services.store_contents(
        app.pk,
        Contents({0: LayerContents((SU,), {"setuid": 1}), 1: LayerContents((SECRET,), {"private_key": 1})}),
    )
    client = Client()
    client.force_login(dock.requester, backend=BACKEND)
    (platform,) = client.get(f"/api/v1/images/{app.digest}/contents/").json()["results"]
    assert platform["counts"] == {"private_key": 1, "setuid": 1}
    assert platform["found"][0] == {"kind": "private_key", "path": "/app/key.pem", "detail": "private-key", "layer": 1}
    page = client.get(f"/t/shop/r/shop/api/i/{app.digest}/?tab=files").content.decode()
    assert "in base shop/api" in page
    assert "shop/api, own layer" in page
    assert "No malware scanner is set up" in page
    unchecked = client.get(f"/t/shop/r/shop/api/i/{base.digest}/?tab=files").content.decode()
    assert "were not checked yet" in unchecked
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    token = tokens.create_token(dock.requester, kind="pat", name="cli")[1]
    cli_client.save_login(cli_client.Login("http://localhost", token))
    assert main(["image", "contents", app.digest], transport=httpx.MockTransport(to_application)) == 0
    assert "/app/key.pem" in capsys.readouterr().out
    assert main(["image", "contents", base.digest, "--json"], transport=httpx.MockTransport(to_application)) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["checked_at"] is None
