"""Waiting for one's time: in order, moved forward and back, across threads, asyncio and trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilience import Call, DeadlineExceededError, Ending, Gate, Pipeline, RejectedError, Ticket, Timeout
from resilience._call.timed_queue import TimedQueue, TimedTicket
from resilience._call.wait_queue import TicketState
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import run_pending
from resilience._util.locks import state_lock
from resilience.testing import VirtualClock, virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario, waiting_scenario
from tests.support.loops import Run, each_loop, on_trio
from tests.support.threads import wait_until


class Metronome(Gate[Ticket | None]):
    """One call in `every` seconds; each may wait `patience` seconds."""

    kind = "metronome"
    ticket_class = TimedTicket

    def __init__(self, every: float = 1.0, patience: float = FOREVER) -> None:
        super().__init__()
        self.every = every
        self.patience = patience
        self.next_at = clock.monotonic()
        self.line = TimedQueue(self)
        self.given_back = 0
        self.endings: list[str] = []

    def ready_at(self, ticket: TimedTicket) -> float:
        del ticket
        return self.next_at

    def take(self, ticket: TimedTicket, at: float) -> None:
        del ticket
        self.next_at = at + self.every

    def give_back(self, ticket: TimedTicket) -> None:
        del ticket
        self.given_back += 1
        self.next_at -= self.every

    def move(self, at: float) -> None:
        self.next_at = at
        self.line.grant()

    def admit(self, call: Call) -> Ticket | None:
        del call
        now = clock.monotonic()
        with state_lock:
            if not self.line.waiting and self.next_at <= now:
                self.next_at = now + self.every
                return None
            at = self.next_at + len(self.line) * self.every
            ticket = TimedTicket(self.line, now + self.patience, 1.0, now, at)
            self.line.join(ticket)
            return ticket

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        self.endings.append(ending.kind)


def ticket_of(gate: Metronome) -> TimedTicket:
    ticket = gate.admit(Call.make(gate.entry()[1], int, (), {}))
    assert isinstance(ticket, TimedTicket)
    return ticket


def tickets(gate: Metronome, number: int) -> list[TimedTicket]:
    """Let one call in, and have so many wait."""
    assert gate.admit(Call.make(gate.entry()[1], int, (), {})) is None
    return [ticket_of(gate) for _ in range(number)]


@pytest.fixture(name="time")
def _time() -> Any:
    with virtual_time() as virtual:
        yield virtual


class TestQueue:
    def test_a_ticket_goes_when_its_time_has_come_and_not_before(self, time: VirtualClock) -> None:
        gate = Metronome()
        (ticket,) = tickets(gate, 1)

        assert (len(gate.line), ticket.check_at - ticket.since) == (1, 1.0)
        assert not ticket.acquire()
        assert ticket.parks_again(FOREVER)
        time.advance(1)
        assert ticket.acquire()
        assert not ticket.acquire()
        assert not ticket.parks_again(FOREVER)
        assert ticket.state is TicketState.ACQUIRED
        ticket.release()
        assert len(gate.line) == 0

    def test_one_that_is_late_grants_those_before_it(self, time: VirtualClock) -> None:
        first, second, third = tickets(Metronome(), 3)
        woken: list[str] = []
        assert first.add_waker(lambda: woken.append("first"))
        time.advance(2)

        assert second.acquire()
        assert woken == ["first"]
        assert first.acquire()
        assert not third.acquire()

    def test_a_cancelled_ticket_moves_those_behind_it_forward(self, time: VirtualClock) -> None:
        gate = Metronome()
        first, second = tickets(gate, 2)
        woken: list[str] = []
        assert second.add_waker(lambda: woken.append("second"))
        first.leave()
        first.leave()

        assert woken == ["second"]
        assert second.check_at == first.check_at
        time.advance(1)
        assert second.acquire()
        assert gate.given_back == 0

    def test_a_granted_one_that_leaves_gives_back_what_it_has_taken(self, time: VirtualClock) -> None:
        gate = Metronome()
        first, second = tickets(gate, 2)
        time.advance(1)
        gate.line.grant()
        assert first.state is TicketState.GRANTED
        first.leave()

        assert (first.state, second.state) == (TicketState.CANCELLED, TicketState.GRANTED)
        assert gate.given_back == 1

    def test_a_granted_one_that_is_dropped_gives_back_too(self, time: VirtualClock) -> None:
        gate = Metronome()
        first, second = tickets(gate, 2)
        time.advance(1)
        gate.line.grant()
        del first

        assert gate.given_back == 1
        assert second.acquire()

    def test_a_later_time_is_noticed_when_the_timer_rings(self, time: VirtualClock) -> None:
        gate = Metronome()
        (ticket,) = tickets(gate, 1)
        woken: list[str] = []
        assert ticket.add_waker(lambda: woken.append("woken"))
        until = ticket.park_until()
        gate.move(ticket.since + 3)

        assert woken == []
        time.jump(until)
        assert not ticket.acquire()
        assert ticket.park_until() == ticket.since + 3
        time.advance(2)
        assert ticket.acquire()

    def test_a_time_that_changes_before_the_holder_parks_is_not_missed(self, time: VirtualClock) -> None:
        gate = Metronome()
        (ticket,) = tickets(gate, 1)
        ticket.park_until()
        gate.move(ticket.since + 0.5)

        assert not ticket.add_waker(lambda: None)
        assert ticket.park_until() == ticket.since + 0.5
        assert ticket.add_waker(lambda: None)

    def test_a_holder_in_a_closed_loop_hands_on(self, time: VirtualClock) -> None:
        gate = Metronome()
        first, second = tickets(gate, 2)

        def closed() -> None:
            raise RuntimeError("Event loop is closed")

        assert first.add_waker(closed)
        time.advance(1)

        assert second.check_at > clock.monotonic()
        gate.line.grant()
        assert first.state is TicketState.CANCELLED
        assert second.acquire()

    def test_inside_a_change_of_the_state_it_is_put_off(self, time: VirtualClock) -> None:
        gate = Metronome()
        first, second = tickets(gate, 2)
        time.advance(1)
        with state_lock:
            gate.line.grant()
            second.leave()
            assert (first.state, second.state) == (TicketState.WAITING, TicketState.WAITING)
        run_pending()
        assert (first.state, second.state) == (TicketState.GRANTED, TicketState.CANCELLED)

    def test_a_wait_is_known_to_be_too_long(self, time: VirtualClock) -> None:
        (ticket,) = tickets(Metronome(), 1)

        assert ticket.waits_past(lambda: ticket.check_at)
        assert not ticket.waits_past(lambda: ticket.check_at + 0.1)
        time.advance(1)
        assert not ticket.waits_past(lambda: 0.0)


@each_loop
def test_tasks_go_one_by_one(run: Run) -> None:
    times: list[float] = []

    async def main() -> None:
        pipeline = Pipeline(Metronome())
        began = clock.monotonic()

        async def one() -> None:
            await pipeline.acall(lambda: times.append(round(clock.monotonic() - began, 6)))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(one)

    run(main)
    assert times == [0, 1, 2, 3]


def test_threads_go_one_by_one() -> None:
    with virtual_time() as time:
        gate = Metronome()
        pipeline = Pipeline(gate)
        times: list[float] = []
        pipeline.call(str)
        threads = [threading.Thread(target=pipeline.call, args=(lambda: times.append(time.elapsed),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert sorted(round(at, 6) for at in times) == [1, 2, 3]


def test_a_waiting_thread_is_moved_forward() -> None:
    with virtual_time() as time:
        gate = Metronome(every=1e6)
        pipeline = Pipeline(gate)
        pipeline.call(str)

        def forward() -> None:
            wait_until(lambda: len(gate.line) == 1)
            gate.move(clock.monotonic())

        other = threading.Thread(target=time.on_thread(forward))
        other.start()
        assert pipeline.call(str) == ""
        other.join(60)

        assert time.elapsed < 1e6


@each_loop
def test_the_longest_wait_and_the_deadline_end_a_wait(run: Run) -> None:
    async def main() -> None:
        gate = Metronome(patience=0.5)
        pipeline = Pipeline(Timeout(5), gate)
        await pipeline.acall(str)
        with pytest.raises(RejectedError, match="longest wait"):
            await pipeline.acall(str)
        gate.patience = 50
        gate.every = 10
        gate.next_at += 10
        with pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(str)
        assert caught.value.unprocessed
        assert len(gate.line) == 0

    run(main)


@each_loop
def test_a_wait_past_the_end_of_a_cancel_scope_is_not_started(run: Run) -> None:
    async def main() -> None:
        gate = Metronome()
        pipeline = Pipeline(gate)
        await pipeline.acall(str)
        began = clock.monotonic()
        with anyio.move_on_after(0.5) as scope, pytest.raises(RejectedError):
            await pipeline.acall(str)
        assert not scope.cancelled_caught
        assert clock.monotonic() == began
        assert len(gate.line) == 0

    run(main)


@pytest.mark.parametrize("harness", RUNNERS)
@pytest.mark.parametrize("every", [0.0, 0.5])
def test_slots_come_back_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report], every: float
) -> None:
    with virtual_time() as time:

        def scenario() -> Scenario:
            gate = Metronome(every)
            pipeline = Pipeline(gate)
            began = time.monotonic()

            def check() -> str | None:
                owed = began + every * (len(gate.endings))
                if len(gate.line) or gate.next_at > max(owed, time.monotonic()) + every + 1e-6:
                    return f"queued {len(gate.line)}, the next at {gate.next_at - began}, {gate.endings}"
                return None

            return waiting_scenario(pipeline.acall, check, holding=pipeline.acall)

        report = harness(scenario)

    report.must_hold()


def test_a_loop_that_ends_while_a_task_waits_leaves_nothing_behind() -> None:
    with virtual_time():
        gate = Metronome(every=1e6)
        pipeline = Pipeline(gate)

        async def main() -> None:
            await pipeline.acall(str)
            task = asyncio.ensure_future(pipeline.acall(str))
            await asyncio.sleep(0)
            assert len(gate.line) == 1
            del task

        asyncio.run(main())

        assert len(gate.line) == 0


def test_trio_is_cancelled_while_it_waits() -> None:
    async def main() -> None:
        gate = Metronome(every=2)
        pipeline = Pipeline(gate)
        await pipeline.acall(str)
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.acall, str)
            await anyio.sleep(1)
            assert len(gate.line) == 1
            group.cancel_scope.cancel()
        assert len(gate.line) == 0

    on_trio(main)
