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
