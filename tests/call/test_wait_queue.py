"""Waiting in line: first come first served, across threads, asyncio and trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import Call, DeadlineExceededError, Ending, EndingKind, Gate, Pipeline, RejectedError, Ticket, Timeout
from resilience._call.wait_queue import TicketState, WaitQueue, wake_all
from resilience._util.finalizers import run_later
from resilience.events import Rejected
from resilience.testing import Recorder, virtual_time
from tests.support.loops import LOOPS, run_trio
from tests.support.threads import wait_until
from tests.support.turnstile import Turnstile


def test_threads_are_served_in_order() -> None:
    gate = Turnstile()
    pipeline = Pipeline(gate)
    order: list[int] = []
    release = threading.Event()
    with virtual_time():
        holder = threading.Thread(target=pipeline.call, args=(release.wait,))
        holder.start()
        wait_until(lambda: gate.in_flight == 1)
        threads: list[threading.Thread] = []
        gate.patience = 1e6
        for number in range(5):
            thread = threading.Thread(target=pipeline.call, args=(order.append, number))
            thread.start()
            wait_until(lambda count=number: len(gate.line) == count + 1)  # type: ignore[misc]
            threads.append(thread)
        release.set()
        for thread in [holder, *threads]:
            thread.join(10)

    assert sorted(order) == [0, 1, 2, 3, 4]
    assert gate.leaked() is None
    assert gate.peak == 1


def test_a_thread_that_waits_in_vain_is_refused() -> None:
    gate = Turnstile()
    gate.take()
    pipeline = Pipeline(gate, name="in-vain")
    with virtual_time() as clock, Recorder(pipeline) as recorder, pytest.raises(RejectedError, match="longest wait"):
        pipeline.call(int)

    assert clock.elapsed == pytest.approx(1.0)
    assert [event.reason for event in recorder.of(Rejected)] == ["queue_timeout"]
    assert len(gate.line) == 0


def test_a_full_line_refuses_at_once() -> None:
    gate = Turnstile(room=0)
    gate.take()

    with pytest.raises(RejectedError, match="full"):
        Pipeline(gate).call(int)


def test_the_deadline_in_the_queue_is_named() -> None:
    gate = Turnstile()
    gate.take()

    class Scored(Gate[None]):
        def admit(self, call: Call) -> None:
            pass

        def settle(self, token: Ticket | None, ending: Ending) -> None:
            assert ending.kind is EndingKind.ABANDONED

    with virtual_time() as clock, pytest.raises(DeadlineExceededError, match="waited for turnstile") as caught:
        Pipeline(Scored(), Timeout(0.25), gate).call(int)

    assert caught.value.unprocessed
    assert clock.elapsed == pytest.approx(0.25)


@pytest.mark.parametrize("run", LOOPS)
def test_tasks_wait_and_are_served(run: Callable[[Callable[[], Any]], Any]) -> None:
    gate = Turnstile(limit=2)
    pipeline = Pipeline(gate)
    done: list[int] = []

    async def work(number: int) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        done.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(pipeline(work), number)

    run(main)

    assert sorted(done) == list(range(6))
    assert gate.peak == 2
    assert gate.leaked() is None


@pytest.mark.parametrize("run", LOOPS)
def test_a_task_that_waits_in_vain_is_refused(run: Callable[[Callable[[], Any]], Any]) -> None:
    gate = Turnstile()
    gate.take()
    pipeline = Pipeline(gate)

    async def main() -> float:
        with pytest.raises(RejectedError):
            await pipeline.acall(int)
        return virtual.elapsed

    with virtual_time() as virtual:
        assert run(main) == pytest.approx(1.0)
    assert len(gate.line) == 0


@pytest.mark.parametrize("run", LOOPS)
def test_a_thread_wakes_a_task(run: Callable[[Callable[[], Any]], Any]) -> None:
    gate = Turnstile(patience=1e6)
    gate.take()
    pipeline = Pipeline(gate)

    def release() -> None:
        wait_until(lambda: len(gate.line) == 1)
        gate.put()
        gate.line.grant()

    async def main() -> int:
        thread = threading.Thread(target=release)
        thread.start()
        try:
            return await pipeline.acall(lambda: 7)
        finally:
            thread.join()

    assert run(main) == 7
    assert gate.leaked() is None


@pytest.mark.parametrize("run", LOOPS)
def test_a_closed_loop_hands_its_grant_on(run: Callable[[Callable[[], Any]], Any]) -> None:
    gate = Turnstile(patience=1e6)
    gate.take()
    woken: list[str] = []

    async def main() -> Ticket:
        ticket = gate.line.enqueue(1e12, 10)
        assert ticket is not None
        if run is run_trio:
            token = trio.lowlevel.current_trio_token()
            ticket.add_waker(lambda: token.run_sync_soon(woken.append, "too late"))
        else:
            loop = asyncio.get_running_loop()
            ticket.add_waker(lambda: loop.call_soon_threadsafe(woken.append, "too late"))
        return ticket

    ticket = run(main)
    gate.put()
    gate.line.grant()

    assert ticket.state is TicketState.CANCELLED
    assert gate.leaked() is None
    assert woken == []


def test_a_granted_ticket_that_is_left_serves_the_next() -> None:
    gate = Turnstile()
    gate.take()
    first, second = gate.line.enqueue(1e12, 10), gate.line.enqueue(1e12, 10)
    assert first is not None
    assert second is not None
    gate.put()
    gate.line.grant()
    assert first.state is TicketState.GRANTED
    first.leave()
    first.leave()

    assert second.acquire()
    assert not first.acquire()
    second.leave()
    assert gate.in_flight == 1


def test_a_ctrl_c_in_one_wake_does_not_keep_the_others_asleep() -> None:
    line = WaitQueue(lambda: True, lambda: None)
    woken: list[str] = []

    def struck() -> None:
        raise KeyboardInterrupt

    tickets = [Ticket(line, 0.0) for _ in range(3)]
    assert tickets[0].add_waker(struck)
    assert tickets[1].add_waker(lambda: woken.append("second"))
    assert tickets[2].add_waker(lambda: woken.append("third"))

    with pytest.raises(KeyboardInterrupt):
        wake_all(tickets)

    assert woken == ["second", "third"]


@pytest.mark.parametrize(
    "work",
    [
        lambda line, ticket: line.enqueue(1e12, 10),
        lambda line, ticket: line.grant(),
        lambda line, ticket: ticket.leave(),
        lambda line, ticket: ticket.add_waker(print),
    ],
    ids=["enqueue", "grant", "leave", "add_waker"],
)
def test_what_was_put_off_runs_after_each_change(work: Callable[[WaitQueue, Ticket], object]) -> None:
    line = WaitQueue(lambda: False, lambda: None)
    ticket = line.enqueue(1e12, 10)
    assert ticket is not None
    ran: list[str] = []
    run_later(lambda: ran.append("put off"))

    work(line, ticket)

    assert ran == ["put off"]
