"""Counts by name: exact under threads, and copied when they are asked for."""

from __future__ import annotations

import pytest

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


@pytest.mark.usefixtures("frequent_switches")
def test_threads_lose_nothing() -> None:
    counts = NamedCounts()

    def work(index: int) -> None:
        del index
        for _ in range(500):
            counts.add("all")

    in_threads(8, work)

    assert counts.totals() == {"all": 4000}
