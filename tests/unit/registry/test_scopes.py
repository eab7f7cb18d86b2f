"""Registry scopes: which are parsed, and which actions are granted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.oci.scopes import SCOPES_MAX, Scope, granted, parse_scopes, repository_scope


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["repository:shop/api:pull"], ["repository:shop/api:pull"]),
        (["repository:shop/api:push,pull"], ["repository:shop/api:pull,push"]),
        (["repository:a:pull repository:b:push"], ["repository:a:pull", "repository:b:push"]),
        (["repository:a:pull", "repository:a:push"], ["repository:a:pull,push"]),
        (["repository:a:*"], ["repository:a:pull,push,delete"]),
        (["repository(plugin):a:pull"], ["repository:a:pull"]),
        (["registry:catalog:*"], ["registry:catalog:*"]),
        (["registry:catalog:pull"], []),
        (["registry:other:*"], []),
        (["repository:a:"], []),
        (["repository:a:pull,bogus,"], ["repository:a:pull"]),
        (["repository:A:pull"], []),
        (["repository:a/../b:pull"], []),
        (["repository:a//b:pull"], []),
        (["repository:ä:pull"], []),
        (["REPOSITORY:a:pull"], []),
        (["repository:a"], []),
        (["::", ":", "", " ", "a:b:c"], []),
        (["repository:" + "a" * 256 + ":pull"], []),
        # Old clients add a host and port. The scope is split correctly, and the name is refused.
        (["repository:localhost:5000/shop/api:pull"], []),
    ],
)
def test_valid_scopes_are_parsed_and_others_dropped(texts: list[str], expected: list[str]) -> None:
    assert [str(scope) for scope in parse_scopes(texts)] == expected


def test_number_of_scopes_is_limited_without_error() -> None:
    assert len(parse_scopes([f"repository:r{n}:pull" for n in range(1000)])) == SCOPES_MAX
    assert len(parse_scopes([" ".join(f"repository:r{n}:pull" for n in range(1000))])) == SCOPES_MAX


@given(st.lists(st.text(max_size=60), max_size=20))
def test_any_text_is_parsed_without_error(texts: list[str]) -> None:
    for scope in parse_scopes(texts):
        assert scope.kind in {"repository", "registry"}
        assert scope.actions


_NAMES = st.sampled_from(["a", "b/c", "d"])
_ACTIONS = st.sets(st.sampled_from(["pull", "push", "delete", "*", "x"]), min_size=1)


@given(st.lists(st.tuples(_NAMES, _ACTIONS)), st.dictionaries(_NAMES, st.sets(st.sampled_from(["pull", "push"]))))
def test_granted_actions_never_exceed_held_actions(
    requested: list[tuple[str, set[str]]], held: dict[str, set[str]]
) -> None:
    scopes = parse_scopes([f"repository:{name}:{','.join(actions)}" for name, actions in requested])
    grant = granted(scopes, {("repository", name): frozenset(actions) for name, actions in held.items()})
    for scope in grant:
        assert scope.actions <= held.get(scope.name, set())
        assert scope.actions


def test_access_entry_lists_actions_in_order() -> None:
    assert repository_scope("a", "push", "pull").as_access() == {
        "type": "repository",
        "name": "a",
        "actions": ["pull", "push"],
    }
    assert Scope("registry", "catalog", frozenset({"*"})).as_access()["actions"] == ["*"]
