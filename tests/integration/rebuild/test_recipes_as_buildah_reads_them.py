"""Recipes that real buildah builds or refuses, beside what we read: the same bases, or a refusal with the line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lifecycle.core.errors import Malformed
from lifecycle.rebuild.containerfile import base_references, builtin_arguments, for_builder

pytestmark = [
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed: make system"),
    pytest.mark.skipif(os.geteuid() != 0, reason="buildah needs root here"),
]

ARCH = builtin_arguments()["TARGETARCH"]
BB, TOOL, CC = "hb/bb:1", "hb/tool:1", "hb/cc:1"
NAMES = (BB, "hb/bb:12", "hb/bb:1-slim", "hb/bb", TOOL, "hb/tool", CC, f"hb/bb:{ARCH}", "tools", "hb/bb:1.2")


@dataclass(frozen=True)
class Row:
    """`bases`: what we read. `refusal`: why we refuse it. buildah must build the recipe exactly if `builds`."""

    name: str
    text: str
    bases: list[str] = field(default_factory=list)
    refusal: str = ""
    builds: bool = True
    is_quick: bool = False


def refused(name: str, text: str, refusal: str, **more: bool) -> Row:
    return Row(name, text, refusal=refusal, builds=False, **more)


ROWS = [
    # Arguments before the first FROM
    Row("argument", f"ARG BASE={BB}\nFROM $BASE\n", [BB]),
    Row("argument of argument", "ARG OWNER=hb\nARG BASE=${OWNER}/bb:1\nFROM ${BASE}\n", [BB], is_quick=True),
    Row("three arguments deep", "ARG A=hb\nARG B=$A/bb\nARG C=$B:1\nFROM $C\n", [BB]),
    Row("two arguments on one line", "ARG N=hb/bb T=1\nFROM ${N}:${T}\n", [BB], is_quick=True),
    Row("arguments on one line do not see each other", "ARG A=1 B=2$A\nFROM hb/bb:1${B:-0}\n", ["hb/bb:12"]),
    Row("later default wins", "ARG A=9\nARG A=1\nFROM hb/bb:$A\n", [BB]),
    Row("argument without default", "ARG A\nFROM hb/bb:1$A\n", [BB]),
    refused("empty after replacing", "ARG A\nFROM $A\n", "Line 2: FROM is empty, because A has no value"),
    Row("quoted default", f"ARG A=\"{BB}\"\nARG B='{BB}'\nFROM $A AS x\nFROM $B\n", [BB]),
    Row("quotes inside a default", 'ARG A=hb/"bb":1\nFROM $A\n', [BB]),
    Row("escaped space in a default", "ARG A=a\\ b V=1\nFROM hb/bb:$V\n", [BB]),
    refused("single quotes stop replacing", "ARG V=1\nARG A='hb/bb:$V'\nFROM $A\n", "Line 3: .*hb/bb:.V"),
    Row("escaped dollar", "ARG V=1\nARG A=\\$V\nFROM hb/bb:${A:+1}\n", [BB]),
    refused("open quote", 'ARG A="x\nFROM hb/bb:1\n', "Line 1: a double quote is not closed", is_quick=True),
    refused("ARG without a name", "ARG\nFROM hb/bb:1\n", "Line 1: ARG needs an argument"),
    Row("equals sign in a default", "ARG A=x=y\nFROM hb/bb:1${A:+2}\n", ["hb/bb:12"]),
    Row("name with a digit", "ARG A1=1\nFROM hb/bb:${A1}\n", [BB]),
    Row("unknown variable", "FROM hb/bb:1$NONE\n", [BB]),
    refused("dollar alone", "FROM hb/bb:1$\n", "Line 1: "),
    # Substitutions
    Row("colon plus, set", "ARG V=1\nFROM hb/bb:1${V:+-slim}\n", ["hb/bb:1-slim"], is_quick=True),
    Row("colon plus, empty", "ARG V=\nFROM hb/bb:1${V:+-slim}\n", [BB]),
    Row("colon minus, unset", "FROM hb/bb:${V:-1}\n", [BB]),
    Row("colon minus, empty", "ARG V=\nFROM hb/bb:${V:-1}\n", [BB]),
    Row("colon minus, set", "ARG V=12\nFROM hb/bb:${V:-1}\n", ["hb/bb:12"]),
    Row("nested default", "ARG W=12\nFROM hb/bb:${V:-${W}}\n", ["hb/bb:12"], is_quick=True),
    Row("nested three deep", "ARG W=1\nFROM hb/bb:${A:-${B:-${C:-$W}}}\n", [BB]),
    Row("whole reference as a default", f"FROM ${{B:-{BB}}}\n", [BB]),
    Row("quotes in a default value", 'FROM hb/bb:${V:-"1"}\n', [BB]),
    refused("brace not closed", "ARG V=1\nFROM hb/bb:${V\n", "Line 2: "),
    refused("colon equals", "FROM hb/bb:${V:=1}\n", "Line 1: the builder does not know the substitution"),
    Row("minus, unset, as BuildKit", "FROM hb/bb:${V-1}\n", [BB], builds=False),
    Row("minus, empty, as BuildKit", "ARG V=\nFROM hb/bb:1${V-2}\n", [BB], builds=False),
    Row("plus, as BuildKit", "ARG V=\nFROM hb/bb:1${V+2}\n", ["hb/bb:12"], builds=False),
    Row("hash, as BuildKit", "ARG V=v1\nFROM hb/bb:${V#v}\n", [BB], builds=False),
    Row("two hashes, as BuildKit", "ARG V=a.b.1\nFROM hb/bb:${V##*.}\n", [BB], builds=False),
    Row("percent, as BuildKit", "ARG V=1.2\nFROM hb/bb:${V%.*}\n", [BB], builds=False),
    Row("slash, as BuildKit", "ARG V=1-2\nFROM hb/bb:${V/-/.}\n", ["hb/bb:1.2"], builds=False),
    Row("question mark, set, as BuildKit", "ARG V=1\nFROM hb/bb:${V:?needed}\n", [BB], builds=False),
    refused("question mark, unset", "ARG V\nFROM hb/bb:${V:?needed}\n", "Line 2: V is not set: needed"),
    # FROM
    Row("quoted image", f'FROM "{BB}"\n', [BB], is_quick=True),
    Row("image in single quotes", f"FROM '{BB}'\n", [BB]),
    Row("lower-case keywords", f"from {BB} as x\ncopy x /y\nfrom {CC}\ncopy --from=x /x /z\n", [CC, BB]),
    Row("tabs between words", f"FROM\t{BB}\tAS\tx\n", [BB]),
    Row("spaces around", f"   FROM   {BB}   \n", [BB]),
    Row("platform", f"FROM --platform=linux/{ARCH} {BB}\n", [BB]),
    Row("platform of an argument", f"FROM --platform=$BUILDPLATFORM {BB}\n", [BB], is_quick=True),
    refused("unknown option of FROM", f"FROM --arch=x {BB}\n", "Line 1: FROM has no option --arch"),
    refused("comment after FROM", f"FROM {BB} # why\n", "Line 1: FROM takes an image"),
    refused("AS without a name", f"FROM {BB} AS\n", "Line 1: FROM takes an image"),
    refused("FROM alone", "FROM\n", "Line 1: FROM takes an image"),
    refused("no FROM", "ARG A=1\n", "The recipe has no FROM"),
    refused("upper-case image", "FROM HB/bb:1\n", "Line 1: 'HB/bb:1' is not an image reference"),
    Row("scratch", "FROM scratch\nCOPY x /x\n", []),
    Row("scratch in an argument", "ARG B=scratch\nFROM $B\nCOPY x /x\n", []),
    Row("built-in argument", "ARG TARGETARCH\nFROM hb/bb:$TARGETARCH\n", [f"hb/bb:{ARCH}"]),
    Row("built-in argument, as BuildKit", "FROM hb/bb:$TARGETARCH\n", [f"hb/bb:{ARCH}"], builds=False),
    # Stages
    Row("named stage", f"FROM {TOOL} AS t\nFROM {BB}\nCOPY --from=t /x /y\n", [BB, TOOL]),
    Row("numbered stage", f"FROM {TOOL}\nFROM {BB}\nCOPY --from=0 /x /y\n", [BB, TOOL], is_quick=True),
    Row("number of a named stage", f"FROM {TOOL} AS t\nFROM {BB}\nCOPY --from=0 /x /y\n", [BB, TOOL]),
    Row("stage from a stage", f"FROM {TOOL} AS t\nFROM {CC} AS c\nFROM t\nCOPY --from=c /x /y\n", [TOOL, CC]),
    Row("stage named like an image", f"FROM {TOOL} AS {CC}\nFROM {BB}\nCOPY --from={CC} /x /y\n", [BB, TOOL], is_quick=True),
    Row("stage named like its own image", "FROM hb/bb AS hb/bb\nFROM hb/bb\nCOPY x /y\n", ["hb/bb"]),
    Row("image before the stage of its name", f"FROM {BB} AS b\nCOPY --from=tools /x /y\nFROM b AS tools\n", [BB, "tools"]),
    Row("two stages of one name", f"FROM {TOOL} AS t\nFROM {CC} AS t\nFROM {BB}\nCOPY --from=t /x /y\n", [BB, TOOL, CC]),
    refused("number too high", f"FROM {BB}\nCOPY --from=7 /x /y\n", "Line 2: COPY --from=7 is no earlier stage"),
    refused("stage in another case", f"FROM {TOOL} AS Made\nFROM {BB}\nCOPY --from=made /x /y\n", "Line 3: the stage is named"),
    refused("stage with a quoted name", f'FROM {TOOL} AS "t"\nFROM {BB}\nCOPY --from=t /x /y\n', "Line 1: the name of a stage"),
    refused("stage with a variable name", f"ARG N=t\nFROM {TOOL} AS $N\nFROM {BB}\nCOPY --from=t /x /y\n", "Line 2: the name"),
    Row("no instruction before FROM but ARG, as BuildKit", f"LABEL a=b\nFROM {BB}\n", refusal="Line 1: only ARG can stand before"),
    Row("stage in an argument, as BuildKit", f"ARG S=t\nFROM {TOOL} AS t\nFROM $S\nCOPY x /y\n", [TOOL], builds=False),
    Row("COPY from a stage in an argument, as BuildKit", f"FROM {TOOL} AS t\nFROM {BB}\nARG S=t\nCOPY --from=$S /x /y\n", [BB, TOOL], builds=False),
    Row("stage that nothing uses", f"FROM {TOOL} AS t\nFROM {BB}\nCOPY x /y\n", [BB], is_quick=True),
    Row("stages of one name are built together", f"FROM {TOOL} AS last\nFROM {BB} AS last\nCOPY x /y\n", [BB, TOOL]),
    Row("unused stage with what only a build refuses", f"FROM {TOOL} AS t\nRUN --network=none true\nFROM {BB}\n", [BB]),
    refused("network of a RUN", f"FROM {BB}\nRUN --network=none true\n", "Line 2: the builder does not support RUN --network"),
    refused("cache from an image", f"FROM {BB}\nRUN --mount=type=cache,from={TOOL},target=/c true\n", "Line 2: .* a stage, not an image"),
    # COPY --from
    Row("COPY from an image", f"FROM {BB}\nCOPY --from={TOOL} /x /y\n", [BB, TOOL]),
    Row("COPY from an argument", f"ARG TOOL={TOOL}\nFROM {BB}\nARG TOOL\nCOPY --from=${{TOOL}} /x /y\n", [BB, TOOL], is_quick=True),
    Row("COPY from a stage's own argument", f"FROM {BB}\nARG T=tool:1\nCOPY --from=hb/$T /x /y\n", [BB, TOOL]),
    refused(
        "argument not repeated in the stage", f"ARG T={TOOL}\nFROM {BB}\nCOPY --from=$T /x /y\n",
        "Line 3: COPY --from is empty: T has no value in this stage. Add: ARG T",
    ),
    refused("COPY from an ENV", f"FROM {BB}\nENV T={TOOL}\nCOPY --from=$T /x /y\n", "Line 3: COPY --from is empty"),
    refused("ENV and ARG of one name", f"FROM {BB}\nENV T=a\nARG T={TOOL}\nCOPY --from=$T /x /y\n", "Line 4: ENV and ARG give T"),
    Row("ENV of an ARG", f"FROM {BB}\nARG T={TOOL}\nENV T=$T\nCOPY --from=$T /x /y\n", [BB, TOOL]),
    Row("COPY from scratch", f"FROM {BB}\nCOPY --from=scratch / /y\n", [BB]),
    Row("built-in argument in a stage", f"FROM {BB}\nARG TARGETARCH\nCOPY --from=hb/bb:$TARGETARCH /x /y\n", [BB, f"hb/bb:{ARCH}"]),
    Row("target platform", f"FROM {BB}\nARG TARGETPLATFORM=linux/12\nCOPY --from=hb/bb:$TARGETARCH /x /y\n", [BB, "hb/bb:12"]),
    Row("COPY in JSON form", f'FROM {BB}\nCOPY --from={TOOL} ["/x", "/y"]\n', [BB, TOOL]),
    Row("half of an option in quotes", f'FROM {BB}\nCOPY --from=hb/"tool:1" /x /y\n', [BB, TOOL]),
    Row("other half of an option in quotes", f'FROM {BB}\nCOPY --from="hb/tool":1 /x /y\n', [BB, TOOL]),
    Row("escape in an option", f"FROM {BB}\nCOPY --from=hb/\\tool:1 /x /y\n", [BB, TOOL]),
    refused("COPY with one argument", f"FROM {BB}\nCOPY x\n", "Line 2: COPY needs a source and a destination"),
    refused("WORKDIR alone", f"FROM {BB}\nWORKDIR\n", "Line 2: WORKDIR needs an argument"),
    refused("USER alone", f"FROM {BB}\nUSER\n", "Line 2: USER needs an argument"),
    refused("FROM in an ONBUILD", f"FROM {BB}\nONBUILD FROM x\n", "Line 2: ONBUILD cannot contain FROM"),
    Row("argument of an ENV", f"FROM {BB}\nENV V=1\nARG T=hb/tool:$V\nCOPY --from=$T /x /y\n", [BB, TOOL]),
    Row("option in quotes", f'FROM {BB}\nCOPY --from="{TOOL}" /x /y\n', [BB, TOOL]),
    Row("two options", f"FROM {BB}\nCOPY --chown=1:1 --from={TOOL} /x /y\n", [BB, TOOL]),
    Row("option over two lines", f"FROM {BB}\nCOPY \\\n  --from={TOOL} \\\n  /x /y\n", [BB, TOOL]),
    Row("link, as BuildKit", f"FROM {BB}\nCOPY --link --from={TOOL} /x /y\nCOPY --link <<A /z\na\nA\n", [BB, TOOL], builds=False),
    refused("two --from", f"FROM {BB}\nCOPY --from={TOOL} --from={CC} /x /y\n", "Line 2: COPY takes one --from", ),
    refused("COPY --from without a value", f"FROM {BB}\nCOPY --from /x /y\n", "Line 2: COPY takes one --from"),
    refused("ADD --from", f"FROM {BB}\nADD --from={TOOL} /x /y\n", "Line 2: ADD has no option --from"),
    refused("COPY without arguments", f"FROM {BB}\nCOPY\n", "Line 2: COPY needs an argument"),
    Row("--from after the options", f"FROM {BB}\nRUN echo --from={TOOL} --mount=from=a\n", [BB]),
    Row("base in an ONBUILD", f"FROM {BB}\nONBUILD COPY --from=hb/none:1 /a /b\n", [BB]),
    # RUN --mount
    Row("mount from an image", f"FROM {BB}\nRUN --mount=type=bind,from={TOOL},target=/m cat /m/x\n", [BB, TOOL], is_quick=True),
    Row(
        "two mounts", f"FROM {BB}\nRUN --mount=type=bind,from={TOOL},target=/m --mount=type=bind,from={CC},target=/n cat /n/x\n",
        [BB, TOOL, CC], is_quick=True,
    ),
    Row("mount from a stage", f"FROM {TOOL} AS t\nFROM {BB}\nRUN --mount=type=bind,from=t,target=/m cat /m/x\n", [BB, TOOL]),
    Row("mount from an argument", f"FROM {BB}\nARG T={TOOL}\nRUN --mount=type=bind,from=$T,target=/m cat /m/x\n", [BB, TOOL]),
    Row("from at the end of a mount", f"FROM {BB}\nRUN --mount=type=bind,target=/m,from={TOOL} cat /m/x\n", [BB, TOOL]),
    Row("mount in quotes", f'FROM {BB}\nRUN --mount="type=bind,from={TOOL},target=/m" cat /m/x\n', [BB, TOOL]),
    Row("mount from an ENV", f"FROM {BB}\nENV T={TOOL}\nRUN --mount=type=bind,from=$T,target=/m cat /m/x\n", [BB, TOOL]),
    Row("image in quotes in a mount", f"FROM {BB}\nRUN --mount=type=bind,from='{TOOL}',target=/m cat /m/x\n", [BB, TOOL]),
    Row("mount of the context", f"FROM {BB}\nRUN --mount=type=bind,target=/m cat /m/x\n", [BB]),
    refused("mount from nothing", f"FROM {BB}\nRUN --mount=type=bind,from=,target=/m true\n", "Line 2: RUN --mount=from is empty"),
    # Lines
    Row("byte order mark", f"\ufeffFROM {BB}\n", [BB], is_quick=True),
    Row("line ends of Windows", f"FROM {BB}\r\nCOPY x \\\r\n  /y\r\n", [BB], is_quick=True),
    Row("no line end", f"FROM {BB}", [BB]),
    Row("escape directive", f"# escape=`\nFROM `\n  {BB}\nCOPY x `\n /y\n", [BB], is_quick=True),
    Row("escape directive with spaces", f"#  Escape = `\nFROM `\n {BB}\n", [BB]),
    refused("escape directive too late", f"# a comment\n# escape=`\nFROM `\n{BB}\n", "Line 4: the builder does not know"),
    refused("wrong escape", f"# escape=x\nFROM {BB}\n", "Line 1: the escape character"),
    Row("syntax directive", f"# syntax=docker/dockerfile:1\nFROM {BB}\n", [BB]),
    Row("comment in a continued line", f"FROM {BB}\nRUN true \\\n  # FROM hb/other\n  && true\n", [BB], is_quick=True),
    Row("empty line in a continued line", f"FROM {BB}\nRUN true && \\\n\n   true from x\n", [BB], is_quick=True),
    Row("reference over two lines", "FROM hb/\\\nbb:1\nCOPY x /y\n", [BB]),
    Row("keyword over two lines", f"FR\\\nOM {BB}\n", [BB]),
    Row("continuation with spaces behind", f"FROM \\  \n{BB}\n", [BB]),
    Row("continuation at the end", f"FROM {BB} \\\n", [BB]),
    Row("comment before FROM", f"\n\n# FROM hb/other\n\nFROM {BB}\n", [BB]),
    Row("word FROM in a command", f"FROM {BB}\nRUN echo \\\n FROM hb/other\n", [BB]),
    Row("line separator of Unicode", f"FROM {BB}\nLABEL a='b\u2028FROM hb/other'\n", [BB]),
    refused("unknown instruction", f"FROM {BB}\nSELECT 1\n", "Line 2: the builder does not know the instruction 'SELECT'", is_quick=True),
    refused("ENV without a value", f"FROM {BB}\nENV A\n", "Line 2: ENV needs a name and a value"),
    refused("LABEL without an equals sign", f"FROM {BB}\nLABEL a=b c\n", "Line 2: LABEL needs NAME=value"),
    Row("old form of ENV", f"FROM {BB}\nENV V 1\nARG T=hb/tool:$V\nCOPY --from=$T /x /y\n", [BB, TOOL]),
    refused("numbers in a list", f"FROM {BB}\nCMD [1]\n", "Line 2: a list in JSON form"),
    Row("list that is no JSON", f"FROM {BB}\nRUN [ 1 = 1 ]\n", [BB]),
    Row("shift in a calculation", f"FROM {BB}\nRUN echo $((1 << 4))\n", [BB]),
    # Here-documents, as BuildKit: buildah 1.28 has none
    Row("script", f"FROM {BB}\nRUN <<EOF\nset -e\ntest $(cat /x) = x\necho 'FROM a' > /y\nEOF\nRUN test -s /y\n", [BB], builds=False, is_quick=True),
    Row("script of an interpreter", f"FROM {BB}\nRUN <<EOF\n#!/bin/sh -e\ntest $(cat /x) = x\necho y > /y\nEOF\nRUN test -s /y\n", [BB], builds=False),
    Row("input of a command", f"FROM {BB}\nRUN cat <<EOF > /y\nFROM hb/other\nEOF\nRUN grep -q 'FROM hb/other' /y\n", [BB], builds=False),
    Row("file", f"FROM {BB}\nARG V=1\nCOPY --chmod=700 <<EOF /d/run\necho v$V\nEOF\nRUN test $(sh /d/run) = v1 && test $(stat -c %u%a /d/run) = 0700\n", [BB], builds=False, is_quick=True),
    Row("two files", f"FROM {BB}\nCOPY <<A <<-'B' /d/\n1\nA\n\t$V\n\tB\nRUN test $(cat /d/A) = 1 && test $(cat /d/B) = '$V'\n", [BB], builds=False),
    refused("here-document without an end", f"FROM {BB}\nCOPY <<EOF /x\na\n", "Line 2: the here-document <<EOF has no end"),
    Row("here-string", f"FROM {BB}\nCMD cat <<<x\n", [BB]),
]  # fmt: skip


class Stores:
    """buildah with two image stores: one with all images of the rows, one with only the replaced names."""

    def __init__(self, folder: Path, shell: Path) -> None:
        self._folder = folder
        self._context = folder / "context"
        shutil.copytree(shell, self._context)
        (self._context / "x").write_text("x")
        (folder / "Base").write_text(
            "FROM scratch\nCOPY busybox /bin/busybox\nCOPY x /x\nENV PATH=/bin\n"
            'RUN ["/bin/busybox", "sh", "-c", "/bin/busybox mkdir -p /tmp; /bin/busybox --install -s /bin"]\n'
        )
        self.pins = {name: f"localhost/pin{number}:pinned" for number, name in enumerate(NAMES)}
        for store, names in (("named", NAMES), ("pins", tuple(self.pins.values()))):
            assert self._buildah(store, "build", "--isolation=chroot", "-f", str(folder / "Base"), "-t", "first",
                                 str(self._context)).returncode == 0  # fmt: skip
            for name in names:
                assert self._buildah(store, "tag", "first", name).returncode == 0

    def _buildah(self, store: str, *words: str) -> subprocess.CompletedProcess[str]:
        places = ["--root", str(self._folder / store), "--runroot", str(self._folder / f"{store}-run")]
        command = ["buildah", *places, "--storage-driver", "vfs", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def build_replaced(self, text: str) -> str:
        """Build a recipe as a worker does, in a store with nothing but the replaced names."""
        files = self._folder / "files"
        given = for_builder(text, self.pins, {}, str(files))
        for name, content in given.files.items():
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).write_bytes(content)
        return self.build("pins", given.text, *given.options)

    def build(self, store: str, text: str, *options: str) -> str:
        """Build a recipe; return "" or the end of the output of the failed build."""
        recipe = self._folder / "Containerfile"
        recipe.write_bytes(text.encode())
        done = self._buildah(store, "build", "--pull=never", "--isolation=chroot", "--layers=false", "-f", str(recipe),
                             "-t", "result", *options, str(self._context))  # fmt: skip
        return "" if done.returncode == 0 else (done.stdout + done.stderr)[-1500:]


@pytest.fixture(scope="module")
def stores(tmp_path_factory, shell_folder):
    return Stores(tmp_path_factory.mktemp("stores"), shell_folder)


def check_row(row, stores):
    """Compare what we read with what buildah does, and build the recipe again with nothing but replaced bases."""
    problem = stores.build("named", row.text)
    assert (problem == "") == row.builds, problem or "buildah builds it"
    if row.refusal:
        with pytest.raises(Malformed) as refused_recipe:
            base_references(row.text)
        assert re.match(row.refusal, refused_recipe.value.message), refused_recipe.value.message
        return
    assert base_references(row.text) == row.bases
    assert stores.build_replaced(row.text) == ""


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_quick], ids=lambda row: row.name)
def test_recipe_is_read_as_buildah_reads_it(row, stores):
    check_row(row, stores)


@pytest.mark.long
@pytest.mark.parametrize("row", [row for row in ROWS if not row.is_quick], ids=lambda row: row.name)
def test_every_other_recipe_is_read_as_buildah_reads_it(row, stores):
    check_row(row, stores)
