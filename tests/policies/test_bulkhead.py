"""A bulkhead by itself: its settings, and permits and places in the queue by its hooks."""

from __future__ import annotations

import gc
import math
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest

from resilience import BulkheadFullError, Ending, EndingKind
from resilience._call.wait_queue import TicketState
from resilience._outcome.ending import OK
from resilience._policies.bulkhead import Bulkhead
from resilience._util.finalizers import run_later, run_pending
from tests.policies.helpers import admitted, call_of, give_back, idle, queued

# Settings


def test_the_defaults() -> None:
    bulkhead = Bulkhead(5)

    assert bulkhead.describe() == {
        "kind": "bulkhead",
        "name": "bulkhead",
        "mode": "enforce",
        "settings": {"limit": 5, "queue": 0, "max_wait": 1.0},
    }
    assert bulkhead.snapshot() == {"in_flight": 0, "queued": 0, "limit": 5, "peak": 0}
    assert (bulkhead.limit, bulkhead.in_flight, bulkhead.queued, bulkhead.peak) == (5, 0, 0, 0)
    assert repr(bulkhead) == "Bulkhead(limit=5)"
    assert bulkhead.holds_permit


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"limit": 0}, ValueError, "limit must be an integer >= 1, not 0"),
    ({"limit": -3}, ValueError, "limit must be an integer >= 1, not -3"),
    ({"limit": 2.0}, TypeError, "limit must be an integer >= 1, not 2.0"),
    ({"limit": True}, TypeError, "limit must be an integer >= 1, not True"),
    ({"limit": None}, TypeError, "limit must be an integer >= 1, not None"),
    ({"queue": -1}, ValueError, "queue must be an integer >= 0, not -1"),
    ({"queue": 1.5}, TypeError, "queue must be an integer >= 0, not 1.5"),
    ({"max_wait": -0.1}, ValueError, "max_wait must be a number >= 0, not -0.1"),
    ({"max_wait": math.inf}, ValueError, "max_wait must be a number >= 0, not inf"),
    ({"max_wait": math.nan}, ValueError, "max_wait must be a number >= 0, not nan"),
    ({"max_wait": None}, TypeError, "max_wait must be a number >= 0, not None"),
    ({"max_wait": "1"}, TypeError, "max_wait must be a number >= 0, not '1'"),
]


@pytest.mark.parametrize(("settings", "kind", "message"), BAD)
def test_bad_settings_are_refused_by_constructor_and_update(
    settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as constructed:
        Bulkhead(**{"limit": 1, **settings})
    bulkhead = Bulkhead(1)
    with pytest.raises(kind) as updated:
        bulkhead.update(**settings)

    assert str(constructed.value) == str(updated.value) == message
    assert bulkhead.describe() == Bulkhead(1).describe()


def test_a_setting_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="bulkhead has no setting depth; it has limit, max_wait, queue"):
        Bulkhead(1).update(depth=3)


def test_a_huge_limit_costs_nothing() -> None:
    bulkhead = Bulkhead(sys.maxsize)
    admitted(bulkhead, 3)
    bulkhead.update(limit=1)

    assert (bulkhead.in_flight, bulkhead.limit) == (3, 1)


# The hooks


def test_permits_are_taken_and_come_back() -> None:
    bulkhead = Bulkhead(2)
    call = admitted(bulkhead, 2)
    assert bulkhead.in_flight == 2
    with pytest.raises(BulkheadFullError):
        bulkhead.admit(call)
    for kind in (EndingKind.ABANDONED, EndingKind.FAILED):
        give_back(bulkhead, Ending(kind))

    assert idle(bulkhead)
    assert bulkhead.peak == 2


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"queue": 0}, "it has no queue to wait in"),
        ({"queue": 3, "max_wait": 0}, "it has no queue to wait in"),
        ({"queue": 1}, "the 1 places in its queue are taken"),
    ],
)
def test_a_full_bulkhead_says_what_happened_why_and_what_to_do(settings: dict[str, Any], why: str) -> None:
    bulkhead = Bulkhead(2, **settings)
    call = call_of(bulkhead, name="orders")
    with pytest.raises(BulkheadFullError) as caught:
        for _ in range(4):
            bulkhead.admit(call)
    error = caught.value

    assert str(error) == (
        f"bulkhead of orders is full: all 2 permits are in use, and {why}; the dependency was not called. Make fewer "
        "calls at once, or raise limit, queue or max_wait if the dependency can take more calls"
    )
    assert (error.policy, error.pipeline, error.reason, error.retry_after) == ("bulkhead", "orders", "full", None)
    assert error.unprocessed
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason, copy.pipeline) == (str(error), "full", "orders")


def test_every_rejection_is_a_new_exception() -> None:
    bulkhead = Bulkhead(1)
    call = admitted(bulkhead)
    errors: list[BulkheadFullError] = []
    for _ in range(2):
        with pytest.raises(BulkheadFullError) as caught:
            bulkhead.admit(call)
        errors.append(caught.value)

    assert errors[0] is not errors[1]


def test_a_newcomer_does_not_overtake() -> None:
    bulkhead = Bulkhead(1, queue=2)
    call = admitted(bulkhead)
    first = queued(bulkhead, call)
    give_back(bulkhead)
    second = queued(bulkhead, call)

    assert (first.state, second.state) == (TicketState.GRANTED, TicketState.WAITING)
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 1)
    assert first.acquire()
    bulkhead.settle(first, OK)
    assert second.acquire()
    bulkhead.settle(second, OK)
    assert idle(bulkhead)


def test_who_gives_up_waiting_frees_the_place_and_who_gives_up_granted_hands_on() -> None:
    bulkhead = Bulkhead(1, queue=3)
    call = admitted(bulkhead)
    first, second, third = (queued(bulkhead, call) for _ in range(3))
    second.leave()
    assert bulkhead.queued == 2
    give_back(bulkhead)
    assert first.state is TicketState.GRANTED
    first.leave()

    assert (first.state, second.state, third.state) == (
        TicketState.CANCELLED,
        TicketState.CANCELLED,
        TicketState.GRANTED,
    )
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)


def test_a_dropped_grant_is_handed_on() -> None:
    """A Ctrl-C between the grant, or the place in line, and the wait leaves a ticket that nobody holds."""
    bulkhead = Bulkhead(1, queue=3)
    call = admitted(bulkhead)
    queued(bulkhead, call)
    after = queued(bulkhead, call)
    give_back(bulkhead)
    gc.collect()
    run_pending()

    assert after.acquire()
    bulkhead.settle(after, OK)
    assert idle(bulkhead)


def test_reset_forgets_the_peak_and_no_permit() -> None:
    bulkhead = Bulkhead(5, queue=1)
    admitted(bulkhead, 4)
    for _ in range(3):
        give_back(bulkhead)
    assert bulkhead.snapshot() == {"in_flight": 1, "queued": 0, "limit": 5, "peak": 4}
    bulkhead.reset()
    assert bulkhead.snapshot() == {"in_flight": 1, "queued": 0, "limit": 5, "peak": 1}
    call = admitted(bulkhead, 4)
    waiting = queued(bulkhead, call)
    bulkhead.reset()

    assert bulkhead.snapshot() == {"in_flight": 5, "queued": 1, "limit": 5, "peak": 5}
    give_back(bulkhead)
    assert waiting.acquire()


@pytest.mark.parametrize(
    "work",
    [
        lambda bulkhead: bulkhead.admit(call_of(bulkhead)),
        lambda bulkhead: bulkhead.in_flight,
        Bulkhead.snapshot,
        Bulkhead.reset,
    ],
    ids=["admit", "in_flight", "snapshot", "reset"],
)
def test_what_was_put_off_runs_after_each_change(work: Callable[[Bulkhead], object]) -> None:
    bulkhead = Bulkhead(1)
    ran: list[str] = []
    run_later(lambda: ran.append("put off"))

    work(bulkhead)

    assert ran == ["put off"]
