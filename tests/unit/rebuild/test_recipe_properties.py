"""Only bases change, any text is read or refused with its line, and reading is bounded."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.core.errors import Malformed
from lifecycle.rebuild.containerfile import base_references, for_builder, pinned
from lifecycle.rebuild.expansion import NESTED_MAX, VALUE_MAX, BadWord, expand
from lifecycle.rebuild.heredocs import CONTEXT
from lifecycle.rebuild.instructions import LINE_MAX, read_instructions

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
        'COPY <<-"E_T" /x\n\tFROM hb/cc:1\n\tE_T\n', "ONBUILD COPY --from=hb/bb:1 a b\n", 'CMD ["FROM hb/bb:1"]\n', "RUN echo $((1 << 4))\n",
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
    rewritten = for_builder(written, PINS, {}, "/files").text
    assert [name for name in base_references(rewritten) if name != CONTEXT] == base_references(wanted)
    assert rewritten.count("\n") == wanted.count("\n")
    assert not any(each.heredocs for each in read_instructions(rewritten).instructions)
    assert set(base_references(wanted)) == {PINS[name] for name in base_references(written)}


PIECES = [
    "FROM ", "from", "hb/bb:1", "${", "}", "$V", ":-", ":+", "##", "%", "/", "ARG ", "V=", "\n", "\r\n", " ", "\t", "\\\n", "\\", "'", '"', "`",
    "# escape=`\n", "#", "COPY --from=", "0", "RUN --mount=", "from=", ",", "<<EOF\n", "<<-'E'", "EOF\n", "AS ", "x", "\ufeff", "\u2028", "\x85",
    "\ud800", "\x00", "[", "]", "é", "ONBUILD ", "ENV ", "=", "--", "scratch", "*", "?", "@sha256:", "LABEL a",
]  # fmt: skip


@settings(max_examples=1500, deadline=None)
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
    started = time.process_time()
    for operator in ("#", "##", "%", "%%", "/", "//"):
        expand("${V" + operator + "*a" * 100 + "b" + ("/x}" if "/" in operator else "}"), {"V": value}.get)
    assert time.process_time() - started < 5


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


def built(text: str):
    return for_builder(f"FROM hb/bb:1\n{text}", PINS, {}, "/files")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("RUN <<EOF\na\nb\nEOF\n", "a\nb\n"), ("RUN <<-EOF\n\ta\n\tEOF\n", "a\n"),
        ("RUN cat <<EOF > /x\na $B\nEOF\n", "cat <<EOF > /x\na $B\nEOF\n"),
        ("RUN cat <<'A' - <<B\n1\nA\n2\nB\n", "cat <<'A' - <<B\n1\nA\n2\nB\n"),
        ("RUN <<EOF\n#!/usr/bin/env -S sh -e\nx\nEOF\n", "exec /usr/bin/env '-S sh -e' /dev/fd/3 3<<'GRAVINGDOCK'\n#!/usr/bin/env -S sh -e\nx\nGRAVINGDOCK\n"),
    ],
)  # fmt: skip
def test_run_with_a_heredoc_becomes_a_list_of_the_same_lines(text, script):
    result = built(text + "USER x\n").text
    command = next(line for line in result.splitlines() if line.startswith("RUN "))
    assert json.loads(command.removeprefix("RUN ")) == ["/bin/sh", "-c", script]
    assert result.splitlines().index("USER x") == text.count("\n") + 1


def test_copy_of_a_heredoc_takes_a_file_and_replaces_known_variables():
    result = built("ARG V=1\nENV E=2\nADD --chmod=755 <<A <<'B' /d/\n$V ${E} \"q\"\nA\n$V $PATH\nB\n")
    assert result.files == {"4/A": b'1 2 "q"\n', "4/B": b"$V $PATH\n"}
    assert result.options == ["--build-context=gravingdock-heredocs=/files"]
    assert "COPY --from=gravingdock-heredocs --chmod=755 --chown=0:0 /4/A /4/B /d/\n" in result.text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("COPY <<EOF /x\n$PATH\nEOF\n", "Line 2: the here-document uses .PATH"), ("COPY a <<EOF /x\nEOF\n", "Line 2: here-documents and files"),
        ("ONBUILD RUN <<EOF\na\nEOF\n", "Line 2: ONBUILD cannot have"), ("RUN <<EOF\na\n", "Line 2: the here-document <<EOF has no end"),
        ("COPY --from=hb/tool:1 <<EOF /x\nEOF\n", "Line 2: a here-document cannot be copied"), ("COPY <<../a /x\n../a\n", "Line 2: the name of a"),
        ("RUN <<EOF\n" + "a" * 40000 + "\nEOF\n", "Line 2: a here-document has at most"),
    ],
)  # fmt: skip
def test_heredoc_that_cannot_be_built_is_refused_with_its_line(text, problem):
    with pytest.raises(Malformed, match=f"^{problem}"):
        base_references(f"FROM hb/bb:1\n{text}")


def test_only_a_stage_named_by_a_variable_needs_every_stage():
    assert built("COPY x /y\n").options == []
    for use in (
        "FROM $S\n",
        "FROM hb/bb:1\nARG S\nCOPY --from=$S /a /b\n",
        "FROM hb/bb:1\nARG S\nRUN --mount=type=bind,from=$S,target=/m true\n",
    ):
        assert for_builder(f"ARG S=t\nFROM hb/tool:1 AS t\n{use}", PINS, {}, "/files").options == [
            "--skip-unused-stages=false"
        ]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("COPY --link --from=hb/tool:1 /a /b\n", "COPY  --from=localhost/base1:pinned /a /b\n"),
        ("ADD --link=true a b\n", "ADD  a b\n"),
        ("COPY --link=false a b\n", "COPY --link=false a b\n"),
        ("COPY a --link /b/\n", "COPY a --link /b/\n"),
        ("RUN x --link\n", "RUN x --link\n"),
    ],
)
def test_link_is_left_out_for_the_builder(text, result):
    assert built(text).text == f"FROM localhost/base0:pinned\n{result}"
    assert pinned(f"FROM hb/bb:1\n{text}", PINS).count("--link") == text.count("--link")


@pytest.mark.parametrize(
    "source",
    [
        "https://example.org/a.tgz",
        "--checksum=sha256:aa https://example.org/a",
        "git@example.org:a/b.git#main",
        "--keep-git-dir=true https://example.org/a.git",
    ],
)
def test_source_that_is_no_image_is_no_base(source):
    assert base_references(f"FROM hb/bb:1\nADD {source} /x\n") == ["hb/bb:1"]
