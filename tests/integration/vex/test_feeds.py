"""VEX feeds, read from a real web server: lists, changes, signatures, limits, trust and failures."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, NotPermitted, StaleVersion
from lifecycle.evidence.risk import refresh_risk
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image
from lifecycle.vex import documents, feeds, handlers
from lifecycle.vex.constants import DOCUMENT_MAX_BYTES
from lifecycle.vex.models import VexDocument, VexEffect, VexFeed, VexFeedFile
from tests.clients import Caller, browser
from tests.factories import dock
from tests.factories.people import person
from tests.factories.vexing import openvex, said

pytestmark = pytest.mark.django_db
CVE = "CVE-2024-5535"
OPENSSL = "pkg:deb/debian/openssl"
LIBSSL = "pkg:deb/debian/libssl3"


class Vendor(BaseHTTPRequestHandler):
    """A web server that knows ETag and If-None-Match; it writes down what it was asked."""

    files: dict[str, bytes]
    statuses: dict[str, int]
    asked: list[tuple[str, int]]

    def do_GET(self) -> None:
        body = self.files.get(self.path)
        status = self.statuses.get(self.path, 404 if body is None else 200)
        tag = f'"{hashlib.sha256(body or b"").hexdigest()[:16]}"'
        if status == 200 and self.headers.get("If-None-Match") == tag:
            status = 304
        self.asked.append((self.path, status))
        body = body if status == 200 and body is not None else b""
        self.send_response(status)
        self.send_header("ETag", tag)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def vendor(settings: Any) -> Iterator[Any]:
    own = type("Own", (Vendor,), {"files": {}, "statuses": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), own)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    settings.OUTBOUND_ALLOW = [f"127.0.0.1:{server.server_port}"]
    own.address = f"http://127.0.0.1:{server.server_port}"
    yield own
    server.shutdown()
    server.server_close()


@pytest.fixture
def fleet(db: None) -> dict[str, Any]:
    made = dock.harbour()
    refresh_risk(list(Image.objects.filter(scanned_at__isnull=False).values_list("pk", flat=True)))
    shop, base = dock.team("shop"), dock.team("base")
    return made | {
        "shop": shop, "guard": person("guard", shop, "security"), "approver": person("approver", shop, "approver"),
        "stranger": person("stranger", base, "approver"),
    }  # fmt: skip


def add(fleet: dict[str, Any], location: str, **more: Any) -> VexFeed:
    values = {"name": "vendor", "team": fleet["shop"], "actor": fleet["guard"], "location": location} | more
    return feeds.add_feed(**values)


def run(feed: VexFeed) -> Job:
    """Run the oldest waiting job of the feed, and read the feed again."""
    job = Job.objects.filter(kind="sync_vex", subject_id=feed.pk, state="waiting").earliest("pk")
    running.run(job.pk)
    job.refresh_from_db()
    feed.refresh_from_db()
    return job


def again(feed: VexFeed, fleet: dict[str, Any], **more: Any) -> Job:
    feeds.sync_now(feed.pk, actor=fleet["guard"], **more)
    return run(feed)


def closed(image: Image) -> list[str]:
    image.refresh_from_db()
    rows = VexEffect.objects.filter(image=image, suppresses=True)
    return sorted(set(rows.values_list("vulnerability", flat=True)))


def states() -> list[str]:
    return list(VexDocument.objects.order_by("pk").values_list("state", flat=True))


def test_feed_is_advice_until_a_second_person_trusts_it_and_then_follows_its_address(vendor, fleet):
    api, critical = fleet["api"], fleet["api"].critical_count
    vendor.files["/vex.json"] = openvex(said(CVE, LIBSSL))
    feed = add(fleet, f"{vendor.address}/vex.json")
    assert (feed.state, run(feed).state, feed.state, feed.result["stored"]) == ("new", "succeeded", "current", 1)
    assert (states(), closed(api), api.critical_count) == (["advice"], [], critical)
    with pytest.raises(NotPermitted, match="Someone else"):
        feeds.trust(feed.pk, actor=fleet["guard"])
    with pytest.raises(NotFound):
        feeds.trust(feed.pk, actor=fleet["stranger"])
    feeds.trust(feed.pk, actor=fleet["approver"])
    assert (states(), closed(api), api.critical_count) == (["applied"], [CVE], critical - 1)
    with pytest.raises(IllegalTransition):
        feeds.trust(feed.pk, actor=fleet["approver"])
    # Unchanged: the server says so, and nothing is stored or told.
    again(feed, fleet)
    assert (vendor.asked[-1], feed.result["unchanged"], len(states())) == (("/vex.json", 304), 1, 1)
    # The vendor withdraws the statement with a new version of the document: the finding is open again.
    vendor.files["/vex.json"] = openvex(said("CVE-2000-1", LIBSSL), version=2)
    again(feed, fleet)
    assert (states(), closed(api), api.critical_count) == (["replaced", "applied"], [], critical)
    vendor.files["/vex.json"] = openvex(said(CVE, LIBSSL), version=3)
    again(feed, fleet)
    assert closed(api) == [CVE]
    # Gone for good: what it said is undone.
    vendor.statuses["/vex.json"] = 410
    again(feed, fleet)
    assert (states()[-1], closed(api), feed.problem, feed.result["withdrawn"]) == ("withdrawn", [], "", 1)
    actions = AuditEvent.objects.filter(action__startswith="vex.feed").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["vex.feed_added", "vex.feed_synced", "vex.feed_trusted", *["vex.feed_synced"] * 3]


def test_end_of_trust_and_removal_undo_what_it_said(vendor, fleet):
    api = fleet["api"]
    vendor.files["/vex.json"] = openvex(said(CVE, LIBSSL))
    feed = add(fleet, f"{vendor.address}/vex.json")
    feeds.trust(feed.pk, actor=fleet["approver"])
    run(feed)
    assert (closed(api), states()) == ([CVE], ["applied"])
    with pytest.raises(NotFound):
        feeds.distrust(feed.pk, actor=fleet["stranger"])
    feeds.distrust(feed.pk, actor=fleet["guard"])
    assert (closed(api), states()) == ([], ["advice"])
    feeds.trust(feed.pk, actor=fleet["approver"])
    assert closed(api) == [CVE]
    document = VexDocument.objects.get()
    with pytest.raises(NotPermitted, match="Trust the feed"):
        documents.accept(document.pk, actor=fleet["approver"])
    with pytest.raises(NotPermitted, match="bring it back"):
        documents.withdraw_document(document.pk, actor=fleet["approver"])
    feeds.remove_feed(feed.pk, actor=fleet["guard"])
    document.refresh_from_db()
    assert (closed(api), document.state, document.feed) == ([], "withdrawn", None)
    assert not VexFeed.objects.exists()


def test_failure_keeps_what_counts_and_says_why_with_the_last_good_time(vendor, fleet, settings):
    api = fleet["api"]
    vendor.files["/vex.json"] = openvex(said(CVE, LIBSSL))
    feed = add(fleet, f"{vendor.address}/vex.json")
    feeds.trust(feed.pk, actor=fleet["approver"])
    run(feed)
    good = feed.synced_at
    for content, words in (
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"x" * (DOCUMENT_MAX_BYTES + 1), "longer"),
    ):
        vendor.files["/vex.json"] = content
        assert again(feed, fleet).state == "succeeded"
        assert words in feed.problem
        assert (feed.state, feed.synced_at, closed(api)) == ("failed", good, [CVE])
    vendor.statuses["/vex.json"] = 404
    again(feed, fleet)
    assert ("answered 404" in feed.problem, closed(api)) == (True, [CVE])
    settings.OUTBOUND_ALLOW = []
    again(feed, fleet)
    assert ("not allowed" in feed.problem, feed.synced_at, closed(api)) == (True, good, [CVE])
    page = browser(fleet["guard"]).get(f"/vex/feeds/{feed.pk}/").content.decode()
    assert "Failed" in page


def test_folder_is_read_by_its_list_and_only_what_changed(vendor, fleet):
    api = fleet["api"]
    vendor.files |= {
        "/csaf/index.txt": b"2026/a.json\n2026/b.json\n2026/b.json.asc\n",
        "/csaf/2026/a.json": openvex(said(CVE, LIBSSL)),
        "/csaf/2026/b.json": openvex(said("CVE-2000-1", LIBSSL)),
    }
    feed = add(fleet, f"{vendor.address}/csaf/")
    feeds.trust(feed.pk, actor=fleet["approver"])
    run(feed)
    assert (feed.result["stored"], feed.problem, closed(api)) == (2, "", [CVE])
    assert [path for path, status in vendor.asked if status == 404] == ["/csaf/changes.csv"]
    # With changes.csv, unchanged files are not even asked for.
    times = {"2026/a.json": "2026-01-01T00:00:00Z", "2026/b.json": "2026-01-01T00:00:00Z"}

    def listed() -> bytes:
        return "".join(f'"{path}","{at}"\n' for path, at in times.items()).encode()

    vendor.files["/csaf/changes.csv"] = listed()
    again(feed, fleet)
    vendor.asked.clear()
    times["2026/b.json"] = "2026-01-02T00:00:00Z"
    vendor.files |= {"/csaf/changes.csv": listed(), "/csaf/2026/b.json": openvex(said("CVE-2000-2", LIBSSL))}
    again(feed, fleet)
    assert vendor.asked == [("/csaf/changes.csv", 200), ("/csaf/2026/b.json", 200)]
    # A file that leaves the list is withdrawn. One that breaks keeps what it said.
    del times["2026/a.json"]
    vendor.files["/csaf/changes.csv"] = listed()
    again(feed, fleet)
    assert (closed(api), feed.result["withdrawn"], VexFeedFile.objects.count()) == ([], 1, 1)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.json",
        "/etc/x.json",
        "https://evil.example/x.json",
        "//evil.example/x.json",
        "a/./b.json",
        "a\\b.json",
    ],
)
def test_list_cannot_name_what_is_outside_of_the_feed(vendor, fleet, path):
    vendor.files["/csaf/index.txt"] = f"good.json\n{path}\n".encode()
    feed = add(fleet, f"{vendor.address}/csaf/index.txt")
    assert run(feed).state == "failed"
    assert "not a path below the feed" in feed.problem
    assert vendor.asked == [("/csaf/index.txt", 200)]
    vendor.files |= {"/csaf/index.txt": b"good.json\n", "/csaf/good.json": openvex(said(CVE, LIBSSL))}
    again(feed, fleet)
    assert (feed.problem, feed.result["stored"]) == ("", 1)


def test_list_that_lost_most_of_its_documents_changes_nothing_until_somebody_says_so(vendor, fleet):
    names = [f"{number}.json" for number in range(20)]
    vendor.files |= {f"/v/{name}": openvex(said(CVE, LIBSSL), name=name) for name in names}
    vendor.files["/v/index.txt"] = "\n".join(names).encode()
    feed = add(fleet, f"{vendor.address}/v/")
    run(feed)
    vendor.files["/v/index.txt"] = b"0.json\n"
    assert again(feed, fleet).state == "failed"
    assert "1 of the 20 documents" in feed.problem
    assert states() == ["advice"] * 20
    again(feed, fleet, accept_smaller=True)
    assert (states().count("withdrawn"), feed.problem) == (19, "")


def test_signature_by_the_key_of_the_feed_is_needed(vendor, fleet):
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    content = vendor.files["/vex.json"] = openvex(said(CVE, LIBSSL))
    feed = add(fleet, f"{vendor.address}/vex.json", public_key=pem.decode())
    run(feed)
    assert ("signature (vex.json.sig) answered 404" in feed.problem, states()) == (True, [])
    vendor.files["/vex.json.sig"] = base64.b64encode(other.sign(content, ec.ECDSA(hashes.SHA256())))
    again(feed, fleet)
    assert ("does not match" in feed.problem, states()) == (True, [])
    vendor.files["/vex.json.sig"] = base64.b64encode(key.sign(content, ec.ECDSA(hashes.SHA256())))
    again(feed, fleet)
    assert (feed.problem, states()) == ("", ["advice"])
    with pytest.raises(Malformed, match="public key"):
        add(fleet, "https://vendor.example/x.json", name="x", public_key="no key")


def test_feed_speaks_only_for_what_it_may(vendor, fleet):
    image = f"pkg:oci/api@{fleet['api'].digest}"
    vendor.files["/vex.json"] = openvex(
        said(CVE, LIBSSL), said("CVE-2000-2", "pkg:deb/debian/libssl3-dev"), said("CVE-2000-3", image),
        said("CVE-2000-4", {"@id": image, "subcomponents": [{"@id": LIBSSL}]}),
    )  # fmt: skip
    feed = add(fleet, f"{vendor.address}/vex.json", speaks_for=[LIBSSL])
    run(feed)
    (document,) = VexDocument.objects.all()
    assert [row.vulnerability for row in document.statements.order_by("pk")] == [CVE, "CVE-2000-4"]
    assert {reason for _, reason in document.refused} == {"It is about nothing that this feed can speak for."}
    changed = feeds.change_feed(feed.pk, actor=fleet["guard"], speaks_for=["pkg:deb/debian/"])
    run(changed)
    assert VexDocument.objects.latest("pk").statement_count == 3
    for wrong in ("openssl", "pkg:deb/debian/x@1", "pkg:deb", "pkg:deb/a b"):
        with pytest.raises(Malformed, match="beginning of a package URL"):
            feeds.change_feed(feed.pk, actor=fleet["guard"], speaks_for=[wrong])


def test_other_source_must_be_trusted_again_by_somebody_else_than_who_named_it(vendor, fleet):
    api = fleet["api"]
    vendor.files |= {"/vex.json": openvex(said(CVE, LIBSSL)), "/other.json": openvex(said(CVE, LIBSSL))}
    feed = add(fleet, f"{vendor.address}/vex.json")
    feeds.trust(feed.pk, actor=fleet["approver"])
    run(feed)
    assert closed(api) == [CVE]
    with pytest.raises(StaleVersion):
        feeds.change_feed(feed.pk, actor=fleet["guard"], revision=1, every_hours=5)
    kept = feeds.change_feed(feed.pk, actor=fleet["guard"], revision=2, every_hours=5)
    assert (kept.is_trusted, kept.every_hours, closed(api)) == (True, 5, [CVE])
    owner = person("owner", fleet["shop"], "owner")
    changed = feeds.change_feed(feed.pk, actor=owner, location=f"{vendor.address}/other.json")
    run(changed)
    assert (changed.is_trusted, states(), closed(api)) == (False, ["withdrawn", "advice"], [])
    with pytest.raises(NotPermitted, match="Someone else"):
        feeds.trust(feed.pk, actor=owner)
    feeds.trust(feed.pk, actor=fleet["approver"])
    assert closed(api) == [CVE]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Upper"}, {"location": "ftp://x.example/v"}, {"location": "/srv/vex"}, {"every_hours": 0},
        {"location": "https://user:pw@x.example/v.json"}, {"location": "https://x.example/v/?a=/"},
    ],
)  # fmt: skip
def test_wrong_values_are_refused_and_right_ones_taken(fleet, changes):
    with pytest.raises(Malformed):
        add(fleet, **{"location": "https://vendor.example/v.json"} | changes)
    assert add(fleet, "https://vendor.example/v.json").pk
    with pytest.raises(Conflict):
        add(fleet, "https://vendor.example/v.json")


def test_who_may_add_feeds(fleet, django_user_model):
    reader = person("reader", fleet["shop"], "viewer")
    with pytest.raises(NotPermitted):
        add(fleet, "https://vendor.example/v.json", actor=reader)
    with pytest.raises(NotPermitted, match="Only admins"):
        add(fleet, "https://vendor.example/v.json", team=None)
    admin: User = django_user_model.objects.create_superuser("boss", password="dock-side-pass")
    assert add(fleet, "https://vendor.example/v.json", team=None, actor=admin).pk
    assert add(fleet, "https://vendor.example/v.json").pk


def test_schedule_queues_what_is_due_once(fleet):
    feed = add(fleet, "https://vendor.example/v.json", every_hours=4)
    by_hand = add(fleet, "https://vendor.example/v.json", name="by-hand", every_hours=None)
    assert (by_hand.due_at, timedelta(hours=3.5) < feed.due_at - clock.now() < timedelta(hours=4.5)) == (None, True)
    Job.objects.all().delete()
    handlers.queue_due_feeds()
    assert not Job.objects.exists()
    VexFeed.objects.filter(pk=feed.pk).update(due_at=clock.now())
    handlers.queue_due_feeds()
    handlers.queue_due_feeds()
    assert [*Job.objects.values_list("subject_id", flat=True)] == [feed.pk]


def test_pages_and_api_add_trust_run_and_remove(vendor, fleet):
    vendor.files["/vex.json"] = openvex(said(CVE, LIBSSL))
    guard, approver = browser(fleet["guard"]), browser(fleet["approver"])
    form = {"name": "vendor", "team": "shop", "location": f"{vendor.address}/vex.json", "every_hours": "6",
            "speaks_for": f"{LIBSSL}\npkg:oci/api", "public_key": ""}  # fmt: skip
    refused = guard.post("/vex/feeds/", form | {"speaks_for": "libssl3"})
    assert (refused.status_code, "libssl3" in refused.content.decode()) == (422, True)
    assert guard.post("/vex/feeds/", form).status_code == 302
    feed = VexFeed.objects.get()
    run(feed)
    assert feed.speaks_for == [LIBSSL, "pkg:oci/api"]
    page = approver.get(f"/vex/feeds/{feed.pk}/").content.decode()
    assert "no second person trusts it yet" in page
    assert approver.post(f"/vex/feeds/{feed.pk}/trust/", {"reason": "ours"}).status_code == 302
    document = VexDocument.objects.get()
    assert f"/vex/documents/{document.pk}/" in approver.get(f"/vex/feeds/{feed.pk}/").content.decode()
    assert f"/vex/feeds/{feed.pk}/" in guard.get(f"/vex/documents/{document.pk}/").content.decode()
    assert guard.post(f"/vex/feeds/{feed.pk}/", form | {"every_hours": "", "revision": "2"}).status_code == 302
    assert guard.post(f"/vex/feeds/{feed.pk}/", form | {"revision": "2"}).status_code == 422
    api = Caller(fleet["guard"])
    row = api.get(f"vex/feeds/{feed.pk}/").json()
    assert (row["trusted_by"], row["state"], row["every_hours"]) == ("approver", "current", None)
    assert api.post(f"vex/feeds/{feed.pk}/sync/", {}).status_code == 202
    assert [each["name"] for each in api.get("vex/feeds/").json()["results"]] == ["vendor"]
    assert guard.post(f"/vex/feeds/{feed.pk}/remove/").status_code == 302
    assert "No feeds." in guard.get("/vex/feeds/").content.decode()


@pytest.mark.parametrize("location", ["http://vendor.example/vex/", "http://10.0.0.7/vex.json"])
def test_feed_without_https_needs_a_key(fleet, location):
    with pytest.raises(Malformed, match="Without https"):
        add(fleet, location)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    feed = add(fleet, location, public_key=pem)
    with pytest.raises(Malformed, match="Without https"):
        feeds.change_feed(feed.pk, actor=fleet["guard"], public_key="")
    with pytest.raises(Malformed, match="Without https"):
        feeds.change_feed(add(fleet, "https://vendor.example/", name="v2").pk, actor=fleet["guard"], location=location)


def test_feed_of_before_without_https_and_key_is_not_read(fleet):
    feed = add(fleet, "https://vendor.example/vex.json")
    VexFeed.objects.filter(pk=feed.pk).update(location="http://vendor.example/vex.json")
    assert run(feed).state == "failed"
    assert "Without https" in feed.problem
