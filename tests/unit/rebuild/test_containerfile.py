"""Which images a recipe stands on, and the same recipe with digests in their place."""

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


def test_base_references_name_the_last_stage_first_and_leave_out_stages():
    assert base_references(RECIPE) == ["base/python:3.11", "base/tools:1", "base/certs:2"]
    assert base_references(RECIPE, {"VERSION": "3.12"})[0] == "base/python:3.12"


def test_base_references_of_scratch_are_none():
    assert base_references("FROM scratch\nADD a.tar /\n") == []


@pytest.mark.parametrize("text", ["", "RUN true\n", "ARG X\nFROM $X\n"])
def test_base_references_refuse_a_recipe_without_a_base(text):
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
def test_base_references_refuse_what_is_no_image_reference_by_its_line(line):
    text = f"ARG X\n{line}\n"
    with pytest.raises(Malformed, match=f"^Line {text.count(chr(10))}: "):
        base_references(text)


def test_a_reference_may_not_come_apart_by_an_argument_without_value():
    with pytest.raises(Malformed, match="':12' is not an image reference"):
        base_references("ARG BASE\nFROM ${BASE}:12\n")
    assert base_references("ARG BASE\nFROM ${BASE}:12\n", {"BASE": "base/python"}) == ["base/python:12"]


def test_quotes_around_an_argument_are_not_part_of_it():
    text = 'ARG BASE="base/python:3"\nFROM ${BASE}\n'
    assert base_references(text) == ["base/python:3"]
    assert "FROM localhost/b" in pinned(text, {"base/python:3": "localhost/b"})


def test_only_an_option_of_the_instruction_itself_names_an_image():
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


def test_pinned_refuses_a_base_without_a_digest():
    with pytest.raises(Malformed, match="base/tools:1"):
        pinned(RECIPE, {"base/python:3.11": "x", "base/certs:2": "y"})
