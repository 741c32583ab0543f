"""Timeout by itself: settings, deadlines, threads left behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from resilience import (
    BulkheadFullError,
    DeferredSettlement,
    Pipeline,
    RejectReason,
    ResilienceWarning,
    Timeout,
    current_deadline,
    deadline_after,
    remaining,
)
from resilience._call.call import Call, CallOptions
from resilience._outcome.ending import OK
from resilience._util.clock import FOREVER
from resilience.events import Rejected
from resilience.testing import Recorder, VirtualClock


def a_call(deadline: float = FOREVER) -> Call:
    _, binding = Pipeline(Timeout(1)).entry()
    call = Call.make(CallOptions(binding.pipeline), print, (), {})
    call.deadline = deadline
    return call


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"seconds": 0}, ValueError, "seconds must be a number > 0, not 0"),
        ({"seconds": -1}, ValueError, "seconds"),
        ({"seconds": float("nan")}, ValueError, "seconds"),
        ({"seconds": float("inf")}, ValueError, "seconds"),
        ({"seconds": "1"}, TypeError, "seconds"),
        ({"seconds": True}, TypeError, "seconds"),
        ({"seconds": None}, ValueError, "together with share="),
        ({"seconds": 1, "share": 0}, ValueError, "share must be a number > 0 and <= 1"),
        ({"seconds": 1, "share": 1.1}, ValueError, "share"),
        ({"seconds": 1, "reserve": -0.1}, ValueError, "reserve"),
        ({"seconds": 1, "thread": 1}, TypeError, "thread"),
        ({"seconds": 1, "max_abandoned": 0}, ValueError, "max_abandoned must be an integer >= 1"),
        ({"seconds": 1, "mode": "loud"}, ValueError, "mode"),
    ],
)
def test_bad_input(wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Timeout(**wrong)


def test_the_deadline_is_so_many_seconds_from_now() -> None:
    assert Timeout(2.5).deadline(a_call(), 100.0) == 102.5
    assert Timeout(2.5).deadline(a_call(101.0), 100.0) == 102.5  # the call has the earlier one already


def test_a_share_is_of_what_remains() -> None:
    timeout = Timeout(10, share=0.5)

    assert timeout.deadline(a_call(), 100.0) == 110.0  # nobody said how much remains
    assert timeout.deadline(a_call(104.0), 100.0) == 102.0
    assert timeout.deadline(a_call(200.0), 100.0) == 110.0
    assert timeout.deadline(a_call(99.0), 100.0) == 100.0


def test_a_share_needs_no_seconds() -> None:
    timeout = Timeout(None, share=0.25)

    assert timeout.deadline(a_call(), 100.0) == FOREVER
    assert timeout.deadline(a_call(104.0), 100.0) == 101.0
    assert (timeout.seconds, timeout._expected_seconds) == (None, None)


def test_a_reserve_is_left_for_what_comes_after() -> None:
    timeout = Timeout(10, reserve=1.5)

    assert timeout.deadline(a_call(104.0), 100.0) == 102.5
    assert timeout.deadline(a_call(101.0), 100.0) == 100.0


def test_an_update_counts_from_the_next_call_on() -> None:
    timeout = Timeout(1)

    timeout.update(seconds=5, share=0.5)

    assert timeout.deadline(a_call(), 0.0) == 5.0
    assert timeout.deadline(a_call(2.0), 0.0) == 1.0
    with pytest.raises(ValueError, match="seconds"):
        timeout.update(seconds=-1, share=None)
    assert timeout.settings.share == 0.5


def test_it_describes_itself() -> None:
    described = Timeout(1, name="each attempt").describe()

    assert described["name"] == "each attempt"
    assert described["settings"]["seconds"] == 1.0
    assert repr(Timeout(1)) == "Timeout(seconds=1.0)"
    assert repr(Timeout(1, thread=True)) == "Timeout(seconds=1.0, thread=True)"


def test_the_function_sees_the_deadline(virtual_clock: VirtualClock) -> None:
    seen: list[float | None] = []

    def look() -> None:
        seen.append(remaining())

    Pipeline(Timeout(5), Timeout(2)).call(look)
    with pytest.warns(ResilienceWarning, match=r"timeout_2 \(5 s\) is inside timeout \(2 s\)"):
        Pipeline(Timeout(2), Timeout(5)).call(look)
    with deadline_after(1):
        Pipeline(Timeout(2)).call(look)

    assert seen == pytest.approx([2, 2, 1])
    assert current_deadline() is None
    assert remaining() is None
    assert remaining(default=30.0) == 30.0


def hang(released: threading.Event) -> str:
    released.wait(10)
    return "late"


def test_too_many_threads_left_behind_refuse_calls() -> None:
    released = threading.Event()
    timeout = Timeout(0.01, thread=True, max_abandoned=2)
    pipeline = Pipeline(timeout)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            pipeline.call(hang, released)
    assert (timeout.abandoned, timeout.snapshot()) == (2, {"abandoned": 2})

    with Recorder(pipeline, events=[Rejected]) as recorder, pytest.raises(BulkheadFullError) as caught:
        pipeline.call(hang, released)
    assert caught.value.reason is RejectReason.ABANDONED_FULL
    assert caught.value.unprocessed is True
    assert [event.reason for event in recorder.of(Rejected)] == ["abandoned_full"]

    released.set()
    assert pipeline.drain(10)
    assert timeout.abandoned == 0
    assert pipeline.snapshot()["in_flight"] == 0


def test_a_thread_that_ends_is_counted_out_once() -> None:
    timeout = Timeout(1, thread=True)
    errand = DeferredSettlement(known=True)
    timeout.on_thread_abandoned(errand)
    assert timeout.abandoned == 1

    errand.end(OK)
    errand.end(OK)

    assert timeout.abandoned == 0


def test_so_many_threads_may_be_abandoned_by_default() -> None:
    assert Timeout(1).settings.max_abandoned == 32


def test_a_lower_max_abandoned_refuses_calls_while_more_are_left() -> None:
    timeout = Timeout(1, thread=True, max_abandoned=3)
    left = [DeferredSettlement(known=True) for _ in range(3)]
    for one in left:
        timeout.on_thread_abandoned(one)

    timeout.update(max_abandoned=1)

    with pytest.raises(BulkheadFullError, match="max_abandoned=1"):
        timeout.before_thread_call(a_call())
    for one in left:
        one.end(OK)
    timeout.before_thread_call(a_call())
