"""What retention deletes: each reason keeps an image that would go without it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lifecycle.policy.retention import BASE, CHILD, REFERRER, DigestFacts, Rules, Why, judge, sizes

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
RULES = Rules(keep_last=1, untagged_days=7)


def days(number: float) -> datetime:
    return NOW - timedelta(days=number)


def fact(image: int, *tags: str, age: float = 100, rules: Rules | None = RULES, **more: object) -> DigestFacts:
    facts = DigestFacts(
        repository=1, image=image, digest=f"sha256:{image:064x}", tags=tags, pushed_at=days(age),
        untagged_since=None if tags else days(age), rules=rules,
    )  # fmt: skip
    return replace(facts, **more)  # type: ignore[arg-type]  # fields of the facts


def verdict(*facts: DigestFacts) -> dict[int, tuple[bool, list[str]]]:
    """Return {image: (is kept, codes)}; a digest of another repository counts from 1,000."""
    found = judge(facts, NOW)
    return {
        image + 1000 * (repository - 1): (it.is_kept, [why.code for why in it.reasons])
        for (repository, image), it in found.items()
    }


NEWEST = fact(1, "3.0", age=1)


def test_the_last_tagged_images_are_kept_and_the_others_go():
    facts = [fact(2, "2.0", age=20), NEWEST, fact(3, "1.0", age=30)]
    assert verdict(*facts) == {
        1: (True, ["keep_last"]), 2: (False, ["not_in_last"]), 3: (False, ["not_in_last"]),
    }  # fmt: skip
    two = [replace(row, rules=Rules(keep_last=2)) for row in facts]
    assert [image for image, (kept, _) in verdict(*two).items() if kept] == [2, 1]


def test_each_repository_has_its_own_last_images():
    elsewhere = replace(fact(2, "2.0", age=20), repository=2)
    assert verdict(NEWEST, elsewhere) == {1: (True, ["keep_last"]), 1002: (True, ["keep_last"])}


@pytest.mark.parametrize(
    ("rules", "age", "kept", "codes"),
    [
        (Rules(keep_days=30), 29.9, True, ["keep_days"]),
        (Rules(keep_days=30), 30, False, ["older"]),
        (Rules(keep_last=1, keep_days=30), 40, False, ["not_in_last", "older"]),
        (Rules(keep_last=1, tags=("v*",)), 40, True, ["tags"]),
        (Rules(keep_last=1, tags=("w*",)), 40, False, ["not_in_last"]),
        (Rules(untagged_days=1), 40, True, ["no_rule"]),  # it says nothing about tags
        (Rules(tags=("w*",)), 40, True, ["no_rule"]),
        (None, 40, True, ["no_rule"]),
    ],
)
def test_rules_of_tagged_images(rules, age, kept, codes):
    alone = [replace(NEWEST, rules=rules), fact(2, "a", "v1", age=age, rules=rules)]
    assert verdict(*alone)[2] == (kept, codes)


@pytest.mark.parametrize(
    ("rules", "age", "kept", "code"),
    [
        (Rules(untagged_days=7), 6.9, True, "untagged_days"),
        (Rules(untagged_days=7), 7, False, "untagged"),
        (Rules(keep_last=1), 700, True, "no_rule"),
        (None, 700, True, "no_rule"),
    ],
)
def test_rules_of_images_without_a_tag(rules, age, kept, code):
    assert verdict(fact(2, rules=rules, age=age)) == {2: (kept, [code])}


def test_age_without_a_tag_counts_from_the_day_it_lost_its_tag():
    row = fact(2, age=700, untagged_since=days(3))
    assert verdict(row) == {2: (True, ["untagged_days"])}
    assert judge([fact(2, age=9)], NOW)[1, 2].reasons[0].text == "Without a tag for 9 days."


@pytest.mark.parametrize(
    "code",
    [
        "promoted", "requested", "rollback", "running", "seen", "silent_cluster", "unknown_runtime", "protected_tag",
        "quarantined", "evidence",
    ],
)  # fmt: skip
def test_what_is_protected_is_kept_whatever_the_rules_say(code):
    tagged, untagged = fact(2, "old"), fact(3)
    assert [verdict(NEWEST, row)[row.image][0] for row in (tagged, untagged)] == [False, False]
    why = (Why(code, "It is needed."),)
    kept = [replace(row, protections=why) for row in (tagged, untagged)]
    assert [verdict(NEWEST, row)[row.image] for row in kept] == [(True, [code]), (True, [code])]


def test_one_kept_tag_keeps_the_digest_with_all_its_tags():
    rules = Rules(keep_last=1, tags=("lts",))
    rows = [fact(1, "3.0", age=1, rules=rules), fact(2, "lts", "old", rules=rules)]
    assert verdict(*rows)[2] == (True, ["tags"])
    assert verdict(rows[0], replace(rows[1], tags=("old",)))[2] == (False, ["not_in_last"])


def test_platforms_go_and_stay_with_their_index():
    platform = fact(5, indexes=frozenset({1}))
    assert verdict(NEWEST, platform)[5] == (True, [CHILD])
    old = fact(2, "2.0")
    assert verdict(NEWEST, old, replace(platform, indexes=frozenset({2})))[5] == (False, ["index_deleted"])
    assert verdict(NEWEST, old, replace(platform, indexes=frozenset({1, 2})))[5] == (True, [CHILD])


def test_a_platform_with_a_tag_of_its_own_is_judged_for_itself():
    rows = [fact(2, "2.0"), fact(5, "arm", age=0, indexes=frozenset({2}))]
    assert verdict(*rows) == {2: (False, ["not_in_last"]), 5: (True, ["keep_last"])}


def test_what_refers_to_an_image_goes_and_stays_with_it():
    signature = fact(5, "sha256-1.sig", age=0, subjects=frozenset({1}))
    assert verdict(NEWEST, signature) == {1: (True, ["keep_last"]), 5: (True, [REFERRER])}
    old = fact(2, "2.0")
    assert verdict(NEWEST, old, replace(signature, subjects=frozenset({2})))[5] == (False, ["subject_deleted"])


def test_bases_of_kept_images_stay_in_all_repositories_and_so_do_their_bases():
    base = replace(fact(7, bases=frozenset({8})), repository=2)
    root = replace(fact(8), repository=3)
    newest = replace(NEWEST, bases=frozenset({7}))
    assert verdict(newest, base, root) == {1: (True, ["keep_last"]), 1007: (True, [BASE]), 2008: (True, [BASE])}
    old = replace(fact(2, "2.0"), bases=frozenset({7}))
    assert verdict(NEWEST, old, base, root)[1007] == (False, ["untagged"])


def test_all_reasons_are_given_each_once():
    why = (Why("running", "It runs."), Why("promoted", "Deployed."), Why("running", "It runs twice."))
    row = fact(2, "lts", protections=why, rules=Rules(keep_last=1, keep_days=200, tags=("lts",)))
    rows = [row, *(fact(10 + number, age=900, bases=frozenset({2}), protections=why) for number in range(3))]
    assert verdict(*rows)[2] == (True, ["running", "promoted", "tags", "keep_last", "keep_days", BASE])


def test_each_blob_counts_once_and_only_unused_ones_are_freed():
    deleted = {(1, 1): {"a": 10, "b": 5}, (1, 2): {"a": 10, "c": 1}}
    found = sizes(deleted, frozenset({"c"}))
    assert (found.deleted, found.freed, dict(found.by_key)) == (16, 15, {(1, 1): 15, (1, 2): 0})
    assert sizes(deleted, frozenset({"a"})).freed == 6
