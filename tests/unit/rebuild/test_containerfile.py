"""Base images of a recipe, and the recipe with its bases replaced by digests."""

from __future__ import annotations

import pytest

from lifecycle.core.errors import Malformed
from lifecycle.rebuild.containerfile import base_references, pinned

RECIPE = """\
# syntax comment
ARG VERSION=3.11
FROM base/tools:1 AS build
RUN make \\
    all
FROM --platform=linux/amd64 base/python:${VERSION}
COPY --from=build /out /out
COPY --from=base/certs:2 /etc/ssl /etc/ssl
"""


def test_base_references_start_with_last_stage_and_omit_stages():
    assert base_references(RECIPE) == ["base/python:3.11", "base/tools:1", "base/certs:2"]
    assert base_references(RECIPE, {"VERSION": "3.12"})[0] == "base/python:3.12"


def test_scratch_has_no_base_references():
    assert base_references("FROM scratch\nADD a.tar /\n") == []


@pytest.mark.parametrize("text", ["", "RUN true\n", "ARG X\nFROM $X\n"])
def test_recipe_without_base_is_refused(text):
    with pytest.raises(Malformed):
        base_references(text)


@pytest.mark.parametrize(
    "line",
    [
        "FROM :x", "FROM a/", "FROM a//b", "FROM A/b", "FROM base/python@sha256:12", "FROM base/python:a/",
        "FROM base/python:-", "FROM " + "h" * 500 + ".example/base/python",
        "FROM base/python:1\nCOPY --from=:x /a /b", "FROM base/python:1\nRUN --mount=type=bind,from=:x true",
    ],
)  # fmt: skip
def test_malformed_reference_is_refused_with_its_line(line):
    text = f"ARG X\n{line}\n"
    with pytest.raises(Malformed, match=f"^Line {text.count(chr(10))}: "):
        base_references(text)


def test_reference_with_unset_argument_is_refused():
    with pytest.raises(Malformed, match="':12' is not an image reference"):
        base_references("ARG BASE\nFROM ${BASE}:12\n")
    assert base_references("ARG BASE\nFROM ${BASE}:12\n", {"BASE": "base/python"}) == ["base/python:12"]


def test_quotes_around_argument_are_removed():
    text = 'ARG BASE="base/python:3"\nFROM ${BASE}\n'
    assert base_references(text) == ["base/python:3"]
    assert "FROM localhost/b" in pinned(text, {"base/python:3": "localhost/b"})


def test_from_option_inside_a_command_is_ignored():
    text = "FROM base/python:1\nRUN --network=none --mount=type=bind,from=base/certs:2 report --from=:y --to=x\n"
    assert base_references(text) == ["base/python:1", "base/certs:2"]
    assert base_references("FROM base/python:1\nRUN report --from=:y\nCOPY --chown=1 --from=base/c:2 /a /b\n") == [
        "base/python:1", "base/c:2",
    ]  # fmt: skip


def test_pinned_replaces_every_reference_and_keeps_the_lines():
    names = ("base/python:3.11", "base/tools:1", "base/certs:2")
    result = pinned(RECIPE, {name: f"localhost/b{number}" for number, name in enumerate(names)})
    assert result.splitlines()[5:] == [
        "FROM --platform=linux/amd64 localhost/b0",
        "COPY --from=build /out /out",
        "COPY --from=localhost/b2 /etc/ssl /etc/ssl",
    ]
    assert "FROM localhost/b1 AS build" in result
    assert len(result.splitlines()) == len(RECIPE.splitlines())


def test_pinned_refuses_base_without_digest():
    with pytest.raises(Malformed, match="base/tools:1"):
        pinned(RECIPE, {"base/python:3.11": "x", "base/certs:2": "y"})
