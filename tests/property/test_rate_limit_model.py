"""Any sequence of calls, waits, cancellations, refunds and updates: the rate limit against a plain token bucket."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

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

from resilience import Call, Ending, EndingKind, Pipeline, RateLimit, RateLimitedError, Ticket
from resilience._call.wait_queue import WAITING
from resilience._outcome.ending import OK
from resilience._policies.rate_limit.meter import LATE
from resilience._policies.rate_limit.tokens import RateTicket, Token
from resilience.testing import virtual_time
from tests.support.uptime import run_for, uptimes

TINY = 1e-6
rates = st.sampled_from([1.0, 2.0, 10.0])
bursts = st.sampled_from([1.0, 2.0, 5.0])
waits = st.sampled_from([None, 0.0, 0.7, 3.0])
costs = st.sampled_from([1.0, 1.0, 2.0, 0.5, 7.0])


@dataclass(eq=False)
class Waiter:
    """A call that waits; `dead` is one whose event loop was closed, so that to wake it fails."""

    ticket: RateTicket
    cost: float
    until: float


@dataclass
class Bucket:
    """A token bucket, as it is in textbooks: a level, and the time at which it was so."""

    rate: float
    burst: float
    level: float
    at: float

    def copy(self) -> Bucket:
        return Bucket(self.rate, self.burst, self.level, self.at)

    def fill(self, now: float) -> None:
        if now > self.at:
            self.level = min(self.burst, self.level + (now - self.at) * self.rate)
            self.at = now

    def ready_at(self, cost: float) -> float:
        return self.at + max(0.0, min(cost, self.burst) - self.level) / self.rate


@dataclass
class Model:
    """What a rate limit is: a bucket and a line. `admitted` are the times and costs under the present settings."""

    bucket: Bucket
    max_wait: float
    line: list[Waiter] = field(default_factory=list)
    admitted: list[tuple[float, float]] = field(default_factory=list)
    rejected: int = 0

    def forecast(self, cost: float) -> float:
        bucket = self.bucket.copy()
        for waiter in self.line:
            bucket.fill(bucket.ready_at(waiter.cost))
            bucket.level -= waiter.cost
        return bucket.ready_at(cost)

    def take(self, cost: float, now: float) -> None:
        self.bucket.level -= cost
        self.admitted.append((now, cost))

    def serve(self, now: float) -> list[Waiter]:
        """Admit what is due, each at its own time unless that is long over."""
        served: list[Waiter] = []
        while self.line and self.bucket.ready_at(self.line[0].cost) <= now + TINY:
            waiter = self.line.pop(0)
            at = self.bucket.ready_at(waiter.cost)
            self.bucket.fill(at if now - at <= LATE else now)
            self.take(waiter.cost, now)
            served.append(waiter)
        return served


class RateLimitMachine(RuleBasedStateMachine):
    """Does to a rate limit what the drivers and their callers do, in any order."""

    @initialize(rate=rates, burst=bursts, max_wait=waits, uptime=uptimes)
    def begin(self, rate: float, burst: float, max_wait: float | None, uptime: float) -> None:
        self.stack = ExitStack()
        self.clock = self.stack.enter_context(virtual_time())
        run_for(self.clock, uptime)
        self.cost = 1.0
        self.limit = RateLimit(rate, burst=burst, max_wait=max_wait)
        self.model = Model(Bucket(rate, burst, burst, self.now), 1.0 if max_wait is None else max_wait)
        self.tokens: list[Token] = []
        _, self.options = Pipeline(self.limit).entry()
        self.costly = False

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    @rule(number=st.integers(1, 6), patience=st.sampled_from([float("inf"), 0.3, 2.0]))
    def rush(self, number: int, patience: float) -> None:
        for _ in range(number):
            self.admit(1.0 if not self.costly else self.cost, patience)

    @rule(cost=costs)
    def admit_one(self, cost: float) -> None:
        self.cost = cost
        self.admit(cost if self.costly else 1.0, float("inf"))

    def admit(self, cost: float, patience: float) -> None:
        model = self.model
        self.serve()
        call = Call.make(self.options, int, (), {})
        call.deadline = self.now + patience
        model.bucket.fill(self.now)
        at = model.forecast(cost)
        latest = self.now + model.max_wait
        if min(abs(at - latest), abs(at - call.deadline)) < 2 * TINY:
            return  # a matter of rounding
        if not model.line and at <= self.now + TINY:
            token = self.limit.admit(call)
            assert not isinstance(token, Ticket)
            model.take(cost, self.now)
            self.tokens.append(token)
        elif at <= latest and at < call.deadline:
            token = self.limit.admit(call)
            assert isinstance(token, RateTicket)
            assert token.check_at == pytest.approx(at, abs=TINY)
            model.line.append(Waiter(token, cost, latest))
        else:
            with pytest.raises(RateLimitedError) as caught:
                self.limit.admit(call)
            assert caught.value.reason == "rate"
            assert caught.value.retry_after == pytest.approx(at - self.now, abs=TINY)
            model.rejected += 1

    def serve(self) -> None:
        """The holders whose time has come look whether they may go."""
        served = self.model.serve(self.now)
        for waiter in [*self.model.line, *served]:
            if waiter.ticket.check_at <= self.now + TINY and waiter in self.model.line:
                assert not waiter.ticket.acquire()
        for waiter in served:
            if waiter.ticket.state is WAITING and self.now < waiter.ticket.check_at:  # by rounding
                assert waiter.ticket.check_at <= self.now + TINY
                self.clock.jump(waiter.ticket.check_at)
            assert waiter.ticket.acquire()
            self.tokens.append(waiter.ticket)

    @rule(seconds=st.sampled_from([0.05, 0.25, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by, and everybody is on time."""
        end = self.now + seconds
        while self.model.line and (at := self.model.line[0].ticket.check_at) <= end:
            self.clock.jump(at)
            self.serve()
        self.clock.jump(end)
        self.serve()
        self.give_up()

    @rule(seconds=st.sampled_from([0.3, 2.0]))
    def stall(self, seconds: float) -> None:
        """The process stands still, and everybody is late."""
        self.clock.advance(seconds)
        self.serve()
        self.give_up()

    def give_up(self) -> None:
        while late := [waiter for waiter in self.model.line if waiter.until <= self.now]:
            self.leave(late[0])  # those behind it may go now, or have waited for too long, too

    @precondition(lambda self: self.model.line)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.sampled_from(self.model.line)))

    def leave(self, waiter: Waiter) -> None:
        waiter.ticket.leave()
        waiter.ticket.leave()
        self.model.line.remove(waiter)
        self.serve()

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), kind=st.sampled_from([EndingKind.OK, EndingKind.FAILED]))
    def settle(self, data: st.DataObject, kind: EndingKind) -> None:
        token = self.tokens.pop(data.draw(st.integers(0, len(self.tokens) - 1)))
        self.limit.settle(token, OK if kind is EndingKind.OK else Ending(kind))

    @precondition(lambda self: not self.model.line)
    @rule()
    def refund_at_once(self) -> None:
        """A policy further in rejects the call that was just admitted."""
        before = len(self.tokens)
        self.admit(1.0 if not self.costly else self.cost, float("inf"))
        if len(self.tokens) > before and not self.model.line:
            self.limit.settle(self.tokens.pop(), Ending(EndingKind.ABANDONED))
            _, cost = self.model.admitted.pop()
            self.model.bucket.level += cost

    @rule(rate=rates, burst=bursts, max_wait=waits, costly=st.booleans())
    def update(self, rate: float, burst: float, max_wait: float | None, costly: bool) -> None:
        self.serve()
        bucket = self.model.bucket
        bucket.fill(self.now)
        missing = bucket.burst - bucket.level
        self.limit.update(rate=rate, burst=burst, max_wait=max_wait, cost=(lambda _: self.cost) if costly else 1.0)
        self.costly = costly
        self.model.bucket = Bucket(rate, burst, burst - missing, self.now)
        self.model.max_wait = 1.0 if max_wait is None else max_wait
        self.model.admitted.clear()
        self.serve()

    @rule()
    def refused_update(self) -> None:
        with pytest.raises(ValueError, match="burst"):
            self.limit.update(rate=99, burst=0.5)

    @rule()
    def reset(self) -> None:
        self.serve()
        self.limit.reset()
        self.model.bucket = Bucket(self.model.bucket.rate, self.model.bucket.burst, self.model.bucket.burst, self.now)
        self.model.rejected = 0
        self.model.admitted.clear()
        self.serve()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        model = self.model
        model.bucket.fill(self.now)
        snapshot = self.limit.snapshot()
        assert snapshot["available"] == pytest.approx(model.bucket.level, abs=1e-4)
        assert (snapshot["queued"], snapshot["rejected"]) == (len(model.line), model.rejected)
        assert [waiter.ticket for waiter in model.line] == list(self.limit._waiting)

    @invariant()
    def keeps_the_rate(self) -> None:
        """Over any interval, at most the burst and what comes in; a cost above the burst may use more, once."""
        if not hasattr(self, "model"):
            return
        bucket, admitted = self.model.bucket, self.model.admitted
        for first, (begin, _) in enumerate(admitted):
            for last in range(first, len(admitted)):
                span = admitted[last][0] - begin
                before = sum(cost for _, cost in admitted[first:last])
                allowed = bucket.burst + (span + LATE) * bucket.rate + TINY
                assert before + min(admitted[last][1], bucket.burst) <= allowed


def test_the_rate_limit_does_what_its_model_does() -> None:
    run_state_machine_as_test(
        RateLimitMachine,
        settings=settings(derandomize=True, database=None, deadline=None, max_examples=100, stateful_step_count=30),
    )
