"""The statements of the lineage pages select what the grants of the reader show, also where a base is hidden."""

from __future__ import annotations

from itertools import pairwise

import pytest

from accounts.models import User
from lifecycle.authority.queries import images_visible_to
from lifecycle.lineage.models import Ancestry, Derivation
from lifecycle.pages.lineage.page_queries import COUNTED_MAX, derived_counts, roots_visible
from lifecycle.registry.models import Image, RepositoryImage
from tests.factories import dock

pytestmark = pytest.mark.django_db


@pytest.fixture
def chain() -> dict[str, Image]:
    """Two chains: root < runtime < platform < app, and lone < tool; each image in the repository of its own team."""
    images = {name: dock.image(name) for name in ("root", "runtime", "platform", "app", "lone", "tool", "plain")}
    for name, image in images.items():
        dock.push(dock.repository(f"{name}/it"), image, "1")
    for names in (("root", "runtime", "platform", "app"), ("lone", "tool")):
        for base, derived in pairwise(names):
            Derivation.objects.create(
                base=images[base], derived=images[derived], evidence=["layers"], confidence=Derivation.Confidence.HIGH
            )
        for number, above in enumerate(names):
            for depth, below in enumerate(names[number + 1 :], start=1):
                Ancestry.objects.create(ancestor=images[above], descendant=images[below], depth=depth)
    return images


def _reader(*teams: str) -> User:
    for name in teams:
        dock.user("reader", "viewer", of=dock.team(name))
    return dock.user("reader")


@pytest.mark.parametrize(
    ("teams", "roots"),
    [
        ("root runtime platform app lone tool plain", "lone root"),
        ("runtime platform app plain", "runtime"),
        ("root app", "root"),  # what is between is hidden
        ("platform runtime", "runtime"),
        ("root", ""),  # no image on it that the reader can see
        ("app tool plain", ""),
        ("", ""),
    ],
)
def test_roots_are_the_bases_without_a_base_that_the_reader_sees(
    chain: dict[str, Image], teams: str, roots: str
) -> None:
    reader = _reader(*teams.split())
    found = roots_visible(reader).order_by("-id")
    assert {image.pk for image in found} == {chain[name].pk for name in roots.split()}
    assert {image.pk for image in found} <= set(images_visible_to(reader).values_list("pk", flat=True))


def test_removed_image_is_no_root_and_hides_none(chain: dict[str, Image]) -> None:
    reader = _reader(*chain)
    RepositoryImage.objects.filter(image=chain["root"]).update(removed_at=chain["root"].first_seen_at)
    assert {image.pk for image in roots_visible(reader)} == {chain["runtime"].pk, chain["lone"].pk}


def test_derived_images_are_counted_as_the_reader_sees_them(chain: dict[str, Image]) -> None:
    ids = [image.pk for image in chain.values()]
    assert list(derived_counts(ids, _reader(*chain)).values()) == ["3", "2", "1", "0", "1", "0", "0"]
    stranger = dock.user("stranger", "viewer", of=dock.team("app"))
    assert list(derived_counts(ids, stranger).values()) == ["1", "1", "1", "0", "0", "0", "0"]
    assert derived_counts([], stranger) == {}


@pytest.mark.parametrize(("number", "words"), [(COUNTED_MAX, "100"), (COUNTED_MAX + 1, "100+")])
def test_count_of_derived_images_stops(chain: dict[str, Image], number: int, words: str) -> None:
    derived = [dock.image(f"derived {at}", layers=0) for at in range(number)]
    place = dock.repository("plain/it")
    RepositoryImage.objects.bulk_create(RepositoryImage(repository=place, image=image) for image in derived)
    Ancestry.objects.bulk_create(Ancestry(ancestor=chain["plain"], descendant=image, depth=1) for image in derived)
    assert derived_counts([chain["plain"].pk], _reader(*chain)) == {chain["plain"].pk: words}
