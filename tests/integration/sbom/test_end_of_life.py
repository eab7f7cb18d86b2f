"""When the support of distributions and runtimes ends."""

from __future__ import annotations

import json
from datetime import date

import pytest

from accounts.queries import system_user
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.sbom import end_of_life
from lifecycle.sbom.end_of_life import distribution_support, end_of, parse, supports_of, table
from lifecycle.sbom.packages import Package
from lifecycle.sbom.services import Content, store
from tests.factories import dock

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("version", "end"),
    [("3.1", "2001-01-01"), ("3.10", "2010-01-01"), ("v3.10.4_rc1", "2010-01-01"), ("3.11", None), ("4", None),
     ("edge", None), ("", None)],
)  # fmt: skip
def test_a_version_belongs_to_the_longest_cycle(version, end):
    cycles = {"3.1": date(2001, 1, 1), "3.10": date(2010, 1, 1)}
    assert end_of(cycles, version) == (date.fromisoformat(end) if end else None)


def test_the_shipped_table_is_dated_and_knows_what_images_stand_on():
    known = table()
    assert known.as_of <= date(2026, 12, 31)
    assert {"alpine", "debian", "ubuntu"} <= set(known.distributions)
    assert distribution_support("alpine-3.16.2").is_over is True
    assert distribution_support("debian-13").is_over is False
    assert (distribution_support("debian-99").is_over, distribution_support("")) == (None, None)


def test_a_file_replaces_the_table_and_a_bad_one_takes_nothing_away(tmp_path, settings):
    path = tmp_path / "ends.json"
    settings.END_OF_LIFE_FILE = str(path)
    shipped = table()
    path.write_text(json.dumps({"as_of": "2027-01-01", "distributions": {"debian": {"12": "2020-01-01"}}}))
    assert (table().as_of, distribution_support("debian-12").is_over) == (date(2027, 1, 1), True)
    path.write_text('{"as_of": "soon", "distributions": {}, "x": 1}')
    assert table() == shipped
    for content, place in (
        (b"[]", "/ is not"), (b"{}", "/as_of"), (b'{"as_of": "2027-01-01", "runtimes": {"a": 1}}', "/runtimes"),
        (b'{"as_of": "2027-01-01", "runtimes": {"a": {"1": "x"}}}', "/runtimes/a/1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=place):
            parse(content)
    assert end_of_life._FILE_MAX == 1024**2


def test_an_image_has_the_support_of_its_distribution_and_runtimes(django_assert_num_queries):
    image, bare = dock.image("api"), dock.image("bare")
    packages = [Package("pkg:generic/python@3.8.2"), Package("pkg:generic/other@1"), Package("pkg:pypi/python@3.8")]
    store({image.pk: Content(packages, distro="debian-12")}, actor=system_user())
    image.refresh_from_db()
    with django_assert_num_queries(1):
        found = supports_of([image, bare])
    assert [(one.name, one.version, one.is_over) for one in found[image.pk]] == [
        ("debian", "12", False), ("python", "3.8.2", True),
    ]  # fmt: skip
    assert found[bare.pk] == []
    where = dock.repository("shop/api")
    of_image, of_bare = facts_of_images([(image, where, None), (bare, where, None)], set())
    (known,), (unknown,) = of_image.platforms, of_bare.platforms
    assert (known.distro, known.supported_until) == ("debian-12", date(2028, 6, 30))
    assert (unknown.distro, unknown.supported_until) == (None, None)  # not scanned
