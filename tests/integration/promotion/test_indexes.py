"""Judging an index: all its images, also in nested indexes, and missing children."""

from __future__ import annotations

import pytest

from lifecycle.evidence.findings import finding_severities, unscanned
from lifecycle.oci.constants import GRAPH_DEPTH_MAX
from lifecycle.policy.judging import judge_promotion
from lifecycle.promotion import queries, services
from lifecycle.registry.models import MissingChild, RepositoryImage
from lifecycle.registry.platforms import entries_of_images, platform_ids, trees_of
from tests.factories import dock as rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def nested(dock):
    """An index of the clean image and a nested index with an image that is not scanned."""
    arm = rows.image("arm", architecture="arm64")
    top = rows.index("top", dock.image, rows.index("below", arm))
    RepositoryImage.objects.create(repository=dock.repository, image=top)
    return top, arm


def judged(dock, image):
    request = services.request_promotion(
        dock.repository, image.digest, dock.dev, actor=dock.requester, reason="a test"
    )  # fmt: skip
    found = judge_promotion(queries.facts_of(request)).requirements
    return {requirement.name: (requirement.status.value, requirement.summary) for requirement in found}


def test_image_in_nested_index_is_judged_shown_and_counted(dock, nested):
    top, arm = nested
    stands = judged(dock, top)
    assert stands["packages_known"] == ("pending", "The scan has not finished.")
    assert stands["platforms_complete"] == ("satisfied", "linux/amd64, linux/arm64")
    assert platform_ids(top) == [dock.image.pk, arm.pk]
    assert [digest for digest, _ in unscanned(top)] == [arm.digest]
    assert [platform for platform, _ in entries_of_images([top])[top.pk]] == ["linux/amd64", "linux/arm64"]
    assert finding_severities([top]) == {top.pk: None}
    bad = rows.package("libssl3", "1")
    rows.carry(arm, 0, bad)
    rows.advisory("CVE-1", "critical", bad, fixed="2")
    assert [key.osv_id for key in finding_severities([top])[top.pk]] == ["CVE-1"]


def test_index_with_child_missing_in_registry_is_incomplete(dock, nested):
    top, arm = nested
    rows.carry(arm, 0, rows.package("libssl3", "1"))
    below = arm.parents.get().index
    MissingChild.objects.create(index=below, digest=rows.sha("s390x"), position=1, platform="linux/s390x")
    assert judged(dock, top)["platforms_complete"] == ("unsatisfied", "Not in the registry: linux/s390x.")


def test_index_nested_too_deep_is_unknown(dock, django_assert_max_num_queries):
    top = dock.image
    for number in range(GRAPH_DEPTH_MAX + 2):
        top = rows.index(f"level {number}", top)
    RepositoryImage.objects.create(repository=dock.repository, image=top)
    with django_assert_max_num_queries(GRAPH_DEPTH_MAX + 1):
        assert trees_of([top])[top.pk].is_cut
    assert finding_severities([top]) == {top.pk: None}
    stands = judged(dock, top)
    assert {stands["packages_known"][0], stands["platforms_complete"][0]} == {"pending", "unsatisfied"}


def test_many_images_cost_same_queries_as_one(dock, nested, django_assert_num_queries):
    others = [rows.index(f"other {number}", rows.image(f"image {number}"), nested[0]) for number in range(3)]
    with django_assert_num_queries(2):
        found = trees_of([*others, nested[0], dock.image])
    assert [len(found[index.pk].manifests) for index in others] == [3, 3, 3]
    assert found[dock.image.pk].manifests == [("", dock.image.pk)]
