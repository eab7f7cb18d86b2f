"""What a request remembers: once in a read, never in a change, nothing after it."""

from __future__ import annotations

import pytest

from lifecycle.core.context import RequestContext, once_a_read, request_context


@pytest.mark.parametrize(("is_read", "expected"), [(True, [1, 1, 1]), (False, [1, 2, 3])])
def test_only_a_request_that_changes_nothing_remembers(is_read: bool, expected: list[int]) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made) + 1)
        return made[-1]

    with request_context(RequestContext(), is_read=is_read):
        assert [once_a_read("key", make) for _ in range(3)] == expected
        assert once_a_read("another key", lambda: 0) == 0
    assert once_a_read("key", make) == expected[-1] + 1
