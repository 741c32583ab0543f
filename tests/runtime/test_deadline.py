"""The ambient deadline: carried into threads, only ever shrinking, and put back."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

from resilience import Pipeline, Timeout, carry, current_deadline, deadline_after, remaining


def test_a_deadline_is_carried_into_a_thread() -> None:
    seen: list[float | None] = []

    def look() -> None:
        seen.append(current_deadline())

    with deadline_after(5):
        at = current_deadline()
        thread = threading.Thread(target=carry(look))
        thread.start()
        thread.join()
        bare = threading.Thread(target=look)
        bare.start()
        bare.join()

    assert seen == [at, None]


def test_a_carried_deadline_only_shrinks() -> None:
    with deadline_after(50):
        carried = carry(remaining)
    with deadline_after(5):
        left = carried()

    assert left is not None
    assert left <= 5


def test_a_generator_left_unfinished_does_not_leave_its_deadline_behind() -> None:
    def pages() -> Any:
        with deadline_after(5):
            yield 1

    def first() -> Any:
        generator = pages()
        next(generator)
        return [generator]

    generators = Pipeline(Timeout(100)).call(first)
    assert current_deadline() is None
    generators[0].close()

    assert current_deadline() is None


@pytest.mark.parametrize("none", [None, math.inf, math.nan, 1e9, 9.2e18])
def test_what_others_give_for_no_deadline_sets_none(none: float | None) -> None:
    with deadline_after(none) as at:
        assert at == math.inf
        assert current_deadline() is None
    with deadline_after(5), deadline_after(none) as at:
        assert current_deadline() == at < math.inf
