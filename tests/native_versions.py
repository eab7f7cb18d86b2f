"""The order of versions by the tools of each ecosystem, for comparing ours with it: none of them is ours.

Each order takes groups of versions and returns, for each group, {version: rank}: equal versions have the same rank, and
what the tool refuses has none. A tool that is absent says why.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from packaging.version import InvalidVersion, Version

Groups = Mapping[str, Sequence[str]]
Ranks = dict[str, dict[str, int]]

# dpkg's own library, as `dpkg --compare-versions` orders them. A process for each pair would take an hour.
_PERL: Final = r"""
use strict; use warnings; use JSON::PP; use Dpkg::Version;
my $groups = decode_json(do { local $/; <STDIN> }); my %out;
for my $name (keys %$groups) {
    my @known = grep { $_->is_valid() } map { Dpkg::Version->new($_, check => 0) } @{$groups->{$name}};
    my ($rank, $last) = (-1, undef); my %ranks;
    for my $version (sort { $a <=> $b } @known) {
        $rank++ if !defined $last || ($version <=> $last) != 0;
        $ranks{$version->as_string()} = $rank; $last = $version;
    }
    $out{$name} = \%ranks;
}
print encode_json(\%out);
"""
_NODE: Final = r"""
const semver = require(process.argv[1]), loose = process.argv[2] === "loose";
const groups = JSON.parse(require("fs").readFileSync(0)), out = {};
for (const name of Object.keys(groups)) {
  const known = groups[name].filter((text) => semver.valid(text, {loose}) !== null);
  known.sort((a, b) => semver.compare(a, b, {loose}));
  let rank = -1, last = null; out[name] = {};
  for (const text of known) {
    if (last === null || semver.compare(text, last, {loose}) !== 0) rank++;
    out[name][text] = rank; last = text;
  }
}
console.log(JSON.stringify(out));
"""
_GO: Final = r"""
package main

import ("encoding/json"; "os"; "sort"; "order/semver")

func main() {
    var groups map[string][]string
    if err := json.NewDecoder(os.Stdin).Decode(&groups); err != nil { panic(err) }
    out := map[string]map[string]int{}
    for name, all := range groups {
        known := []string{}
        for _, text := range all { if semver.IsValid("v" + text) { known = append(known, text) } }
        sort.SliceStable(known, func(i, j int) bool { return semver.Compare("v"+known[i], "v"+known[j]) < 0 })
        ranks, rank := map[string]int{}, -1
        for i, text := range known {
            if i == 0 || semver.Compare("v"+text, "v"+known[i-1]) != 0 { rank++ }
            ranks[text] = rank
        }
        out[name] = ranks
    }
    if err := json.NewEncoder(os.Stdout).Encode(out); err != nil { panic(err) }
}
"""


def _run(command: Sequence[str], groups: Groups, **more: str) -> Ranks:
    done = subprocess.run(
        command, input=json.dumps(groups), capture_output=True, text=True, check=True, timeout=600,
        env=os.environ | more,
    )  # fmt: skip
    found: Ranks = json.loads(done.stdout)
    return found


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    except OSError:
        return False


def dpkg(groups: Groups) -> Ranks:
    """Order as libdpkg-perl does."""
    return _run(["perl", "-e", _PERL], groups)


def pep440(groups: Groups) -> Ranks:
    """Order as packaging does."""
    out: Ranks = {}
    for name, texts in groups.items():
        known: dict[str, Version] = {}
        for text in texts:
            try:
                known[text] = Version(text)
            except InvalidVersion:
                continue
        ranks = {version: rank for rank, version in enumerate(sorted(set(known.values())))}
        out[name] = {text: ranks[version] for text, version in known.items()}
    return out


@lru_cache
def _semver_of_npm() -> str:
    """Return the folder of npm's own semver; "" when there is no npm."""
    node = shutil.which("node")
    if node is None:
        return ""
    roots = [Path(node).resolve().parents[1] / "lib", Path("/usr/lib"), Path("/usr/local/lib"), Path("/usr/share")]
    inside = ("node_modules/npm/node_modules/semver", "nodejs/npm/node_modules/semver", "nodejs/semver")
    found = [root / path for root in roots for path in inside if (root / path / "package.json").exists()]
    return str(found[0]) if found else ""


def npm(groups: Groups) -> Ranks:
    """Order as npm's semver does in its loose form."""
    return _run(["node", "-e", _NODE, "--", _semver_of_npm(), "loose"], groups)


def semver(groups: Groups) -> Ranks:
    """Order as npm's semver does in its strict form, which is that of semver.org."""
    return _run(["node", "-e", _NODE, "--", _semver_of_npm(), "strict"], groups)


@lru_cache
def _go_semver() -> str:
    """Return the source of golang.org/x/mod/semver that Go brings itself; "" when there is no Go."""
    if shutil.which("go") is None:
        return ""
    asked = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=False, timeout=60)
    root = asked.stdout.strip()
    path = Path(root, "src/cmd/vendor/golang.org/x/mod/semver/semver.go")
    return str(path) if root and path.exists() else ""


def go(groups: Groups) -> Ranks:
    """Order as golang.org/x/mod/semver does."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "semver").mkdir()
        shutil.copy(_go_semver(), home / "semver" / "semver.go")
        (home / "main.go").write_text(_GO)
        (home / "go.mod").write_text("module order\n\ngo 1.21\n")
        return _run(["go", "run", "-C", folder, "."], groups, GOFLAGS="-mod=mod", GOPROXY="off", GOTOOLCHAIN="local")


Order = Callable[[Groups], Ranks]
_ORDERS: Final[Mapping[str, Order]] = {"dpkg": dpkg, "pep440": pep440, "npm": npm, "semver": semver, "go": go}
WITHOUT_TOOL: Final = frozenset({"apk", "maven", "nuget", "packagist", "rpm", "rubygems"})  # not judged here


def orders() -> dict[str, Order]:
    """Return {scheme: order} of the tools that are on this machine."""
    absent = {name for name, reason in missing().items() if reason}
    return {name: order for name, order in _ORDERS.items() if name not in absent}


@lru_cache
def missing() -> Mapping[str, str]:
    """Return {scheme: why its tool cannot be asked}; "" where it can."""
    npm_reason = "" if _semver_of_npm() else "needs node with npm"
    return {
        "dpkg": "" if _works("perl", "-MDpkg::Version", "-MJSON::PP", "-e", "1") else "needs perl with libdpkg-perl",
        "pep440": "",
        "npm": npm_reason,
        "semver": npm_reason,
        "go": "" if _go_semver() else "needs Go",
    }
