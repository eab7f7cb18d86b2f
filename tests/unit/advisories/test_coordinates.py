"""Package URLs as OSV coordinates: ecosystem, release, name and version."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL

from lifecycle.core.errors import MalformedPurl
from lifecycle.versions.coordinates import _parse_plain, coordinates
from lifecycle.versions.ecosystems import match_name, split_ecosystem


@pytest.mark.parametrize(
    ("purl", "expected"),
    [
        ("pkg:deb/debian/libssl3@3.0.11-1?arch=amd64&distro=debian-12", ("Debian", "12")),
        ("pkg:deb/debian/libssl3@3.0.11-1?distro=debian-11.6", ("Debian", "11")),
        ("pkg:deb/debian/libssl3@3.0.11-1?distro=debian:12", ("Debian", "12")),
        ("pkg:deb/debian/libssl3@3.0.11-1?distro=bookworm", ("Debian", "12")),
        ("pkg:deb/debian/libssl3@3.0.11-1?distro=debian-bookworm", ("Debian", "12")),
        ("pkg:deb/debian/libssl3@3.0.11-1?distro=12", ("Debian", "12")),
        ("pkg:deb/debian/libssl3@3.0.11-1?distro=sid", ("Debian", "sid")),
        ("pkg:deb/ubuntu/adduser@3.118?distro=ubuntu-22.04", ("Ubuntu", "22.04")),
        ("pkg:deb/ubuntu/adduser@3.118?distro=ubuntu-22.04.3", ("Ubuntu", "22.04")),
        ("pkg:deb/ubuntu/adduser@3.118?distro=ubuntu:22.04:LTS", ("Ubuntu", "22.04")),
        ("pkg:deb/ubuntu/adduser@3.118?distro=jammy", ("Ubuntu", "22.04")),
        ("pkg:apk/alpine/musl@1.2.3-r4?distro=3.17.0", ("Alpine", "v3.17")),
        ("pkg:apk/alpine/musl@1.2.3-r4?distro=alpine-3.17.0", ("Alpine", "v3.17")),
        ("pkg:apk/alpine/musl@1.2.3-r4?distro=v3.17", ("Alpine", "v3.17")),
        ("pkg:apk/wolfi/curl@8.0.0-r0", ("Wolfi", "")),
        ("pkg:apk/wolfi/curl@8.0.0-r0?distro=wolfi-20230201", ("Wolfi", "")),
        ("pkg:rpm/almalinux/bash@5.1-2.el9?distro=almalinux-9.2", ("AlmaLinux", "9")),
        ("pkg:rpm/rocky/bash@5.1-2.el9?distro=rocky-9.2", ("Rocky Linux", "9")),
        ("pkg:rpm/rocky-linux/bash@5.1-2.el8?distro=rocky-linux-8", ("Rocky Linux", "8")),
    ],
)
def test_distribution_is_read_in_every_notation(purl, expected):
    found = coordinates(purl)
    assert (found.ecosystem, found.release) == expected
    assert found.problem is None
    assert found.key is not None


@pytest.mark.parametrize(
    "purl",
    [
        "pkg:deb/debian/libssl3@3.0.11-1",
        "pkg:deb/debian/libssl3@3.0.11-1?distro=debian",
        "pkg:deb/debian/libssl3@3.0.11-1?distro=ubuntu-22.04",
        "pkg:deb/debian/libssl3@3.0.11-1?distro=jammy",
        "pkg:deb/kali/libssl3@3.0.11-1?distro=kali-2023.1",
        "pkg:deb/libssl3@3.0.11-1",
        "pkg:apk/alpine/musl@1.2.3-r4?distro=alpine",
        "pkg:rpm/redhat/acl@2.2.53-1.el8?distro=redhat-8.7",
        "pkg:rpm/rhel/acl@2.2.53-1.el8?distro=rhel-8.7",
        "pkg:rpm/oracle/acl@2.2.53-1.el8?distro=oracle-8.7",
        "pkg:rpm/amazon/acl@2.2.53-1?distro=amazon-2%20%28Karoo%29",
        "pkg:rpm/redhat/acl@2.2.53-1.el8?distro=almalinux-8.7",
        "pkg:generic/curl@8.0.0",
    ],
)
def test_unclear_distribution_is_not_guessed(purl):
    found = coordinates(purl, source_name="x", source_version="1")
    assert (found.ecosystem, found.key) == ("", None)
    assert found.problem


@pytest.mark.parametrize(
    ("purl", "source", "expected"),
    [
        ("pkg:deb/debian/libssl3@3.0.1-1?distro=12&upstream=openssl", ("other", "9"), ("openssl", "3.0.1-1")),
        ("pkg:deb/debian/bash@5.2?distro=12&upstream=bash%405.2.15-2", ("other", "9"), ("bash", "5.2.15-2")),
        ("pkg:deb/debian/libssl3@3.0.1-1?distro=12", ("openssl", "3.0.1-2"), ("openssl", "3.0.1-2")),
        ("pkg:deb/debian/libssl3@3.0.1-1?distro=12", ("openssl", None), ("openssl", "3.0.1-1")),
        ("pkg:deb/debian/libssl3@3.0.1-1?distro=12", (None, None), ("libssl3", "3.0.1-1")),
        ("pkg:deb/debian/a@1.0-1?distro=12&epoch=2", (None, None), ("a", "2:1.0-1")),
        ("pkg:deb/debian/a@2:1.0-1?distro=12&epoch=2", (None, None), ("a", "2:1.0-1")),
        ("pkg:rpm/rocky/a-libs@1-2.el8?distro=8&epoch=1", ("a", "1-2.el8"), ("a", "1:1-2.el8")),
        ("pkg:deb/debian/bsdutils@1:2.36-8?distro=11", ("util-linux", "2.36-8"), ("util-linux", "2.36-8")),
        ("pkg:deb/debian/bsdutils@1:2-8?distro=11&upstream=util-linux@2-8", (None, None), ("util-linux", "2-8")),
        ("pkg:rpm/rocky/a-libs@1-2.el8?distro=8&upstream=a-1-2.el8.src.rpm", ("b", "9"), ("a", "1-2.el8")),
        # The epoch of a source rpm with another version is unknown, so the binary's name and version are used.
        ("pkg:rpm/rocky/perl-x@0.3-1?distro=8&upstream=perl-5.3-1.src.rpm", (None, None), ("perl-x", "0.3-1")),
        # AlmaLinux names binary packages.
        ("pkg:rpm/almalinux/a-libs@1-2.el8?distro=8&epoch=1", ("a", "1-2.el8"), ("a-libs", "1:1-2.el8")),
    ],
)
def test_source_package_comes_from_upstream_then_row_then_binary(purl, source, expected):
    found = coordinates(purl, source_name=source[0], source_version=source[1])
    assert (found.name, found.version) == expected


@pytest.mark.parametrize(
    ("purl", "expected"),
    [
        ("pkg:pypi/Foo_Bar.baz@1.0", ("PyPI", "foo-bar-baz", "pep440")),
        ("pkg:npm/%40scope/name@1.2.3", ("npm", "@scope/name", "npm")),
        ("pkg:golang/github.com/Masterminds/goutils@v1.1.0", ("Go", "github.com/masterminds/goutils", "go")),
        ("pkg:nuget/Newtonsoft.Json@12.0.1", ("NuGet", "newtonsoft.json", "nuget")),
        ("pkg:gem/rails@4.0.0", ("RubyGems", "rails", "rubygems")),
        ("pkg:composer/Symfony/http-kernel@v4.4.0", ("Packagist", "symfony/http-kernel", "packagist")),
        ("pkg:cargo/openssl@0.10.0", ("crates.io", "openssl", "semver")),
        (
            "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.0",
            ("Maven", "org.apache.logging.log4j:log4j-core", "maven"),
        ),
    ],
)
def test_language_package_gets_name_of_osv(purl, expected):
    found = coordinates(purl)
    assert (found.ecosystem, found.name, found.scheme) == expected
    assert found.problem is None
    assert (found.key is None) == (found.scheme == "maven")


@pytest.mark.parametrize(
    ("purl", "reason"),
    [
        ("pkg:pypi/foo@1.0-x", "invalid pep440"),
        ("pkg:pypi/foo", "no version"),
        ("pkg:deb/debian/a@1" + "a1" * 400 + "?distro=12", "too long"),
        ("pkg:pypi/" + "a" * 1001 + "@1", "name is too long"),
    ],
)
def test_problem_says_why_package_cannot_be_matched(purl, reason):
    assert reason in (coordinates(purl).problem or "")


@pytest.mark.parametrize(
    "purl",
    [
        "",
        "openssl",
        "pkg:",
        "pkg:deb",
        "pkg:deb/a\x00@1",
        "pkg:deb/" + "a" * 5000,
        "pkg:npm/a%00b@1",
        "pkg:npm/%00/b@1",
        "pkg:npm/a@1%00",
        "pkg:npm/a@1?x=%00",
        "pkg:npm/a@1#%00",
        "pkg:npm/a\udcff@1",
    ],
)
def test_malformed_purl_is_refused(purl):
    with pytest.raises(MalformedPurl):
        coordinates(purl)


def test_ecosystems_and_names_are_normalised():
    assert split_ecosystem("Ubuntu:22.04:LTS") == ("Ubuntu", "22.04")
    assert split_ecosystem("Ubuntu:Pro:18.04:LTS") == ("Ubuntu", "Pro:18.04")
    assert split_ecosystem("Debian") == ("Debian", "")
    assert split_ecosystem("Alpine:v3.17") == ("Alpine", "v3.17")
    assert match_name("PyPI", "Zope.Interface") == "zope-interface"
    assert match_name("npm", "jQuery") == coordinates("pkg:npm/jQuery@3.0.0").name
    assert match_name("Debian", "libX11") == "libX11"


PARTS = st.text("abAB01._+~%-:/@?&= 2", max_size=5)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["apk", "cargo", "deb", "gem", "golang", "maven", "npm", "nuget", "pypi", "rpm", "composer"]),
    st.tuples(*[PARTS] * 5),
)
def test_plain_purls_are_parsed_like_all_others(kind, parts):
    """The fast way for plain purls gives what packageurl gives."""
    namespace, name, version, key, value = parts
    for purl in (f"pkg:{kind}/{namespace}/{name}@{version}?{key}={value}&distro=x", f"pkg:{kind}/{name}@{version}"):
        fast = _parse_plain(purl)
        if fast is not None:
            slow = PackageURL.from_string(purl)
            assert (tuple(fast), fast.to_string()) == (tuple(slow), slow.to_string())


def test_purls_of_scanners_are_plain():
    for purl in (
        "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64&distro=debian-12",
        "pkg:rpm/almalinux/bash@5.1.8-9.el9?arch=x86_64&upstream=bash-5.1.8-9.el9.src.rpm&distro=almalinux-9.4",
        "pkg:apk/alpine/musl@1.2.4_git20230717-r4?arch=x86_64&distro=alpine-3.19.1",
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?distro=debian-12".replace("%2B", "+"),
        "pkg:maven/org.apache.commons/commons-lang3@3.12.0", "pkg:npm/lodash@4.17.21", "pkg:pypi/urllib3@1.26.12",
    ):  # fmt: skip
        assert _parse_plain(purl) is not None
