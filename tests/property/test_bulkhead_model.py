"""Any sequence of admissions, grants, endings, timeouts and updates: the bulkhead against a plain model of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from resilience import BulkheadFullError, Call, Ending, EndingKind, Pipeline, Ticket
from resilience._call.wait_queue import TicketState
from resilience._policies.bulkhead import Bulkhead
from resilience.testing import virtual_time
from tests.support.uptime import run_for, uptimes

limits = st.integers(1, 4)
queues = st.integers(0, 4)
waits = st.sampled_from([0.0, 0.5, 1.0, 2.0])


@dataclass(eq=False)
class Waiter:
    """Somebody in line. One that is dead sits in a closed event loop: to wake it fails."""

    until: float
    dead: bool
    ticket: Ticket
    woken: int = 0

    def wake(self) -> None:
        if self.dead:
            raise RuntimeError("Event loop is closed")
        self.woken += 1


@dataclass
class Model:
    """What a bulkhead is, said with a counter and lists."""

    limit: int
    queue: int
    max_wait: float
    inside: int = 0
    line: list[Waiter] = field(default_factory=list)
    granted: list[Waiter] = field(default_factory=list)
    gone: list[Waiter] = field(default_factory=list)
    peak: int = 0

    @property
    def in_use(self) -> int:
        return self.inside + len(self.granted)

    @property
    def full(self) -> bool:
        return bool(self.line) or self.in_use >= self.limit

    @property
    def room(self) -> bool:
        return len(self.line) < self.queue and self.max_wait > 0

    def changed(self) -> None:
        """Grant what is free, in order; who cannot be woken hands on."""
        new: list[Waiter] = []
        while self.line and self.in_use < self.limit:
            new.append(self.line.pop(0))
            self.granted.append(new[-1])
        self.peak = max(self.peak, self.in_use)
        for waiter in new:
            if waiter.dead:
                self.granted.remove(waiter)
                self.gone.append(waiter)
                self.changed()


class BulkheadMachine(RuleBasedStateMachine):
    """Does to a bulkhead what the drivers and their callers do, in any order."""

    @initialize(limit=limits, queue=queues, max_wait=waits, uptime=uptimes)
    def begin(self, limit: int, queue: int, max_wait: float, uptime: float) -> None:
        self.stack = ExitStack()
        self.clock = self.stack.enter_context(virtual_time())
        run_for(self.clock, uptime)
        self.bulkhead = Bulkhead(limit, queue=queue, max_wait=max_wait)
        self.model = Model(limit, queue, max_wait)
        self.tokens: list[Any] = []
        _, binding = Pipeline(self.bulkhead).entry()
        self.call = Call.make(binding, int, (), {})

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    @rule(dead=st.lists(st.sampled_from([False, False, False, True]), min_size=1, max_size=6))
    def rush(self, dead: list[bool]) -> None:
        """Some calls come at once."""
        for one in dead:
            self.admit(one)

    def admit(self, dead: bool) -> None:
        model = self.model
        if model.full and not model.room:
            with pytest.raises(BulkheadFullError) as caught:
                self.bulkhead.admit(self.call)
            assert caught.value.reason == "full"
            return
        token = self.bulkhead.admit(self.call)
        if model.full:
            assert isinstance(token, Ticket)
            waiter = Waiter(self.clock.monotonic() + model.max_wait, dead, token)
            assert token.until == waiter.until
            assert token.add_waker(waiter.wake)
            model.line.append(waiter)
        else:
            assert not isinstance(token, Ticket)
            model.inside += 1
            model.changed()
            self.tokens.append(token)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), kinds=st.lists(st.sampled_from(EndingKind), min_size=1, max_size=3))
    def settle(self, data: st.DataObject, kinds: list[EndingKind]) -> None:
        for kind in kinds[: len(self.tokens)]:
            token = self.tokens.pop(data.draw(st.integers(0, len(self.tokens) - 1)))
            self.bulkhead.settle(token, Ending(kind))
            self.model.inside -= 1
            self.model.changed()

    @precondition(lambda self: self.model.granted)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.model.granted))
        assert waiter.ticket.acquire()
        assert not waiter.ticket.acquire()
        self.model.granted.remove(waiter)
        self.model.inside += 1
        self.tokens.append(waiter.ticket)

    @precondition(lambda self: self.model.granted or self.model.line)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancelled while it waits, or in the tick of its grant."""
        self.leave(data.draw(st.sampled_from(self.model.granted + self.model.line)))

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 5.0]))
    def advance(self, seconds: float) -> None:
        """Time goes by; the drivers of those who have waited long enough look once more, then give up."""
        self.clock.advance(seconds)
        for waiter in list(self.model.line):
            if waiter in self.model.line and waiter.until <= self.clock.monotonic():
                assert not waiter.ticket.acquire()
                self.leave(waiter)

    @rule(limit=limits)
    def update_limit(self, limit: int) -> None:
        self.bulkhead.update(limit=limit)
        self.model.limit = limit
        self.model.changed()

    @rule(queue=queues, max_wait=waits)
    def update_the_rest(self, queue: int, max_wait: float) -> None:
        self.bulkhead.update(queue=queue, max_wait=max_wait)
        self.model.queue, self.model.max_wait = queue, max_wait

    @rule()
    def refused_update(self) -> None:
        with pytest.raises(ValueError, match="queue"):
            self.bulkhead.update(limit=9, queue=-1)

    @rule()
    def reset(self) -> None:
        self.bulkhead.reset()
        self.model.peak = self.model.in_use

    def leave(self, waiter: Waiter) -> None:
        waiter.ticket.leave()
        waiter.ticket.leave()
        self.model.gone.append(waiter)
        if waiter in self.model.line:
            self.model.line.remove(waiter)
        else:
            self.model.granted.remove(waiter)
            self.model.changed()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        model = self.model
        assert self.bulkhead.snapshot() == {
            "in_flight": model.in_use,
            "queued": len(model.line),
            "limit": model.limit,
            "peak": model.peak,
        }
        assert [waiter.ticket for waiter in model.line] == list(self.bulkhead._waiting)
        assert not (model.line and model.in_use < model.limit)
        for waiters, state, woken in (
            (model.line, TicketState.WAITING, 0),
            (model.granted, TicketState.GRANTED, 1),
        ):
            assert all((waiter.ticket.state, waiter.woken) == (state, woken) for waiter in waiters)
        assert all(waiter.ticket.state is TicketState.CANCELLED for waiter in model.gone)


def test_the_bulkhead_does_what_its_model_does() -> None:
    run_state_machine_as_test(
        BulkheadMachine,
        settings=settings(derandomize=True, database=None, deadline=None, max_examples=200, stateful_step_count=40),
    )
