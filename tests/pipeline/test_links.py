"""The links of a chain: which neighbours are joined."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import Bulkhead, CircuitBreaker, Mode, Policy, Retry, Timeout
from resilience._pipeline.links import GatePair, Part, ScopedLoop, fuse


def parts(*policies: Policy[Any], mode: Mode = Mode.ENFORCE) -> list[Part]:
    return [Part(policy, mode, looped=False) for policy in policies]


class TestFusing:
    """Neighbours that one closure drives; the result is innermost first."""

    def test_two_gates_are_a_pair_and_a_third_is_alone(self) -> None:
        one, two, three = Bulkhead(1), CircuitBreaker(), Bulkhead(3)

        assert fuse(parts(one)) == parts(one)
        assert fuse(parts(one, two)) == [GatePair(one, two)]
        assert fuse(parts(one, two, three)) == [GatePair(two, three), *parts(one)]

    def test_gates_with_something_between_them_are_no_pair(self) -> None:
        one, retry, two = Bulkhead(1), Retry(), Bulkhead(2)

        assert fuse(parts(one, retry, two)) == parts(two, retry, one)

    def test_what_only_watches_is_driven_alone(self) -> None:
        one, two = Bulkhead(1), Bulkhead(2)
        timeout, retry = Timeout(1), Retry()

        for outer, inner in ((one, two), (timeout, retry)):
            shadow = [*parts(outer), *parts(inner, mode=Mode.SHADOW)]
            assert fuse(shadow) == shadow[::-1]

    def test_a_timeout_right_around_a_retry_is_driven_with_it(self) -> None:
        timeout, retry = Timeout(1), Retry()

        assert fuse(parts(timeout, retry)) == [ScopedLoop(timeout, retry, looped=False, seconds=1.0)]
        assert fuse(parts(retry, timeout)) == parts(timeout, retry)

    @pytest.mark.parametrize("timeout", [Timeout(1, share=0.5), Timeout(1, thread=True)])
    def test_one_whose_time_varies_or_that_has_a_thread_is_not(self, timeout: Timeout) -> None:
        retry = Retry()

        assert fuse(parts(timeout, retry)) == parts(retry, timeout)
