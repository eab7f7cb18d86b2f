"""The pages and the API of trusted sources and signatures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.test import Client
from django.urls import reverse

from accounts import tokens
from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.cli import client
from lifecycle.cli.main import main
from lifecycle.core import clock
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image
from lifecycle.trust.models import Signature, SigningKey, TrustCheck, TrustedSource
from tests.clients import Caller
from tests.factories import dock, oci
from tests.factories.signatures import new_key, pem_of
from tests.factories.trusting import key_signer, source

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def place() -> SimpleNamespace:
    """shop/api on hub/debian, a security person of shop, and an admin."""
    api, debian = dock.image("api"), dock.image("debian")
    where = dock.repository("shop/api")
    dock.push(where, api, "1")
    dock.push(dock.repository("hub/debian"), debian, "13")
    dock.derive(debian, api)
    admin = User.objects.create_superuser("admin", password="dock-side-pass")
    guard = dock.user("guard", "security", of=where.team)
    clients = {}
    for user in (admin, guard):
        clients[user.username] = Client()
        clients[user.username].force_login(user, backend=BACKEND)
    return SimpleNamespace(api=api, where=where, admin=admin, guard=guard, clients=clients)


def sign(image: Image, place: SimpleNamespace, **fields: Any) -> Signature:
    given: dict[str, Any] = {"format": "bundle", "state": "verified", "checked_at": clock.now()} | fields
    number = Signature.objects.count()
    return Signature.objects.create(
        image=image, repository=place.where, manifest_digest=oci.sha(b"%d" % number),
        object_digest=oci.sha(b"o%d" % number), **given,
    )  # fmt: skip


def test_the_image_page_says_who_signed_and_what_was_refused(place: SimpleNamespace) -> None:
    trusted = source(place.admin, "releases", "localhost:5000/other/*", signers=[key_signer(new_key())])
    row = sign(place.api, place, key_fingerprint=oci.sha(b"key"))
    row.signers.set(trusted.signers.all())
    sign(place.api, place, state="refused", reason="The signature is about another image.")
    sign(place.api, place, state="unsigned", format="buildkit", predicate_type="https://slsa.dev/provenance/v1")
    TrustCheck.objects.create(image=place.api, is_due=False, checked_at=clock.now())
    url = reverse("lifecycle:image", args=["shop", "shop/api", place.api.digest]) + "?tab=signatures"
    page = place.clients["guard"].get(url).content.decode()
    assert "trusted by releases" in page
    assert "The signature is about another image." in page
    assert "Unsigned" in page
    assert "Untrusted base" in page
    assert "A base you cannot see" in page  # hub/debian belongs to another team
    trusted.signers.all().delete()
    assert "Signer not trusted" in place.clients["guard"].get(url).content.decode()


def test_verify_again_queues_a_check(place: SimpleNamespace) -> None:
    url = reverse("lifecycle:check-signatures", args=["shop", "shop/api", place.api.digest])
    assert place.clients["guard"].post(url).status_code == 302
    assert Job.objects.filter(kind="verify", subject_id=place.api.pk).count() == 1


def test_a_source_is_made_changed_and_retired_in_the_browser(place: SimpleNamespace) -> None:
    guard, first, second = place.clients["guard"], new_key(), new_key()
    form = {
        "name": "hub", "places": "quay.io/hub/*\nquay.io/x/*", "scope": "teams", "teams": "shop",
        "needs_signature": "on", "kind": "key", "signer_name": "release", "pem": pem_of(first),
    }  # fmt: skip
    wrong = guard.post(reverse("lifecycle:new-trusted-source"), form | {"pem": "x"})
    assert wrong.status_code == 422
    assert "PEM form" in wrong.content.decode()
    assert guard.post(reverse("lifecycle:new-trusted-source"), form).status_code == 302
    made = TrustedSource.objects.get(name="hub")
    assert made.places == ["quay.io/hub/*", "quay.io/x/*"]
    signer = made.signers.get()
    page = guard.get(reverse("lifecycle:trusted-source", args=[made.pk])).content.decode()
    assert signer.fingerprint in page
    change = form | {"keep": [str(signer.pk)], "pem": pem_of(second), "signer_name": "next", "revision": "1"}
    assert guard.post(reverse("lifecycle:trusted-source", args=[made.pk]), change).status_code == 302
    assert [each.name for each in made.signers.order_by("id")] == ["release", "next"]
    stale = guard.post(reverse("lifecycle:trusted-source", args=[made.pk]), change | {"kind": ""})
    assert stale.status_code == 422
    assert "meanwhile" in stale.content.decode()
    assert guard.post(reverse("lifecycle:retire-trusted-source", args=[made.pk])).status_code == 302
    assert "retired" in guard.get(reverse("lifecycle:trusted-sources")).content.decode()


def test_the_list_counts_images_on_untrusted_bases(place: SimpleNamespace) -> None:
    url = reverse("lifecycle:trusted-sources")
    assert "untrusted bases" not in place.clients["guard"].get(url).content.decode()
    source(place.admin, "elsewhere", "docker.io/library/*")
    assert "1 image on untrusted bases." in place.clients["guard"].get(url).content.decode()


def test_the_lineage_marks_images_on_untrusted_bases(place: SimpleNamespace) -> None:
    url = reverse("lifecycle:lineage-image", args=[place.api.digest])
    dock.user("guard", "viewer", of=dock.team("hub"))
    reader = place.clients["guard"]
    assert "untrusted base" not in reader.get(url).content.decode()  # no source says what is trusted
    source(place.admin, "elsewhere", "docker.io/library/*")
    page = reader.get(url).content.decode()
    assert "1 image here stands on an untrusted base." in " ".join(page.split())
    assert page.count('<span class="sub warn">untrusted base</span>') == 1  # the base itself has none
    assert 'class="node focus untrusted"' in page
    source(place.admin, "hub", "*/hub/*")
    assert "untrusted base" not in reader.get(url).content.decode()


def test_the_api_makes_changes_and_reads(place: SimpleNamespace) -> None:
    _, secret = tokens.create_token(place.guard, kind="pat", name="laptop")
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    body = {"name": "hub", "places": ["quay.io/hub/*"], "teams": ["shop"], "signers": [key_signer(new_key())]}
    made = client.post("/api/v1/trusted-sources/", body, content_type="application/json")
    assert made.status_code == 201, made.content
    shown = made.json()
    same = {key: shown[key] for key in ("name", "places", "teams", "needs_signature", "signers", "revision")}
    for signer in same["signers"]:
        del signer["fingerprint"]
    url = f"/api/v1/trusted-sources/{shown['id']}/"
    assert client.put(url, same, content_type="application/json").json()["revision"] == 2
    assert client.put(url, same, content_type="application/json").status_code == 412
    assert client.delete(url).status_code == 204
    row = sign(place.api, place, state="refused", reason="why")
    answer = client.get(f"/api/v1/images/{place.api.digest}/signatures/").json()
    assert answer["is_known"] is False
    assert [(each["digest"], each["state"], each["reason"]) for each in answer["signatures"]] == [
        (row.object_digest, "refused", "why")
    ]
    assert client.post(f"/api/v1/images/{place.api.digest}/signatures/").status_code == 202


def test_the_command_line_says_whether_a_trusted_signer_signed(
    place: SimpleNamespace, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    _, secret = tokens.create_token(place.guard, kind="pat", name="laptop")
    client.save_login(client.Login("http://localhost", secret))

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"Authorization": request.headers["Authorization"]}
        found = Client().get(request.url.raw_path.decode(), headers=headers)
        return httpx.Response(found.status_code, headers=dict(found.headers), content=found.content)

    def verify() -> tuple[int, str, str]:
        code = main(["verify", place.api.digest], transport=httpx.MockTransport(answer))
        return code, *capsys.readouterr()

    assert verify()[0::2] == (1, "Unknown: The signatures were not read yet.\n")
    TrustCheck.objects.create(image=place.api, is_due=False, checked_at=clock.now())
    assert verify() == (1, "", "No trusted signer has signed this image.\n")
    trusted = source(place.admin, "releases", "localhost:5000/*", signers=[key_signer(new_key())])
    sign(place.api, place, key_fingerprint=oci.sha(b"key")).signers.set(trusted.signers.all())
    code, shown, _ = verify()
    assert code == 0
    assert "trusted by releases" in shown


def test_keys_are_changed_on_their_page_and_everybody_gets_the_public_part(place: SimpleNamespace) -> None:
    admin, guard = place.clients["admin"], place.clients["guard"]
    url = reverse("lifecycle:signing-keys")
    assert "Create key" not in guard.get(url).content.decode()
    assert guard.post(url, {"name": "mine"}).status_code == 403
    for name in ("old", "new"):
        assert admin.post(url, {"name": name}).status_code == 302
    refused = admin.post(url, {"name": "third"})
    assert (refused.status_code, "new and old are active already" in refused.content.decode()) == (422, True)
    retiring = reverse("lifecycle:retire-signing-key", args=["old"])
    assert "the only active key" not in admin.get(retiring).content.decode()
    assert admin.post(retiring, {"reason": "changed"}).status_code == 302
    assert "the only active key" in admin.get(reverse("lifecycle:retire-signing-key", args=["new"])).content.decode()
    page = guard.get(url).content.decode()
    assert page.index("new") < page.index("Active") < page.index("Retired")
    file = guard.get(reverse("lifecycle:signing-key", args=["old"]))
    assert file.content.decode() == SigningKey.objects.get(name="old").public_key
    assert file["Content-Disposition"] == 'attachment; filename="old.pub"'
    event = AuditEvent.objects.filter(action="signing_key.retired").get()
    assert (event.reason, event.details["key"]) == ("changed", "old")


def test_keys_in_the_api_and_on_the_command_line(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    admin, guard = Caller(place.admin), Caller(place.guard)
    made = admin.post("signing-keys/", {"name": "release"})
    assert (made.status_code, made.json()["state"], made.json()["place"]) == (201, "active", "Gravingdock")
    assert admin.post("signing-keys/", {"name": "release"}).json()["code"] == "conflict"
    assert admin.post("signing-keys/", {"name": "Release"}).status_code == 400
    assert guard.post("signing-keys/", {"name": "mine"}).status_code == 403
    SigningKey.objects.filter(name="release").update(uri="file:/etc/keys/release.key")
    (listed,) = guard.get("signing-keys/").json()["results"]
    assert (listed["place"], "uri" in listed) == ("file", False)
    assert "BEGIN PUBLIC KEY" in listed["public_key"]

    def to_application(request: httpx.Request) -> httpx.Response:
        headers = {"HTTP_" + key.upper().replace("-", "_"): value for key, value in request.headers.items()}
        answer = Client().generic(
            request.method, request.url.raw_path.decode(), request.content, "application/json", **headers
        )  # fmt: skip
        return httpx.Response(answer.status_code, content=answer.content, headers=dict(answer.headers))

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    token = tokens.create_token(place.admin, kind="pat", name="cli")[1]
    client.save_login(client.Login("http://localhost", token))

    def run(*arguments: str) -> str:
        assert main(["keys", *arguments], transport=httpx.MockTransport(to_application)) == 0
        return capsys.readouterr().out

    assert run("show", "release").strip() == listed["public_key"].strip()
    assert "BEGIN PUBLIC KEY" in run("create", "next")
    run("retire", "release", "--reason", "changed")
    lines = run("list").splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["next", "active"], ["release", "retired"]]
