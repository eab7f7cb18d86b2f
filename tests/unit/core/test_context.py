"""The request cache: a read request computes a value once, every other request each time."""

from __future__ import annotations

import pytest

from lifecycle.core.context import RequestContext, once_a_read, request_context


@pytest.mark.parametrize(("is_read", "expected"), [(True, [1, 1, 1]), (False, [1, 2, 3])])
def test_value_is_cached_only_during_a_read_request(is_read: bool, expected: list[int]) -> None:
    computed: list[int] = []

    def compute() -> int:
        computed.append(len(computed) + 1)
        return computed[-1]

    with request_context(RequestContext(), is_read=is_read):
        assert [once_a_read("key", compute) for _ in range(3)] == expected
        assert once_a_read("another key", lambda: 0) == 0
    assert once_a_read("key", compute) == expected[-1] + 1
