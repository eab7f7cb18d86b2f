"""Version order, compared with vectors of the native tools and with the rules of a total order."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.versions import SCHEMES, bound_key, compare, version_key
from lifecycle.versions.encoding import num

NATIVE = Path(__file__).parents[2] / "data" / "advisories" / "native.jsonl"
EXTRACT = Path(__file__).parents[2] / "data" / "advisories" / "versions.jsonl"
SHARED = Path(__file__).parents[4] / "shared" / "data" / "versions"
HOLDS = {
    "<": lambda order: order < 0,
    ">": lambda order: order > 0,
    "=": lambda order: order == 0,
    "<=": lambda order: order <= 0,
    "not <": lambda order: order >= 0,
    "not >": lambda order: order <= 0,
    "not =": lambda order: order != 0,
}
# Rows that contradict our rules, and why.
DISPUTED = {
    ("rpm", "1-2-3-4", "1.2.3a"),  # written for rpmvercmp only; reversed when read as [version]-[release]
    ("packagist", "dev-foo", "dev-master"),  # branches have no order; no answer satisfies all three rows
    # Written for PHP's version_compare without composer/semver, which pads with zeros and reads words in any case.
    ("packagist", "1.0.0", "1.0"),
    ("packagist", "v3.4", "v3.4.0-alpha"),
    ("packagist", "v6.5", "v6.5.0-beta-0"),
    ("packagist", "v1.9.0-ALPHA.1", "v1.9.0-BETA.1"),
    ("packagist", "v1.9.0-ALPHA.2", "v1.9.0-BETA.2"),
    # Written for Maven 3.8.6; maven-artifact 3.9.9 says the opposite.
    ("maven", "1.2.54.sec10", "1.2.54_noneautotype"),
    ("maven", "1.2.60.sec10", "1.2.60_noneautotype"),
}
# Largest number of rows by scheme that raise an error, because a version is invalid in its scheme.
INVALID_MAX = {"apk": 40, "go": 3, "packagist": 6, "pep440": 40, "semver": 2}


def rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def check_vectors(vectors: Iterator[dict[str, str]]) -> tuple[list[object], dict[str, int]]:
    """Return the rows with a wrong answer, and the number of rows refused as invalid in each scheme."""
    wrong: list[object] = []
    refused: dict[str, int] = {}
    for row in vectors:
        scheme, left, right, relation = row["scheme"], row["a"], row["b"], row["relation"]
        if scheme not in SCHEMES or (scheme, left, right) in DISPUTED:
            continue
        try:
            order = compare(scheme, left, left if relation == "invalid" else right)
        except ValueError:
            refused[scheme] = refused.get(scheme, 0) + 1
            continue
        if relation == "invalid" or not HOLDS[relation](order):
            wrong.append((scheme, left, relation, right, order))
    return wrong, refused


def test_compare_agrees_with_vectors_of_native_tools():
    wrong, refused = check_vectors(rows(EXTRACT))
    assert wrong == []
    assert all(count <= INVALID_MAX.get(scheme, 0) for scheme, count in refused.items()), refused


def test_compare_agrees_with_answers_of_maven_and_composer():
    wrong, refused = check_vectors(rows(NATIVE))
    assert (wrong, refused) == ([], {})


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not on this machine")
def test_compare_agrees_with_dpkg():
    @settings(max_examples=60, deadline=None)
    @given(versions_of("dpkg"), versions_of("dpkg"))
    def check(left, right):
        order = compare("dpkg", left, right)
        relation = "lt" if order < 0 else "gt" if order > 0 else "eq"
        command = ["dpkg", "--compare-versions", left, relation, right]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 0, (left, relation, right)

    check()


@pytest.mark.parametrize(
    ("left", "right"),
    [("3.3.3p1-r2", "3.3.4-r0"), ("1.9.4-r1", "1.9.4p2-r1"), ("5.1_p1-r2", "5.1p1-r0"), ("6.4.2p1-r0", "6.4.2p1-r1")],
)
def test_keys_order_apk_versions_with_digits_after_a_letter_and_compare_refuses_them(left, right):
    """apk-tools 2 accepted them, and packages of its releases have them. apk-tools 3 refuses them."""
    assert version_key("apk", left) < version_key("apk", right)
    with pytest.raises(ValueError, match="digits after a letter"):
        compare("apk", left, right)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full set of vectors is not on this machine")
def test_keys_agree_with_vectors_of_apk_versions_with_digits_after_a_letter():
    checked = 0
    for row in rows(SHARED / "apk.jsonl"):
        if row["relation"] not in HOLDS or not re.search(r"[0-9][a-z][0-9]", row["a"] + " " + row["b"]):
            continue
        try:
            left, right = version_key("apk", row["a"]), version_key("apk", row["b"])
        except ValueError:
            continue
        checked += 1
        assert HOLDS[row["relation"]]((left > right) - (left < right)), row
    assert checked >= 10


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full set of vectors is not on this machine")
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_compare_agrees_with_full_set_of_vectors(scheme):
    wrong, refused = check_vectors(rows(SHARED / f"{scheme}.jsonl"))
    assert wrong == []
    assert refused.get(scheme, 0) <= INVALID_MAX.get(scheme, 0)


@pytest.mark.parametrize(
    ("scheme", "version"),
    [
        ("apk", ""), ("apk", "1.0-r"), ("apk", "0.1_foobar"), ("apk", "0.1a1"), ("apk", ".1"), ("apk", "1.0A"),
        ("dpkg", ""), ("dpkg", "1 0"), ("dpkg", ":1"), ("dpkg", "x:1"), ("dpkg", "1:"), ("dpkg", "1-"),
        ("dpkg", "2147483648:1"), ("dpkg", "-1:1"),
        ("go", "v1-pre"), ("go", "v1.2+meta"), ("go", "bad"), ("go", "v1.2.3-"), ("go", "v01.2.3"),
        ("maven", ""), ("maven", "1 0"), ("maven", "1" * 257),
        ("npm", "1.2"), ("npm", "hello, world"), ("npm", "9007199254740992.0.0"), ("npm", "1" * 256 + ".0.0"),
        ("nuget", "1.2.3.4.5"), ("nuget", "1.0-"), ("nuget", "a"),
        ("packagist", ""), ("packagist", "1.2.3.#"), ("packagist", "one two"),
        ("pep440", "0.1-bulbasaur"), ("pep440", "1.0-x"), ("pep440", ""),
        ("rpm", ""), ("rpm", " "),
        ("rubygems", "1beta"), ("rubygems", "junk"), ("rubygems", ""),
        ("semver", "1.2"), ("semver", "01.2.3"), ("semver", "1.2.3-01"), ("semver", "1.2.3.4"), ("semver", "1.2.3\n"),
    ],
)  # fmt: skip
def test_compare_refuses_invalid_version_on_either_side(scheme, version):
    valid = "1.0.0"
    assert compare(scheme, valid, valid) == 0
    for left, right in ((version, valid), (valid, version), (version, version)):
        with pytest.raises(ValueError, match=r"\S"):
            compare(scheme, left, right)


@pytest.mark.parametrize("arguments", [("conan", "1", "1"), (None, "1", "1"), ("dpkg", None, "1"), ("dpkg", "1", 1)])
def test_compare_refuses_unknown_scheme_and_non_text(arguments):
    with pytest.raises(ValueError, match="version"):
        compare(*arguments)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_compare_refuses_too_long_version(scheme):
    with pytest.raises(ValueError, match=r"longer|not a version"):
        compare(scheme, "1." * 50_000 + "1", "1.0.0")


def test_version_key_refuses_maven():
    with pytest.raises(ValueError, match="no key"):
        version_key("maven", "1.0")


def test_bound_key_without_rpm_release_covers_every_release():
    lowest, highest = bound_key("rpm", "1.2"), bound_key("rpm", "1.2", is_last_affected=True)
    releases = [version_key("rpm", f"1.2-{release}") for release in ("~0", "0", "99.el9", "zz^1")]
    assert all(lowest < release < highest for release in releases)
    assert highest < version_key("rpm", "1.2.0-1")
    assert bound_key("rpm", "1.2-3", is_last_affected=True) == version_key("rpm", "1.2-3")


@given(st.integers(0, 10**300), st.integers(0, 10**300), st.integers(0, 5))
def test_num_sorts_like_numbers(left, right, zeros):
    padded = "0" * zeros + str(left)
    assert num(padded) == num(str(left))
    assert (num(padded) < num(str(right))) == (left < right)


PIECES = {
    "dpkg": ["0", "1", "00", "9", ".", "~", "+", "-", "a", "Z", "é", "_", "12"],
    "maven": ["1", "0", "2", ".", "-", "a", "alpha", "rc", "ga", "final", "sp", "x", "11", "_"],
    "packagist": ["1", "0", ".", "-", "dev", "a", "b", "RC", "rc", "p", "x", "v", "10", "_"],
    "rpm": ["1", "0", "01", ".", "~", "^", "a", "ab", "-", "10", "_", "B"],
}
_PRERELEASE = r"(-(a|b|rc|0|1|10)(\.(a|1|2-x))?)?(\+b)?"
PATTERNS = {
    "apk": r"[01](\.(0|1|01|10)){0,3}a?(_(rc|p|alpha|git)(1|2|)){0,2}(~a[b1])?(-r(0|1|10))?",
    "go": rf"v?[01](\.(0|1|10)(\.(0|1){_PRERELEASE})?)?",
    "npm": rf"(v|=| v)?[01]\.(0|01|10)\.[01]{_PRERELEASE}",
    "nuget": r"[01](\.(0|01|10)){0,3}(-(a|B|b|1|01)(\.(A|2))?)?(\+x)?",
    "pep440": r"(1!)?[01](\.(0|1|10)){0,2}((a|b|rc)[01])?(\.post[01])?(\.dev[01])?(\+(l|1)(\.2)?)?",
    "rubygems": r"[01](\.(0|00|1|10|a|pre|ab1)){0,4}(-(1|b))?",
    "semver": rf"v?[01]\.(0|1|10)\.[01]{_PRERELEASE}",
}


def versions_of(scheme: str) -> st.SearchStrategy[str]:
    """Return versions of `scheme` that are close to one another."""
    if scheme in PATTERNS:
        return st.from_regex(PATTERNS[scheme], fullmatch=True)
    texts = st.lists(st.sampled_from(PIECES[scheme]), max_size=8).map(lambda parts: "1" + "".join(parts))
    return texts.filter(lambda text: is_valid(scheme, text))


def is_valid(scheme: str, text: str) -> bool:
    try:
        compare(scheme, text, text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_compare_is_antisymmetric_and_reflexive(scheme):
    @settings(max_examples=150, deadline=None)
    @given(versions_of(scheme), versions_of(scheme))
    def check(left, right):
        assert compare(scheme, left, left) == 0
        assert compare(scheme, left, right) == -compare(scheme, right, left)

    check()


@pytest.mark.parametrize("scheme", sorted(SCHEMES - {"maven"}))
def test_version_keys_sort_like_compare(scheme):
    """This also proves transitivity: bytes have a total order, and every pair agrees with it."""

    @settings(max_examples=80, deadline=None)
    @given(st.lists(versions_of(scheme), min_size=2, max_size=6))
    def check(found):
        ordered = sorted(found, key=lambda text: version_key(scheme, text))
        for position, left in enumerate(ordered):
            for right in ordered[position:]:
                assert compare(scheme, left, right) <= 0

    check()


def rpmvercmp(left: str, right: str) -> int:  # noqa: PLR0911, PLR0912 -- follows the original
    """Compare without keys, like the loop in rpmio/rpmvercmp.cc."""
    one, two = left, right

    def skip(text: str) -> str:
        while text and not (text[0].isascii() and text[0].isalnum()) and text[0] not in "~^":
            text = text[1:]
        return text

    while one or two:
        one, two = skip(one), skip(two)
        if one[:1] == "~" or two[:1] == "~":
            if one[:1] != "~" or two[:1] != "~":
                return 1 if one[:1] != "~" else -1
            one, two = one[1:], two[1:]
            continue
        if one[:1] == "^" or two[:1] == "^":
            if not one or not two:
                return -1 if not one else 1
            if one[0] != "^" or two[0] != "^":
                return 1 if one[0] != "^" else -1
            one, two = one[1:], two[1:]
            continue
        if not (one and two):
            break
        same_kind = str.isdigit if one[0].isdigit() else (lambda character: character.isascii() and character.isalpha())
        ends = []
        for text in (one, two):
            end = 0
            while end < len(text) and same_kind(text[end]):
                end += 1
            ends.append(end)
        if not ends[1]:
            return 1 if one[0].isdigit() else -1
        first, second = one[: ends[0]], two[: ends[1]]
        if one[0].isdigit():
            first, second = first.lstrip("0"), second.lstrip("0")
            if len(first) != len(second):
                return 1 if len(first) > len(second) else -1
        if first != second:
            return 1 if first > second else -1
        one, two = one[ends[0] :], two[ends[1] :]
    return bool(one) - bool(two)


@settings(max_examples=400, deadline=None)
@given(
    *[st.lists(st.sampled_from(["1", "0", "01", ".", "~", "^", "a", "ab", "10", "_", "B"]), min_size=1, max_size=8)] * 2
)
def test_rpm_versions_compare_like_rpmvercmp(left, right):
    assert compare("rpm", "1" + "".join(left), "1" + "".join(right)) == rpmvercmp(
        "1" + "".join(left), "1" + "".join(right)
    )
