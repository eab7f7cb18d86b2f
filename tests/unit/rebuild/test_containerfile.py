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
    text = "FROM base/python:1\nRUN --mount=type=bind,from=base/certs:2 report --from=:y --to=x\n"
    assert base_references(text) == ["base/python:1", "base/certs:2"]
    assert base_references("FROM base/python:1\nRUN report --from=:y\nCOPY --chown=1 --from=base/c:2 /a /b\n") == [
        "base/python:1", "base/c:2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("FROM base/old:1 AS old\nFROM base/python:1\n", ["base/python:1"]),
        ("FROM base/old:1 AS old\nCOPY --from=base/certs:2 /a /b\nFROM base/python:1\n", ["base/python:1"]),
        ("FROM base/old:1\nFROM base/python:1\nCOPY --from=0 /a /b\n", ["base/python:1", "base/old:1"]),
        ("FROM base/a:1 AS a\nFROM a AS b\nFROM scratch\nCOPY --from=b /a /b\n", ["base/a:1"]),
        (
            "FROM base/a:1 AS a\nFROM base/python:1\nRUN --mount=type=cache,from=a,target=/c true\n",
            ["base/python:1", "base/a:1"],
        ),
        # The builder does not see that the argument names a stage, so it is told to build them all.
        (
            "FROM base/a:1 AS a\nFROM base/b:1 AS b\nFROM base/python:1\nARG S=a\nCOPY --from=$S /a /b\n",
            ["base/python:1", "base/a:1", "base/b:1"],
        ),
    ],
)
def test_stage_that_the_result_does_not_need_has_no_base(text, references):
    assert base_references(text) == references
    names = {reference: f"localhost/{number}" for number, reference in enumerate(references)}
    assert ("FROM base/old:1" in pinned(text, names)) == ("base/old:1" in text and "base/old:1" not in references)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("RUN --network=none true", "the builder does not support RUN --network"),
        ("RUN --security=insecure true", "the builder does not support RUN --security"),
        ("RUN --mount=type=cache,target=/c,from=base/b:1 true", "takes from= a stage, not an image"),
    ],
)
def test_run_that_the_builder_refuses_is_refused_with_its_line(line, problem):
    with pytest.raises(Malformed, match=f"^Line 2: .*{problem}"):
        base_references(f"FROM base/python:1\n{line}\n")
    assert base_references(f"FROM base/b:1\n{line}\nFROM base/python:1\n") == ["base/python:1"]  # it is never built
    assert base_references("FROM base/python:1\nRUN --mount=type=cache,target=/c true\n") == ["base/python:1"]


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
