"""Any sequence of admissions, endings, waits, manual changes and updates: the breaker against a plain model of it."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from resilience import (
    Call,
    CircuitOpenError,
    DeadlineExceededError,
    Ending,
    EndingKind,
    Failure,
    Pipeline,
    RejectReason,
)
from resilience._outcome.ending import OK
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience.testing import seeded, virtual_time
from tests.support.chance import Steady
from tests.support.uptime import run_for, uptimes

SPAN = 10.0
BUCKETS = 10
LEASE = 60.0


def _hinting(seconds: float) -> Ending:
    return Ending(EndingKind.FAILED, ConnectionError(), None, Failure(retry_after=seconds))


ENDINGS: dict[str, tuple[Ending, bool | None]] = {
    "ok": (OK, True),
    "value": (Ending(EndingKind.OK), True),
    "failed": (Ending(EndingKind.FAILED, ConnectionError()), False),
    "hinting": (_hinting(2.5), False),
    "cut": (Ending(None, DeadlineExceededError()), False),
    "error": (Ending(EndingKind.ERROR, KeyError()), None),
    "abandoned": (Ending(EndingKind.ABANDONED), None),
}


@dataclass(eq=False)
class Permit:
    """What the model gives for an admission, and the token that the breaker gave."""

    generation: int
    start: float
    timed: bool = True
    lease: float = math.inf
    due: bool = False
    token: Any = None


@dataclass
class Model:
    """What a breaker is, said with lists and numbers."""

    now: float
    settings: dict[str, Any]
    state: str = "closed"
    since: float = 0.0
    until: float = math.inf
    generation: int = 0
    opens: int = 0
    failed: int = 0
    calls: list[tuple[float, bool, bool]] = field(default_factory=list)
    window_start: float = 0.0
    window_latest: int = 0
    shown: tuple[int, int, int] = (0, 0, 0)
    places: int = 0
    good: int = 0
    probes: list[Permit] = field(default_factory=list)
    row: int = 0

    def __post_init__(self) -> None:
        self.since = self.now
        self.fresh()

    def fresh(self) -> None:
        self.generation += 1
        self.calls = []
        self.window_start, self.window_latest = self.now, 0

    def bucket(self, at: float) -> int:
        return int((at - self.window_start) // (SPAN / BUCKETS))

    def forget(self) -> None:
        """After a whole window without a call, or a look, its buckets begin anew."""
        if self.bucket(self.now) - self.window_latest >= BUCKETS:
            kept = self.calls if self.settings["window_calls"] else []
            self.window_start, self.window_latest, self.calls = self.now, 0, kept
        self.window_latest = self.bucket(self.now)

    def held(self) -> list[tuple[float, bool, bool]]:
        if self.settings["window_calls"]:
            return self.calls[-self.settings["window_calls"] :]
        return [call for call in self.calls if self.bucket(call[0]) > self.window_latest - BUCKETS]

    def counts(self) -> tuple[int, int, int]:
        if self.state != "closed":
            return self.shown
        self.forget()
        held = self.held()
        return len(held), sum(call[1] for call in held), sum(call[2] for call in held)

    def enter(self, state: str, since: float) -> None:
        self.shown = self.counts()
        self.state, self.since, self.until, self.probes = state, since, math.inf, []
        self.generation += 1

    def open(self, hint: float) -> None:
        self.enter("open", self.now)
        self.opens += 1
        grown = self.settings["open_for"] * self.settings["open_growth"] ** self.failed
        self.until = self.now + min(max(grown, hint), self.settings["max_open_for"])

    def close(self) -> None:
        self.enter("closed", self.now)
        self.failed = 0
        self.row = 0
        self.fresh()

    def look(self) -> None:
        if self.now >= self.until:
            self.enter("half_open", self.until)
            self.places, self.good = self.settings["half_open_calls"], 0

    def admit(self, deadline: float) -> Permit | None:
        self.look()
        if self.state == "closed":
            return Permit(self.generation, self.now, timed=self.settings["slow_after"] is not None)
        if self.state != "half_open":
            return None
        self.probes = [probe for probe in self.probes if probe.lease > self.now]
        if self.good + len(self.probes) >= self.places:
            return None
        timeout = self.settings["probe_timeout"]
        due = timeout is None and deadline < math.inf
        lease = deadline if due else self.now + (timeout or LEASE)
        probe = Permit(self.generation, self.now, lease=lease, due=due)
        self.probes.append(probe)
        return probe

    def end(self, permit: Permit, word: str) -> None:
        self.look()
        good = ENDINGS[word][1]
        hint = 2.5 if word == "hinting" else 0.0
        if permit.generation != self.generation:
            return
        limit = self.settings["slow_after"]
        slow = limit is not None and permit.timed and self.now - permit.start >= limit
        if self.state == "half_open":
            in_time = permit in self.probes and self.now < permit.lease
            self.probes = [probe for probe in self.probes if probe is not permit]
            bad = good is False or (good is True and slow)
            if bad and (in_time or (permit.due and word == "cut")):
                self.failed += 1
                self.open(hint)
            elif good and not bad and in_time:
                self.good += 1
                if self.good == self.places:
                    self.close()
        elif good is not None:
            self.forget()
            self.calls.append((self.now, not good, slow))
            self.row = 0 if good else self.row + 1
            calls, failures, slows = self.counts()
            enough = calls >= self.settings["min_calls"]
            rates = enough and (
                failures / calls >= self.settings["failure_rate"] or slows / calls >= self.settings["slow_call_rate"]
            )
            row = self.settings["consecutive_failures"]
            if row is not None and not enough:
                row = math.ceil(row / 2)
            if (not good or slow) and (rates or (row is not None and self.row >= row)):
                self.open(hint)

    def update(self, change: dict[str, Any]) -> None:
        before = self.settings["window_calls"]
        self.settings.update(change)
        if self.settings["window_calls"] != before and self.state == "closed":
            self.row = 0
            self.fresh()

    def snapshot(self) -> dict[str, Any]:
        self.look()
        calls, failures, slow = self.counts()
        return {
            "calls": calls,
            "failures": failures,
            "slow": slow,
            "rate": failures / calls if calls else 0.0,
            "slow_rate": slow / calls if calls else 0.0,
            "state": self.state,
            "opens": self.opens,
            "seconds_in_state": self.now - self.since,
            "retry_after": self.until - self.now if self.state == "open" else None,
        }


SETTINGS: dict[str, list[Any]] = {
    "failure_rate": [0.5, 0.75],
    "min_calls": [2, 4],
    "window_calls": [None, None, 5],
    "consecutive_failures": [None, 2, 3, 5],
    "slow_after": [None, 0.5, 1.0],
    "slow_call_rate": [0.5, 1.0],
    "open_for": [1.0, 2.0],
    "open_growth": [1.0, 1.5],
    "max_open_for": [2.5, 30.0],
    "half_open_calls": [1, 2, 3],
    "probe_timeout": [None, 3.0],
}
changes = st.sampled_from([{name: value} for name, values in SETTINGS.items() for value in values])

patiences = st.sampled_from([math.inf, math.inf, 0.75, 2.0])


class Machine(RuleBasedStateMachine):
    """Does the same to both, and compares what can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.clock = self.stack.enter_context(virtual_time())
        self.stack.enter_context(seeded(Steady()))
        self.permits: list[Permit] = []

    def teardown(self) -> None:
        with self.stack:
            self.look()

    @initialize(
        chosen=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in SETTINGS.items()}),
        half_open=st.booleans(),
        uptime=uptimes,
    )
    def begin(self, chosen: dict[str, Any], half_open: bool, uptime: float) -> None:
        run_for(self.clock, uptime)
        self.breaker = CircuitBreaker(window=SPAN, **chosen)
        self.binding = Pipeline(self.breaker).entry()[1]
        self.model = Model(self.clock.monotonic(), dict(chosen))
        if half_open:
            self.trip("failed")
            self.recover(0.0)

    @rule(patience=patiences)
    def admit(self, patience: float) -> None:
        call = Call.make(self.binding, print, (), {})
        call.deadline = self.clock.monotonic() + patience
        permit = self.model.admit(call.deadline)
        if permit is not None:
            permit.token = self.breaker.admit(call)
            self.permits.append(permit)
            return
        with pytest.raises(CircuitOpenError) as caught:
            self.breaker.admit(call)
        assert caught.value.reason is (RejectReason.ISOLATED if self.model.state == "isolated" else RejectReason.OPEN)
        assert caught.value.retry_after == self.model.snapshot()["retry_after"]

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), word=st.sampled_from(sorted(ENDINGS)))
    def end(self, data: st.DataObject, word: str) -> None:
        # Mostly the newest: the older ones are often from a generation that is over.
        index = data.draw(st.one_of(st.just(-1), st.integers(-len(self.permits), -1)))
        permit = self.permits.pop(index)
        self.breaker.settle(permit.token, ENDINGS[word][0])
        self.model.end(permit, word)

    @rule(
        words=st.lists(st.sampled_from(["ok", "ok", "ok", "failed", "failed", "cut", "error"]), min_size=1, max_size=4)
    )
    def several(self, words: list[str]) -> None:
        for word in words:
            before = len(self.permits)
            self.admit(math.inf)
            if len(self.permits) > before:
                permit = self.permits.pop()
                self.breaker.settle(permit.token, ENDINGS[word][0])
                self.model.end(permit, word)

    @precondition(lambda self: self.model.state == "closed")
    @rule(word=st.sampled_from(["failed", "cut", "hinting"]))
    def trip(self, word: str) -> None:
        self.admit(math.inf)  # one that will end in other times
        for _ in range(5):
            self.model.look()
            if self.model.state == "closed":
                self.several([word])

    @precondition(lambda self: self.model.state == "open")
    @rule(early=st.sampled_from([0.0, 0.0, 0.0, 0.25]))
    def recover(self, early: float) -> None:
        self.advance(max(0.0, self.model.until - self.model.now - early))
        self.model.look()

    @precondition(lambda self: self.model.state == "half_open")
    @rule(patience=st.lists(patiences, min_size=1, max_size=3), hold=st.sampled_from([0.0, 0.0, 0.5, 2.0, 3.0]))
    def probe(self, patience: list[float], hold: float) -> None:
        for seconds in patience:
            self.admit(seconds)
        self.advance(hold)

    @precondition(lambda self: self.model.state == "half_open")
    @rule(hold=st.sampled_from([0.5, 1.0, 2.0]), taken=st.booleans(), word=st.sampled_from(["cut", "ok", "failed"]))
    def hang(self, hold: float, taken: bool, word: str) -> None:
        before = len(self.permits)
        self.admit(hold if word != "ok" else 2 * hold)
        self.advance(hold)
        if len(self.permits) > before:
            permit = self.permits.pop()
            if taken:
                self.admit(math.inf)
            self.breaker.settle(permit.token, ENDINGS[word][0])
            self.model.end(permit, word)

    @precondition(lambda self: self.model.state == "half_open" and self.permits)
    @rule(index=st.integers(1, 5), word=st.sampled_from([*["ok"] * 9, "failed", "cut", "error"]))
    def end_probe(self, index: int, word: str) -> None:
        permit = self.permits.pop(-min(index, len(self.permits)))
        self.breaker.settle(permit.token, ENDINGS[word][0])
        self.model.end(permit, word)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 1.25, 2.0, 2.5, 3.0, 9.75, 10.0, 61.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds

    @rule(change=changes)
    def update(self, change: dict[str, Any]) -> None:
        self.model.look()
        assert self.breaker.state == self.model.state
        self.breaker.update(**change)
        self.model.update(change)

    @rule(action=st.sampled_from(["isolate", *["close"] * 4, *["reset"] * 3]))
    def by_hand(self, action: str) -> None:
        getattr(self.breaker, action)()
        self.model.look()
        if action == "isolate":
            if self.model.state != "isolated":
                self.model.enter("isolated", self.model.now)
            return
        self.model.close()
        if action == "reset":
            self.model.opens = 0

    @rule()
    def look(self) -> None:
        assert self.breaker.snapshot() == self.model.snapshot()
        assert self.breaker.state == self.model.state


def test_the_breaker_agrees_with_the_model() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(derandomize=True, database=None, deadline=None, max_examples=350, stateful_step_count=50),
    )
