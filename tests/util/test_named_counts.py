"""Counts by name: exact under threads, and copied when they are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from resilience._util.finalizers import run_pending
from resilience._util.named_counts import NamedCounts
from tests.support.threads import in_threads


def test_each_name_has_its_count() -> None:
    counts = NamedCounts()
    counts.add("one")
    counts.add("two")
    counts.add("one")

    assert counts.totals() == {"one": 2, "two": 1}


def test_the_totals_are_a_copy() -> None:
    counts = NamedCounts()
    counts.totals()["one"] = 5

    assert counts.totals() == {}


def test_a_signal_handler_that_counts_in_the_middle_of_a_count() -> None:
    counts, handled = NamedCounts(), list[str]()

    class Interrupted(dict[str, int]):
        def get(self, name: str, default: Any = None) -> Any:
            found = super().get(name, default)
            if name not in handled:
                handled.append(name)
                counts.add("one")  # as a handler that makes a call
            return found

    counts._counts = Interrupted()
    counts.add("one")
    run_pending()

    assert counts.totals() == {"one": 2}


@pytest.mark.usefixtures("frequent_switches")
def test_threads_lose_nothing() -> None:
    counts = NamedCounts()

    def work(index: int) -> None:
        del index
        for _ in range(500):
            counts.add("all")

    in_threads(8, work)

    assert counts.totals() == {"all": 4000}
