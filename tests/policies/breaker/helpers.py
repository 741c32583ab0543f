"""What the tests of the circuit breaker share."""

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    NETWORK_ERRORS,
    Allowlist,
    Call,
    CircuitOpenError,
    DeadlineExceededError,
    Ending,
    EndingKind,
    Failure,
    FailureKind,
    Pipeline,
)
from resilience._outcome.ending import OK
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience.events import BreakerState
from resilience.testing import VirtualClock


class Answer(Exception):
    """A known answer of a healthy dependency."""


class Quota(Exception):
    """A failure that says nothing about health."""


def _listed(error: Exception) -> Failure | None:
    match error:
        case Quota():
            return Failure(FailureKind.OVERLOAD, counted=False)
        case BlockingIOError():
            return Failure(FailureKind.OVERLOAD, retry_after=float(str(error)))
        case _:
            return None


FAILURES = NETWORK_ERRORS | Allowlist(when=_listed, answers=(Answer,))


def ending(word: str) -> Ending:
    match word:
        case "ok":
            return OK
        case "value":
            return Ending(EndingKind.OK)
        case "answer":
            return Ending(None, Answer(), FAILURES)
        case "failed":
            return Ending(None, ConnectionError("down"), FAILURES)
        case "timed out":
            return Ending(None, DeadlineExceededError(), FAILURES)
        case "cut":
            return Ending(EndingKind.TIMED_OUT)
        case "quota":
            return Ending(None, Quota(), FAILURES)
        case "error":
            return Ending(None, KeyError(), FAILURES)
        case "rejected":
            return Ending(None, CircuitOpenError("another"), FAILURES)
        case "expired":
            return Ending(None, DeadlineExceededError(unprocessed=True), FAILURES)
        case "cancelled":
            return Ending(None, asyncio.CancelledError(), FAILURES)
        case "interrupted":
            return Ending(None, KeyboardInterrupt(), FAILURES)
        case "closed":
            return Ending(None, GeneratorExit(), FAILURES)
        case _:
            return Ending(None, BlockingIOError(word), FAILURES)


GOOD = ["ok", "value", "answer"]
BAD = ["failed", "timed out", "cut"]
NEUTRAL = ["quota", "error", "rejected", "expired", "cancelled", "interrupted", "closed"]


class Interference:
    """A lock that somebody else gets first, once."""

    def __init__(self, breaker: CircuitBreaker, others: Callable[[], object]) -> None:
        self.breaker = breaker
        self.others = others
        self.machine = vars(breaker)["_machine"]
        self.lock: threading.RLock = self.machine.lock

    def __enter__(self) -> None:
        self.machine.lock = self.lock
        self.others()
        self.lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.lock.release()


class Rig:
    """A breaker, a pipeline around it, and hands on its hooks.

    Its defaults differ from those of the breaker: an open time of a second, three probes, and `in_a_row` consecutive
    failures while the window holds fewer than `min_calls`, where `consecutive_failures` is halved.
    """

    def __init__(self, *, in_a_row: int = 10, **settings: Any) -> None:
        defaults = {"open_for": 1.0, "half_open_calls": 3, "consecutive_failures": 2 * in_a_row}
        self.breaker = CircuitBreaker(**{**defaults, **settings})
        self.pipeline = Pipeline(self.breaker, name="quotes", failures=FAILURES)
        self.binding = self.pipeline.entry()[1]

    def call(self, deadline: float = math.inf) -> Call:
        call = Call.make(self.binding, print, (), {})
        call.deadline = deadline
        return call

    def admit(self, deadline: float = math.inf) -> Any:
        return self.breaker.admit(self.call(deadline))

    def end(self, token: Any, word: str) -> None:
        self.breaker.settle(token, ending(word))

    def run(self, *words: str) -> None:
        for word in words:
            self.end(self.admit(), word)

    def refused(self, deadline: float = math.inf) -> CircuitOpenError:
        with pytest.raises(CircuitOpenError) as caught:
            self.admit(deadline)
        return caught.value

    def seen(self, *keys: str) -> tuple[Any, ...]:
        snapshot = self.breaker.snapshot()
        return tuple(snapshot[key] for key in keys)

    def state(self) -> BreakerState:
        return self.breaker.state

    @property
    def counts(self) -> tuple[int, int, int]:
        calls, failures, slow = self.seen("calls", "failures", "slow")
        return calls, failures, slow

    def interfere(self, others: Callable[[], object]) -> None:
        """Have something happen in another thread, just before the lock is taken the next time."""
        vars(self.breaker)["_machine"].lock = Interference(self.breaker, others)

    def open(self) -> None:
        while self.state() is BreakerState.CLOSED:
            self.run("failed")
        assert self.state() is BreakerState.OPEN

    def half_open(self, clock: VirtualClock) -> None:
        self.open()
        clock.advance(self.breaker.snapshot()["retry_after"])
        assert self.state() is BreakerState.HALF_OPEN


def fails() -> None:
    raise ConnectionError("down")
