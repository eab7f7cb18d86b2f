"""Only bases change, any text is read or refused with its line, and reading is bounded."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.core.errors import Malformed
from lifecycle.rebuild.containerfile import base_references, pinned
from lifecycle.rebuild.expansion import NESTED_MAX, VALUE_MAX, BadWord, expand
from lifecycle.rebuild.instructions import LINE_MAX

PINS = {"hb/bb:1": "localhost/base0:pinned", "hb/tool:1": "localhost/base1:pinned", "hb/cc:1": "localhost/base2:pinned"}
REFUSAL = re.compile(r"Line [1-9][0-9]*: .|The recipe has no FROM\.")

# Ways to write an image, as (text before it, the text that is replaced, text after it).
WORDS = st.sampled_from(
    [
        ("", "hb/{0}:1", ""),
        ('"', "hb/{0}:1", '"'),
        ("", "${{{1}}}", ""),
        ("", "hb/{0}:${{V}}", ""),
        ("'", "hb/{0}:1", "'"),
    ]
)
OTHERS = st.sampled_from(
    [
        "RUN echo hb/bb:1 FROM hb/tool:1\n", "# FROM hb/bb:1\n", "\n", "  \t\n", "RUN a \\\n  # hb/bb:1\n\n  && b\n", "ENV A=hb/bb:1\n",
        "RUN cat <<EOF\nFROM hb/bb:1\nCOPY --from=hb/tool:1 a b\nEOF\n", "LABEL a='hb/bb:1\u2028FROM hb/bb:1'\r\n", "USER \u00fc\n",
        'COPY <<-"E T" /x\n\tFROM hb/cc:1\n\tE T\n', "ONBUILD COPY --from=hb/bb:1 a b\n", 'CMD ["FROM hb/bb:1"]\n', "RUN echo $((1 << 4))\n",
    ]
)  # fmt: skip


@st.composite
def recipes(draw):
    """Return (a recipe, the same recipe with its bases replaced)."""
    before = draw(st.sampled_from(["", "\ufeff", "# syntax=docker/dockerfile:1\n", "\n\n"]))
    parts = [(before + "ARG V=1 BB=hb/bb:1\nARG TOOL=hb/tool:1 CC=hb/cc:1\n", "")]
    for _ in range(draw(st.integers(1, 3))):
        repeat = "ARG V BB\nARG TOOL CC\n"
        shapes = [
            ("FROM ", f"\n{repeat}"),
            ("from  --platform=linux/x ", f" as s{len(parts)}\r\n{repeat}"),
            ("FROM \\\n ", f"\n{repeat}"),
        ]
        start, end = draw(st.sampled_from(shapes))
        parts += [(start, "FROM"), (end, "")]
        for _ in range(draw(st.integers(0, 4))):
            copies = [
                ("COPY --from=", " /a /b\n"),
                ("RUN --mount=type=bind,from=", ",target=/x --mount=target=/y true\n"),
            ]
            start, end = draw(st.sampled_from(copies))
            parts += draw(st.sampled_from([[(draw(OTHERS), "")], [(start, "from"), (end, "")]]))
    written, wanted = [], []
    for text, has_base in parts:
        written.append(text)
        wanted.append(text)
        if has_base:
            left, middle, right = draw(WORDS)
            name = draw(st.sampled_from(["bb", "tool", "cc"]))
            written.append(left + middle.format(name, name.upper()) + right)
            wanted.append(left + PINS[f"hb/{name}:1"] + right)
    end = draw(st.sampled_from(["", "\n", "# end"]))
    return "".join([*written, end]), "".join([*wanted, end])


@settings(max_examples=300, deadline=None)
@given(recipes())
def test_only_the_bases_change(pair):
    written, wanted = pair
    assert pinned(written, PINS) == wanted
    assert set(base_references(wanted)) == {PINS[name] for name in base_references(written)}


PIECES = [
    "FROM ", "from", "hb/bb:1", "${", "}", "$V", ":-", ":+", "##", "%", "/", "ARG ", "V=", "\n", "\r\n", " ", "\t", "\\\n", "\\", "'", '"', "`",
    "# escape=`\n", "#", "COPY --from=", "0", "RUN --mount=", "from=", ",", "<<EOF\n", "<<-'E'", "EOF\n", "AS ", "x", "\ufeff", "\u2028", "\x85",
    "\ud800", "\x00", "[", "]", "é", "ONBUILD ", "ENV ", "=", "--", "scratch", "*", "?", "@sha256:", "LABEL a",
]  # fmt: skip


@settings(max_examples=1500, deadline=2000)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=60))
def test_any_text_is_read_or_refused_with_its_line(text):
    for recipe in (text, f"FROM hb/bb:1 AS x\n{text}", f"ARG V=1.2\nFROM hb/bb:{text}"):
        try:
            references = base_references(recipe)
        except Malformed as refused:
            assert REFUSAL.match(refused.message), refused.message
            assert 1 <= refused.details.get("line", 1) <= recipe.count("\n") + 1
        else:
            names = {reference: f"localhost/p{number}:x" for number, reference in enumerate(references)}
            assert base_references(pinned(recipe, names)) == list(names.values())


def test_reference_over_two_lines_keeps_the_numbers_of_lines():
    text = "FROM hb/\\\n# a comment\nbb:1\nCOPY --from=hb/\\\ntool:1 /a /b\nRUN x\n"
    result = pinned(text, PINS)
    assert base_references(result) == ["localhost/base0:pinned", "localhost/base1:pinned"]
    assert result.splitlines().index("RUN x") == text.splitlines().index("RUN x")


def test_first_reference_is_the_base_of_the_result_through_stages():
    assert base_references("FROM a AS x\nFROM b AS y\nFROM x AS z\nFROM z\nCOPY --from=y /a /b\n") == ["a", "b"]
    assert base_references("FROM b AS y\nFROM a AS x\nFROM x\nCOPY --from=y /a /b\n") == ["a", "b"]


def test_value_that_grows_with_each_argument_is_refused():
    grow = "".join(f"ARG A{number}=$A{number - 1}$A{number - 1}\n" for number in range(1, 40))
    with pytest.raises(Malformed, match=rf"^Line \d+: its value has more than {VALUE_MAX} characters"):
        base_references(f"ARG A0=aa\n{grow}FROM b\n")
    assert base_references(f"ARG A0=\n{grow}FROM b$A39\n") == ["b"]


def test_deep_substitution_is_refused_and_a_shallow_one_is_read():
    def deep(times: int) -> str:
        return "ARG W=1\nFROM b:" + "${A:-" * times + "$W" + "}" * times

    assert base_references(deep(NESTED_MAX - 1)) == ["b:1"]
    with pytest.raises(Malformed, match=f"^Line 2: substitutions are nested more than {NESTED_MAX} deep"):
        base_references(deep(5000))


def test_line_that_the_builder_would_not_read_is_refused():
    with pytest.raises(Malformed, match=r"^Line 2: the builder reads at most"):
        base_references("FROM b\n# " + "é" * (LINE_MAX // 2) + "\nCOPY --from=c /a /b\n")
    assert base_references("FROM b\n# " + "é" * (LINE_MAX // 2 - 2) + "\nCOPY --from=c /a /b\n") == ["b", "c"]


def test_pattern_takes_little_time():
    value = "a" * 250
    started = time.monotonic()
    for operator in ("#", "##", "%", "%%", "/", "//"):
        expand("${V" + operator + "*a" * 100 + "b" + ("/x}" if "/" in operator else "}"), {"V": value}.get)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("${V#*.}", "b.c"), ("${V##*.}", "c"), ("${V%.*}", "a.b"), ("${V%%.*}", "a"), ("${V/./-}", "a-b.c"), ("${V//./-}", "a-b-c"),
        ("${V#x}", "a.b.c"), ("${V#?}", ".b.c"), ("${V/a*b/x}", "x.c"), ("${V#\\*}", "a.b.c"), ("${E-x}", ""), ("${E:-x}", "x"),
        ("${N-x}", "x"), ("${E+x}", "x"), ("${N+x}", ""), ("${V:?no}", "a.b.c"), ("a$", "a$"), ("$1x", "x"), ("\\$V", "$V"),
        ("'$V'", "$V"), ('"$V"', "a.b.c"), ('"\\$V"', "$V"), ('"\\a"', "\\a"), ("${N:-'a b'}", "a b"), ("x\\", "x"), ("${}", ""),
    ],
)  # fmt: skip
def test_word_is_expanded(word, value):
    assert expand(word, {"V": "a.b.c", "E": ""}.get) == value


@pytest.mark.parametrize("word", ["${V", "${V:", "${V:=x}", "${V^}", "'a", '"a', "${N?}", "${N:-a", "${V/a}", "${V#a"])
def test_word_that_no_builder_knows_is_refused(word):
    with pytest.raises(BadWord):
        expand(word, {"V": "a"}.get)
