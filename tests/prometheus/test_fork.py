"""Forks while another thread counts: the child finds whole counts, and no lock that is held."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from resilience import Pipeline
from resilience.prometheus._meters import Histogram
from tests.prometheus.reading import exposed
from tests.support.fork import in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
CALLS = "resilience_calls_total"


def test_a_fork_waits_until_counts_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline[Any](name="folds_while_forking")
    begun = threading.Event()
    add_sorted = Histogram.add_sorted

    def slow(histogram: Histogram, values: Any) -> None:
        if values and threading.current_thread() is not threading.main_thread():
            begun.set()
            for _ in range(1000):  # the other thread forks meanwhile, if it can
                os.sched_yield()
        add_sorted(histogram, values)

    monkeypatch.setattr(Histogram, "add_sorted", slow)
    with exposed() as found:
        pipeline.call(int)
        scrape = threading.Thread(target=found.text)
        scrape.start()
        begun.wait()

        def child() -> str:
            pipeline.call(int)
            count = found.value("resilience_call_duration_seconds_count", pipeline="folds_while_forking")
            return f"{found.value(CALLS, pipeline='folds_while_forking', outcome='ok')} {count}"

        assert in_child(child) == "2 2"
        scrape.join()
