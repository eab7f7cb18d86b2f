"""The recipe tab: its form stores revisions with their files, and says what is wrong with them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from lifecycle.rebuild import contexts
from lifecycle.rebuild.models import Recipe
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Registry, Repository
from tests.clients import browser
from tests.factories import dock

pytestmark = pytest.mark.django_db


def store(client, where, **given):
    body = {"containerfile": "FROM base/python:1.0\r\nCOPY app.py /srv/\r\n", "tag": "1.0", "build_args": ""} | given
    return client.post(reverse("lifecycle:recipe-new", args=[where.pk]), body)


def recipe_tab(client, where, query=""):
    return client.get(reverse("lifecycle:repository", args=[where.team.slug, where.name]) + f"?tab=recipe{query}")


@pytest.fixture
def contexts_kept(monkeypatch):
    """Files that would be stored in the registry. Tests of the builder cover the registry itself."""
    kept = {}

    def put(client, repository, files):
        digest = dock.sha(repr(sorted(files.items())))
        kept[digest] = dict(files)
        return digest

    def unpack(client, repository, digest, folder):
        for name, content in kept[digest].items():
            (folder / name).write_bytes(content)

    monkeypatch.setattr("lifecycle.rebuild.contexts.store", put)
    monkeypatch.setattr("lifecycle.rebuild.contexts.unpack", unpack)
    return kept


def test_form_stores_recipe_with_files_and_keeps_history(harbour, owner, contexts_kept):
    api = Repository.objects.get(name="shop/api")
    file = SimpleUploadedFile("app.py", b"print(1)\n")
    answer = store(owner, api, build_args="VERSION=1\n\nMODE = x", context=[file])
    assert answer.status_code == 422
    assert "Line 3: enter NAME=value." in answer.content.decode()
    assert store(owner, api, build_args="VERSION=1", context=[SimpleUploadedFile("app.py", b"print(1)\n")])["Location"]
    first = Recipe.objects.get()
    assert (first.revision, first.containerfile) == (1, "FROM base/python:1.0\nCOPY app.py /srv/\n")
    assert (first.build_args, first.base_references, first.tag) == ({"VERSION": "1"}, ["base/python:1.0"], "1.0")
    assert contexts_kept[first.context_digest] == {"app.py": b"print(1)\n"}
    more = SimpleUploadedFile("more.txt", b"more")
    store(owner, api, keep_context="on", context=[more])
    second = Recipe.objects.get(revision=2)
    assert contexts_kept[second.context_digest] == {"app.py": b"print(1)\n", "more.txt": b"more"}
    store(owner, api)
    assert Recipe.objects.get(revision=3).context_digest == ""
    old = recipe_tab(owner, api, "&revision=1").content.decode()
    assert "You see revision 1." in old
    assert "VERSION" in old
    assert "revision 3, current" in recipe_tab(owner, api).content.decode()


def test_recipe_files_are_in_registry_and_kept_in_next_revision(harbour, owner, services):
    services.need_registry()
    api = Repository.objects.get(name="shop/api")
    Registry.objects.filter(pk=api.registry_id).update(endpoint=services.registry.url)
    store(owner, api, context=[SimpleUploadedFile("app.py", b"print(1)\n")])
    store(owner, api, keep_context="on", context=[SimpleUploadedFile("more.txt", b"more")])
    first, second = Recipe.objects.order_by("revision")
    api.refresh_from_db()
    client = client_for(Registry.objects.get(pk=api.registry_id))
    with tempfile.TemporaryDirectory() as folder:
        contexts.unpack(client, api.name, second.context_digest, Path(folder))
        assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == {
            "app.py": b"print(1)\n",
            "more.txt": b"more",
        }
    assert first.context_digest not in {"", second.context_digest}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"containerfile": "RUN true"}, "only ARG can stand before the first FROM"),
        ({"containerfile": "ARG A=1"}, "The recipe has no FROM."),
        ({"containerfile": ""}, "This field is required."),
        ({"tag": "no tag!"}, "Invalid tag"),
        ({"build_args": "1A=b"}, "Line 1: enter NAME=value."),
    ],
)
def test_unreadable_recipe_shows_the_form_again_with_its_text(harbour, owner, given, words):
    answer = store(owner, Repository.objects.get(name="shop/api"), **given)
    text = answer.content.decode()
    assert answer.status_code == 422
    assert words in text
    assert "Fix the errors below." in text
    assert (given.get("containerfile") or "COPY app.py /srv/") in text or "containerfile" in given
    assert not Recipe.objects.exists()


def test_too_large_context_is_refused_before_upload(harbour, owner, monkeypatch):
    monkeypatch.setattr("lifecycle.pages.rebuild.forms.CONTEXT_MAX", 10)
    answer = store(owner, Repository.objects.get(name="shop/api"), context=[SimpleUploadedFile("big", b"12345678901")])
    assert answer.status_code == 422
    assert not Recipe.objects.exists()


def test_too_large_form_is_refused_unread(harbour, owner, monkeypatch):
    api = Repository.objects.get(name="shop/api")
    monkeypatch.setattr("lifecycle.pages.uploads.UPLOAD_MAX", 2000)
    answer = store(owner, api, context=[SimpleUploadedFile("big", b"x" * 3000)])
    assert answer.status_code == 413
    assert "The form is too large." in answer.content.decode()
    assert store(owner, api).status_code == 302


def test_recipe_form_needs_recipe_manage(harbour, viewer, owner):
    api = Repository.objects.get(name="shop/api")
    creator = browser(dock.user("creator", "creator", of=dock.team("shop")))
    maintainer = browser(dock.user("maintainer", "maintainer", of=dock.team("shop")))
    for person in (viewer, creator):
        assert "You need recipe.manage" in recipe_tab(person, api).content.decode()
        assert store(person, api).status_code == 403
    assert store(maintainer, api).status_code == 302
    assert store(creator, api, containerfile="FROM base/python:2.0").status_code == 403
    assert store(browser(dock.user("stranger")), api).status_code == 404
    assert Recipe.objects.count() == 1
    form = owner.get(reverse("lifecycle:recipe-new", args=[api.pk])).content.decode()
    assert "COPY app.py /srv/" in form
