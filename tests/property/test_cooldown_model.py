"""Any sequence of hints, calls, cancellations and time: the cooldown against a plain model of it."""

from __future__ import annotations

import random
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

from resilience import Call, Cooldown, Ending, EndingKind, Failure, FailureKind, Hint, Pipeline, RateLimitedError
from resilience._call.wait_queue import TicketState
from resilience._outcome.ending import OK
from resilience._policies.cooldown.pause import CooldownTicket
from resilience._util.clock import FOREVER
from resilience.testing import seeded, virtual_time
from tests.support.uptime import run_for, uptimes

spreads = st.sampled_from([0.0, 0.2, 1.0])
waits = st.sampled_from([None, 0.0, 1.0, 100.0])
LONGEST = 8.0


class Chance(random.Random):
    """Always draws the same."""

    drawn = 0.5

    def random(self) -> float:
        return self.drawn


@dataclass(eq=False)
class Waiter:
    """A call in the queue, which is woken as a thread is: by a lock that must not be released twice."""

    ticket: CooldownTicket
    until: float
    slot: float | None = None


@dataclass
class Model:
    """What a cooldown is, said with a few numbers and lists."""

    spread: float
    max_wait: float | None
    ends: float = -FOREVER
    spread_end: float = -FOREVER
    line: list[Waiter] = field(default_factory=list)
    granted: list[Waiter] = field(default_factory=list)
    gone: list[Waiter] = field(default_factory=list)

    def holds(self, now: float) -> bool:
        return bool(self.line) or now < self.ends

    def hint(self, now: float, seconds: float) -> None:
        seconds = min(seconds, LONGEST)
        if now < self.ends and now + seconds <= self.ends:
            return
        if not self.holds(now):
            self.spread_end = -FOREVER
        self.ends = now + seconds
        self.spread_end = max(self.spread_end, self.ends + self.spread * seconds)
        for waiter in self.line:
            waiter.slot = None

    def look(self, now: float) -> None:
        """Grant what is due, in order."""
        while self.line and now >= self.ends:
            first = self.line[0]
            slot = first.slot
            if slot is None:
                share = 1.0 - Chance.drawn ** (1 / len(self.line))
                slot = first.slot = min(now + max(0.0, self.spread_end - now) * share, self.spread_end)
            if slot > now:
                return
            self.granted.append(self.line.pop(0))


class CooldownMachine(RuleBasedStateMachine):
    """Does to a cooldown what the drivers and their callers do, in any order."""

    @initialize(spread=spreads, max_wait=waits, uptime=uptimes)
    def begin(self, spread: float, max_wait: float | None, uptime: float) -> None:
        self.stack = ExitStack()
        self.clock = self.stack.enter_context(virtual_time())
        run_for(self.clock, uptime)
        self.stack.enter_context(seeded(Chance()))
        self.cooldown = Cooldown(spread, max_wait=max_wait, longest=LONGEST)
        self.model = Model(spread, max_wait)
        _, options = Pipeline(self.cooldown).entry()
        self.call = Call.make(options, int, (), {})

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0, 1000.0]), proactive=st.booleans())
    def hint(self, seconds: float, proactive: bool) -> None:
        failure = Failure(FailureKind.OVERLOAD, seconds)
        good = Ending(EndingKind.OK, hint=Hint(0, seconds))
        self.cooldown.settle(None, good if proactive else Ending(EndingKind.FAILED, failure=failure))
        self.model.hint(self.now, seconds)

    @rule(ending=st.sampled_from([OK, Ending(EndingKind.ABANDONED), Ending(EndingKind.OK, hint=Hint(3, 9.0))]))
    def no_hint(self, ending: Ending) -> None:
        self.cooldown.settle(None, ending)

    @rule(timeouts=st.lists(st.sampled_from([0.5, 3.0, 1e6, FOREVER]), min_size=1, max_size=6))
    def come(self, timeouts: list[float]) -> None:
        for timeout in timeouts:
            self.call.deadline = self.now + timeout
            self.admit()

    def admit(self) -> None:
        model, deadline = self.model, self.call.deadline
        if not model.holds(self.now):
            assert self.cooldown.admit(self.call) is None
            return
        until = self.now + (LONGEST * (1 + model.spread) if model.max_wait is None else model.max_wait)
        if model.max_wait is None and deadline < FOREVER:
            until = FOREVER
        if model.ends > until or model.ends >= deadline:
            with pytest.raises(RateLimitedError) as caught:
                self.cooldown.admit(self.call)
            assert caught.value.reason == "cooldown"
            return
        ticket = self.cooldown.admit(self.call)
        assert ticket is not None
        assert ticket.until == until
        model.line.append(Waiter(ticket, min(until, deadline)))
        model.look(self.now)

    @rule(
        seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 20.0]),
        drawn=st.sampled_from([0.0, 0.1, 0.5, 0.999]),
        lost=st.booleans(),
    )
    def advance(self, seconds: float, drawn: float, lost: bool) -> None:
        """Time goes by; then everybody looks whose time has come, perhaps but the first."""
        self.clock.advance(seconds)
        Chance.drawn = drawn
        looking = [one for one in self.model.line if one.ticket.park_until() <= self.now or one.until <= self.now]
        for waiter in looking[lost:]:
            if waiter.ticket.check_at <= self.now and waiter.ticket.state is TicketState.WAITING:
                self.model.look(self.now)
            if waiter.ticket.acquire():
                self.model.granted.remove(waiter)
            elif waiter.until <= self.now:
                self.leave(waiter)

    @precondition(lambda self: self.model.granted or self.model.line)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancelled while it waits, or in the tick of its grant."""
        self.leave(data.draw(st.sampled_from(self.model.granted + self.model.line)))

    @precondition(lambda self: self.model.granted)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.model.granted))
        assert waiter.ticket.acquire()
        assert not waiter.ticket.acquire()
        self.model.granted.remove(waiter)
        self.cooldown.settle(waiter.ticket, OK)

    @rule(spread=spreads, max_wait=waits)
    def update(self, spread: float, max_wait: float | None) -> None:
        self.cooldown.update(spread=spread, max_wait=max_wait)
        self.model.spread, self.model.max_wait = spread, max_wait

    @rule()
    def reset(self) -> None:
        self.cooldown.reset()
        self.model.ends = self.model.spread_end = -FOREVER
        self.model.granted += self.model.line
        self.model.line.clear()

    def leave(self, waiter: Waiter) -> None:
        waiter.ticket.leave()
        waiter.ticket.leave()
        self.model.gone.append(waiter)
        for waiters in (self.model.line, self.model.granted):
            if waiter in waiters:
                waiters.remove(waiter)
        self.model.look(self.now)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        model, now = self.model, self.now
        state: dict[str, Any] = self.cooldown.snapshot()
        assert 0.0 <= state.pop("closed_share") <= 1.0
        assert state == {
            "active": model.holds(now),
            "seconds_left": max(0.0, model.ends - now),
            "queued": len(model.line),
        }
        assert [waiter.ticket for waiter in model.line] == list(self.cooldown._pause.queue.waiting)
        for waiters, expected in (
            (model.line, TicketState.WAITING),
            (model.granted, TicketState.GRANTED),
            (model.gone, TicketState.CANCELLED),
        ):
            assert all(waiter.ticket.state is expected for waiter in waiters)

    @invariant()
    def everybody_looks_in_time(self) -> None:
        """A first one that is lost stops nobody, and a first one that is not lost goes at its slot."""
        if not hasattr(self, "model") or not self.model.line:
            return
        first, *others = self.model.line
        assert first.ticket.check_at == (self.model.ends if first.slot is None else first.slot)
        assert all(waiter.ticket.check_at == self.model.spread_end for waiter in others)


def test_the_cooldown_does_what_its_model_does() -> None:
    run_state_machine_as_test(
        CooldownMachine,
        settings=settings(derandomize=True, database=None, deadline=None, max_examples=200, stateful_step_count=40),
    )
