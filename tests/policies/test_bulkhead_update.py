"""A bulkhead whose settings change while it is in use."""

from __future__ import annotations

from functools import partial

import pytest

from resilience import BulkheadFullError
from resilience._call.wait_queue import TicketState
from resilience._outcome.ending import OK
from resilience._policies.bulkhead import Bulkhead
from resilience._util.finalizers import run_later
from resilience.testing import virtual_time
from tests.policies.helpers import admitted, give_back, idle, queued
from tests.support.threads import wait_until


def test_a_higher_limit_lets_in_who_waits() -> None:
    bulkhead = Bulkhead(1, queue=5)
    call = admitted(bulkhead)
    tickets = [queued(bulkhead, call) for _ in range(3)]
    woken: list[int] = []
    for number, ticket in enumerate(tickets):
        assert ticket.add_waker(partial(woken.append, number))
    bulkhead.update(limit=3)

    assert woken == [0, 1]
    assert [ticket.acquire() for ticket in tickets] == [True, True, False]
    assert (bulkhead.in_flight, bulkhead.queued, bulkhead.limit, bulkhead.peak) == (3, 1, 3, 3)


def test_under_a_lower_limit_those_inside_finish_and_nobody_comes_in() -> None:
    bulkhead = Bulkhead(4, queue=1)
    call = admitted(bulkhead, 4)
    bulkhead.update(limit=2)
    assert (bulkhead.in_flight, bulkhead.limit) == (4, 2)
    ticket = queued(bulkhead, call)
    for left in (3, 2):
        give_back(bulkhead)
        assert (bulkhead.in_flight, ticket.state) == (left, TicketState.WAITING)
    give_back(bulkhead)
    assert (bulkhead.in_flight, ticket.state) == (2, TicketState.GRANTED)
    assert ticket.acquire()
    bulkhead.settle(ticket, OK)
    give_back(bulkhead)

    assert idle(bulkhead)
    assert bulkhead.peak == 4
    admitted(bulkhead, 2)
    with pytest.raises(BulkheadFullError, match="all 2 permits"):
        bulkhead.update(queue=0)
        bulkhead.admit(call)


def test_a_limit_that_goes_down_and_up_again() -> None:
    bulkhead = Bulkhead(4)
    call = admitted(bulkhead, 4)
    give_back(bulkhead)
    bulkhead.update(limit=1)
    with pytest.raises(BulkheadFullError):
        bulkhead.admit(call)
    bulkhead.update(limit=5)
    for _ in range(2):
        bulkhead.admit(call)
    with pytest.raises(BulkheadFullError):
        bulkhead.admit(call)

    assert (bulkhead.in_flight, bulkhead.peak) == (5, 5)


def test_queue_and_max_wait_hold_for_who_comes_later() -> None:
    bulkhead = Bulkhead(1, queue=2, max_wait=1.0)
    with virtual_time() as clock:
        call = admitted(bulkhead)
        early = [queued(bulkhead, call) for _ in range(2)]
        bulkhead.update(queue=1, max_wait=5)
        with pytest.raises(BulkheadFullError):
            bulkhead.admit(call)
        early[0].leave()
        early[1].leave()
        late = queued(bulkhead, call)

        assert early[1].until == clock.monotonic() + 1.0
        assert late.until == clock.monotonic() + 5.0


def test_what_was_put_off_runs_after_an_update() -> None:
    bulkhead = Bulkhead(1)
    ran: list[str] = []
    run_later(lambda: ran.append("put off"))

    bulkhead.update(limit=2)

    wait_until(lambda: ran == ["put off"])  # by a thread of its own, since the update holds a lock
