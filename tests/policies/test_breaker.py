import asyncio
import contextlib
import gc
import itertools
import math
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
    Mode,
    Pipeline,
    RejectReason,
    Retry,
    backoff,
)
from resilience._outcome.ending import OK
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.breaker.state import LEASE, TRANSITIONS, Generation, Timed, Trigger
from resilience._policies.breaker.window import CallWindow, TimeWindow
from resilience.events import BreakerChanged, BreakerState, Rejected
from resilience.testing import Recorder, VirtualClock, seeded, virtual_time

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")

PATIENCE = 60.0
THREADS = 8
DOCS = Path(__file__).parents[2] / "docs" / "circuit-breaker.md"


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
        self.lock: threading.Lock = vars(breaker)["_lock"]

    def __enter__(self) -> None:
        vars(self.breaker)["_lock"] = self.lock
        self.others()
        self.lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.lock.release()


class Rig:
    """A breaker, a pipeline around it, and hands on its hooks."""

    def __init__(self, **settings: Any) -> None:
        self.breaker = CircuitBreaker(**settings)
        self.pipeline = Pipeline(self.breaker, name="quotes", failures=FAILURES)
        self.binding = self.pipeline.entry()[1]

    def call(self, deadline: float = math.inf) -> Call:
        call = Call(self.binding, print, (), {})
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
        vars(self.breaker)["_lock"] = Interference(self.breaker, others)

    def open(self) -> None:
        while self.state() is BreakerState.CLOSED:
            self.run("failed")
        assert self.state() is BreakerState.OPEN

    def half_open(self, clock: VirtualClock) -> None:
        self.open()
        clock.advance(self.breaker.snapshot()["retry_after"])
        assert self.state() is BreakerState.HALF_OPEN


@pytest.fixture(name="clock")
def _clock() -> Iterator[VirtualClock]:
    with virtual_time() as clock, seeded(1):
        yield clock


class Steady(random.Random):
    """Chance that always is in the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@pytest.fixture(name="steady")
def _steady() -> Iterator[VirtualClock]:
    """Virtual time in which the open time has no jitter."""
    with virtual_time() as clock, seeded(Steady()):
        yield clock


class TestSettings:
    def test_defaults(self) -> None:
        assert CircuitBreaker().describe() == {
            "kind": "breaker",
            "name": "breaker",
            "mode": "enforce",
            "settings": {
                "failure_rate": 0.7,
                "min_calls": 20,
                "window": 10.0,
                "window_calls": None,
                "consecutive_failures": 10,
                "slow_after": None,
                "slow_call_rate": 1.0,
                "open_for": 1.0,
                "open_growth": 1.25,
                "max_open_for": 30.0,
                "half_open_calls": 3,
                "probe_timeout": None,
                "on": None,
            },
        }

    def test_two_may_be_positional(self) -> None:
        assert CircuitBreaker(0.5, 5).settings == CircuitBreaker(failure_rate=0.5, min_calls=5).settings
        make: Any = CircuitBreaker
        with pytest.raises(TypeError):
            make(0.5, 5, 10.0)

    @pytest.mark.parametrize(
        ("parameter", "values", "words"),
        [
            ("failure_rate", (0, 1.1, -1, math.nan), "a number > 0 and <= 1"),
            ("min_calls", (0, -1), "an integer >= 1"),
            ("window", (0, 0.0009, math.inf, math.nan, 10**400), "a number >= 0.001"),
            ("window_calls", (0,), "an integer >= 1"),
            ("consecutive_failures", (0, -3), "an integer >= 1"),
            ("slow_after", (0, -1, math.nan, math.inf), "a number > 0"),
            ("slow_call_rate", (0, 1.5, math.nan), "a number > 0 and <= 1"),
            ("open_for", (0, -1, math.inf, math.nan), "a number > 0"),
            ("open_growth", (0.99, math.nan, math.inf), "a number >= 1"),
            ("max_open_for", (0, -1, math.inf), "a number > 0"),
            ("half_open_calls", (0,), "an integer >= 1"),
            ("probe_timeout", (0, -1, math.nan, math.inf), "a number > 0"),
        ],
    )
    def test_out_of_range(self, parameter: str, values: tuple[float, ...], words: str) -> None:
        for value in values:
            settings: dict[str, Any] = {parameter: value}
            with pytest.raises(ValueError, match="must be") as caught:
                CircuitBreaker(**settings)
            assert str(caught.value) == f"{parameter} must be {words}, not {value!r}"

    @pytest.mark.parametrize("parameter", sorted(CircuitBreaker().describe()["settings"]))
    def test_wrong_types(self, parameter: str) -> None:
        values: list[Any] = ["3", [], True]
        for value in values:
            settings: dict[str, Any] = {parameter: value}
            with pytest.raises(TypeError, match=parameter if parameter != "on" else "is wanted"):
                CircuitBreaker(**settings)

    @pytest.mark.parametrize("parameter", ["min_calls", "window_calls", "consecutive_failures", "half_open_calls"])
    def test_counts_are_whole(self, parameter: str) -> None:
        settings: dict[str, Any] = {parameter: 2.0}
        with pytest.raises(TypeError, match=f"{parameter} must be an integer >= 1, not 2.0"):
            CircuitBreaker(**settings)

    def test_it_says_what_it_expects(self) -> None:
        assert CircuitBreaker()._expected_seconds is None
        assert CircuitBreaker(slow_after=2)._expected_seconds == 2


@pytest.mark.usefixtures("clock")
class TestTripping:
    def test_the_rate(self) -> None:
        rig = Rig(consecutive_failures=None)
        rig.run(*["ok"] * 6, *["failed"] * 13)
        assert rig.seen("state", "calls") == ("closed", 19)
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN
        assert rig.seen("calls", "failures", "rate", "opens") == (20, 14, 0.7, 1)

    def test_a_success_never_opens_it(self) -> None:
        rig = Rig(consecutive_failures=None, failure_rate=0.5)
        rig.run(*["failed"] * 19, "ok", *["ok"] * 3)
        assert rig.seen("state", "rate") == ("closed", 19 / 23)
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN

    def test_nor_one_in_a_window_of_calls(self) -> None:
        rig = Rig(window_calls=10, min_calls=4, failure_rate=0.5, consecutive_failures=None)
        rig.run(*["failed"] * 3, "ok", "value")
        assert rig.seen("state", "rate") == ("closed", 0.6)
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN

    def test_below_the_rate(self) -> None:
        rig = Rig(consecutive_failures=None)
        for _ in range(100):
            rig.run("ok", "failed", "failed", "ok", "failed")
        assert rig.seen("state", "rate") == ("closed", 0.6)

    def test_consecutive_failures(self) -> None:
        rig = Rig(min_calls=100)
        rig.run(*["failed"] * 9, "ok", *["failed"] * 9)
        assert rig.state() is BreakerState.CLOSED
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN
        assert "10 calls in a row failed" in str(rig.refused())

    def test_consecutive_failures_of_a_client_with_little_traffic(self, clock: VirtualClock) -> None:
        rig = Rig(consecutive_failures=3)
        for _ in range(3):
            assert rig.state() is BreakerState.CLOSED
            rig.run("failed")
            clock.advance(3600)
        assert rig.state() is BreakerState.HALF_OPEN
        assert rig.seen("calls", "failures") == (1, 1)

    @pytest.mark.parametrize("word", NEUTRAL)
    def test_neutral_endings_count_nothing(self, word: str) -> None:
        rig = Rig(consecutive_failures=2)
        rig.run("failed", *[word] * 50)
        assert rig.counts == (1, 1, 0)
        rig.run("failed")  # and break no row
        assert rig.state() is BreakerState.OPEN

    @pytest.mark.parametrize("word", BAD)
    def test_bad_endings(self, word: str) -> None:
        rig = Rig(consecutive_failures=3)
        rig.run(*[word] * 3)
        assert rig.seen("state", "calls", "failures") == ("open", 3, 3)

    @pytest.mark.parametrize("word", GOOD)
    def test_good_endings(self, word: str) -> None:
        rig = Rig(consecutive_failures=2)
        rig.run("failed", word, "failed", word)
        assert rig.seen("state", "calls", "failures") == ("closed", 4, 2)

    def test_no_consecutive_failures(self) -> None:
        rig = Rig(consecutive_failures=None, min_calls=1000)
        rig.run(*["failed"] * 999)
        assert rig.state() is BreakerState.CLOSED
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN

    def test_a_window_of_calls(self) -> None:
        rig = Rig(window_calls=10, min_calls=10, failure_rate=0.5, consecutive_failures=None)
        rig.run(*["failed"] * 4, *["ok"] * 10)
        assert rig.counts == (10, 0, 0)
        rig.run(*["failed"] * 4)
        assert rig.seen("state", "calls", "rate") == ("closed", 10, 0.4)
        rig.run("failed")
        assert rig.seen("state", "calls", "rate") == ("open", 10, 0.5)
        assert "5 of 10 last calls failed" in str(rig.refused())

    @pytest.mark.filterwarnings("ignore:in pipeline 'quotes'. breaker wants min_calls")
    def test_a_window_that_cannot_hold_min_calls_is_left_with_the_row(self) -> None:
        rig = Rig(window_calls=5)
        rig.run(*["failed"] * 9)
        assert rig.state() is BreakerState.CLOSED
        rig.run("failed")
        assert rig.state() is BreakerState.OPEN

    def test_old_calls_are_forgotten(self, clock: VirtualClock) -> None:
        rig = Rig(consecutive_failures=None)
        rig.run(*["failed"] * 19)
        clock.advance(10)
        rig.run("failed")
        assert rig.seen("state", "calls") == ("closed", 1)

    @pytest.mark.parametrize("seconds", [0.0, 1e-9, 10.0, 1e6, 1e12])
    def test_any_pace_of_time(self, clock: VirtualClock, seconds: float) -> None:
        rig = Rig(consecutive_failures=3, open_for=5, max_open_for=5)
        for _ in range(3):
            rig.run("ok", "failed", "failed", "ok")
            clock.advance(seconds)
        assert rig.state() is BreakerState.CLOSED
        for _ in range(3):
            rig.run("failed")
        assert rig.state() is BreakerState.OPEN
        clock.advance(seconds)
        assert rig.state() is (BreakerState.HALF_OPEN if seconds > 5 else BreakerState.OPEN)


@pytest.mark.usefixtures("clock")
class TestSlowCalls:
    def take(self, rig: Rig, clock: VirtualClock, seconds: float, word: str = "ok") -> None:
        token = rig.admit()
        clock.advance(seconds)
        rig.end(token, word)

    def test_slow_calls_open_it(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, slow_call_rate=0.5, min_calls=4, window=100)
        for seconds in (0.25, 0.5, 0.25):
            self.take(rig, clock, seconds)
        assert rig.counts == (3, 0, 1)
        self.take(rig, clock, 2)
        assert rig.seen("state", "calls", "slow", "slow_rate", "rate") == ("open", 4, 2, 0.5, 0.0)
        assert "2 of 4 calls in the last 100 s were slow" in str(rig.refused())

    def test_fast_calls_do_not(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, slow_call_rate=0.1, min_calls=4, window=100)
        for seconds in (1.0, 0.25, 0.25, 0.25, 0.25):
            self.take(rig, clock, seconds)
        assert rig.seen("state", "slow_rate") == ("closed", 0.2)

    def test_a_slow_failure_is_both(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        for word in ("failed", "cut"):
            self.take(rig, clock, 0.5, word)
        assert rig.counts == (2, 2, 2)

    @pytest.mark.parametrize("word", NEUTRAL)
    def test_a_slow_neutral_ending_is_nothing(self, clock: VirtualClock, word: str) -> None:
        rig = Rig(slow_after=0.5)
        self.take(rig, clock, 50, word)
        assert rig.counts == (0, 0, 0)

    def test_a_slow_success_ends_a_row(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, consecutive_failures=2)
        rig.run("failed")
        self.take(rig, clock, 1)
        rig.run("failed")
        assert rig.state() is BreakerState.CLOSED

    def test_only_the_time_to_the_head_counts(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        token = rig.admit()
        clock.advance(0.25)
        token = rig.breaker.on_response_head(token)
        clock.advance(60)
        rig.end(token, "value")
        assert rig.counts == (1, 0, 0)

    def test_a_slow_head(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        token = rig.admit()
        clock.advance(0.75)
        rig.end(rig.breaker.on_response_head(token), "value")
        assert rig.counts == (1, 0, 1)

    def test_without_slow_after_the_time_is_not_taken(self) -> None:
        rig = Rig()
        token = rig.admit()
        assert isinstance(token, TimeWindow)
        assert rig.breaker.on_response_head(token) is token

    def test_in_a_window_of_calls(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, window_calls=4, min_calls=4, slow_call_rate=0.75)
        for seconds in (1.0, 1.0, 0.1, 1.0):
            self.take(rig, clock, seconds)
        assert rig.seen("state", "slow") == ("open", 3)

    def test_a_slow_probe_opens_it_again(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        rig.half_open(clock)
        self.take(rig, clock, 0.5)
        assert rig.state() is BreakerState.OPEN
        assert "a probe was slow" in str(rig.refused())

    def test_a_probe_with_a_fast_head_is_good(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5, half_open_calls=1)
        rig.half_open(clock)
        token = rig.breaker.on_response_head(rig.admit())
        clock.advance(10)
        rig.end(token, "value")
        assert rig.state() is BreakerState.CLOSED

    def test_slowness_can_be_switched_on_and_off_under_calls(self, clock: VirtualClock) -> None:
        rig = Rig()
        plain = rig.admit()
        rig.breaker.update(slow_after=0.5)
        timed = rig.admit()
        assert isinstance(timed, Timed)
        clock.advance(1)
        rig.end(plain, "ok")
        assert rig.counts == (1, 0, 0)
        rig.breaker.update(slow_after=None)
        rig.end(timed, "ok")
        assert rig.counts == (2, 0, 0)


class TestOpen:
    def test_it_refuses(self, steady: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        steady.advance(0.25)
        error = rig.refused()
        assert (error.retry_after, error.reason, error.policy, error.pipeline, error.unprocessed) == (
            0.75,
            RejectReason.OPEN,
            "breaker",
            "quotes",
            True,
        )
        assert str(error) == (
            "breaker of quotes is open for 1 s, since 10 calls in a row failed: the dependency was not called; "
            "wait for `retry_after` seconds, or do without it"
        )
        steady.advance(0.75)
        rig.admit()

    def test_every_refusal_is_its_own(self, steady: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        assert rig.refused() is not rig.refused()
        steady.advance(0.5)
        assert rig.refused().retry_after == 0.5

    def test_each_pipeline_reads_its_own_name(self, clock: VirtualClock) -> None:
        del clock
        rig = Rig(name="gate")
        other = Pipeline(rig.breaker, name="other")
        unnamed = Pipeline(rig.breaker)
        rig.open()
        for _ in range(2):
            assert str(rig.refused()).startswith("gate of quotes is open")
            with pytest.raises(CircuitOpenError, match=r"^gate of other is open") as caught:
                other.call(print)
            assert caught.value.pipeline == "other"
            with pytest.raises(CircuitOpenError, match=r"^gate is open"):
                unnamed.call(print)

    def test_it_grows_with_each_failed_period(self, steady: VirtualClock) -> None:
        rig = Rig(open_for=1.0, open_growth=2.0, max_open_for=5.0)
        rig.open()
        for seconds in (1.0, 2.0, 4.0, 5.0, 5.0):
            assert rig.seen("retry_after") == (seconds,)
            steady.advance(seconds)
            rig.run("failed")
        steady.advance(5)
        rig.run("ok", "ok", "ok")
        rig.open()
        assert rig.seen("retry_after", "opens") == (1.0, 7)

    def test_a_good_probe_before_the_bad_one_does_not_stop_the_growth(self, steady: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(steady)
        rig.run("ok", "ok", "failed")
        assert rig.seen("retry_after") == (1.25,)

    def test_jitter(self) -> None:
        seconds: set[float] = set()
        with virtual_time(), seeded(7):
            for _ in range(200):
                rig = Rig(open_for=10.0, max_open_for=11.0, consecutive_failures=1)
                rig.open()
                seconds.add(rig.breaker.snapshot()["retry_after"])
        assert 8 <= min(seconds) < 8.5
        assert max(seconds) == 11.0
        assert len(seconds) > 100

    def test_no_growth_overflows(self, steady: VirtualClock) -> None:
        rig = Rig(open_for=1e300, open_growth=1e300, consecutive_failures=1)
        rig.open()
        for _ in range(5):
            assert rig.seen("retry_after") == (30.0,)
            steady.advance(30)
            rig.run("failed")

    @pytest.mark.parametrize(("hint", "seconds"), [("0.5", 1.0), ("7", 7.0), ("99", 30.0), ("nan", 1.0)])
    def test_the_server_can_only_lengthen_it(self, steady: VirtualClock, hint: str, seconds: float) -> None:
        rig = Rig()
        rig.run(*["failed"] * 9, hint)
        assert rig.seen("state", "retry_after") == ("open", seconds)
        steady.advance(seconds)
        rig.run(hint)
        assert rig.seen("retry_after") == (max(1.25, seconds),)

    def test_late_endings_change_nothing(self, steady: VirtualClock) -> None:
        rig = Rig()
        late = [rig.admit() for _ in range(30)]
        rig.open()
        steady.advance(0.5)
        before = rig.breaker.snapshot()
        for token, word in zip(late, itertools.cycle([*GOOD, *BAD, *NEUTRAL, "25"]), strict=False):
            rig.end(token, word)
        assert rig.breaker.snapshot() == before
        assert before["retry_after"] == 0.5


class TestHalfOpen:
    def test_by_the_clock_without_traffic(self, steady: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        steady.advance(0.999)
        assert rig.state() is BreakerState.OPEN
        steady.advance(0.251)
        assert rig.seen("state", "seconds_in_state", "retry_after") == ("half_open", 0.25, None)

    def test_it_closes_after_so_many_good_endings(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        rig.run("ok", "answer")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.run("value")
        assert rig.seen("state", "calls", "failures", "opens") == ("closed", 0, 0, 1)

    def test_only_so_many_are_let_in(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        tokens = [rig.admit() for _ in range(3)]
        error = rig.refused()
        assert (error.retry_after, error.reason) == (None, RejectReason.OPEN)
        assert "is half-open, and all its probes are under way" in str(error)
        rig.end(tokens[0], "ok")
        rig.refused()  # it was one of the three
        rig.end(tokens[1], "ok")
        rig.refused()
        rig.end(tokens[2], "ok")
        rig.run("ok")
        assert rig.counts == (1, 0, 0)

    @pytest.mark.parametrize("word", BAD)
    def test_one_failure_opens_it(self, clock: VirtualClock, word: str) -> None:
        rig = Rig()
        rig.half_open(clock)
        others = rig.admit(), rig.admit()
        rig.run(word)
        assert rig.seen("state", "opens") == ("open", 2)
        before = rig.breaker.snapshot()
        for token in others:
            rig.end(token, "ok")
        assert rig.breaker.snapshot() == before

    @pytest.mark.parametrize("word", NEUTRAL)
    def test_a_neutral_probe_gives_its_place_back(self, clock: VirtualClock, word: str) -> None:
        rig = Rig()
        rig.half_open(clock)
        for _ in range(20):
            tokens = [rig.admit() for _ in range(3)]
            rig.refused()
            for token in tokens:
                rig.end(token, word)
        assert rig.state() is BreakerState.HALF_OPEN
        rig.run("ok", "ok", "ok")
        assert rig.state() is BreakerState.CLOSED

    def test_a_probe_ends_once(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        token = rig.admit()
        for _ in range(5):
            rig.end(token, "ok")
        assert rig.state() is BreakerState.HALF_OPEN

    @pytest.mark.parametrize("word", GOOD + BAD + NEUTRAL)
    def test_calls_of_closed_days_change_nothing(self, clock: VirtualClock, word: str) -> None:
        several: list[dict[str, Any]] = [{}, {"window_calls": 50}, {"slow_after": 0.01}]
        for settings in several:
            rig = Rig(**settings)
            old = [rig.admit() for _ in range(20)]
            rig.half_open(clock)
            for token in old:
                rig.end(token, word)
            assert rig.state() is BreakerState.HALF_OPEN
            rig.run("ok", "ok", "ok")
            for token in old:
                rig.end(token, word)
            assert rig.seen("state", "calls") == ("closed", 0)

    def test_probes_of_an_earlier_period_change_nothing(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        old = [rig.admit(), rig.admit()]
        rig.run("failed")
        clock.advance(30)
        assert rig.state() is BreakerState.HALF_OPEN
        for token in old:
            rig.end(token, "ok")
        rig.run("ok")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.end(old[0], "failed")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.run("ok", "ok")
        assert rig.state() is BreakerState.CLOSED

    def test_after_a_trip_the_snapshot_shows_the_window_that_tripped_it(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.run("ok", "ok")
        rig.open()
        for seconds in (0.1, 100.0):
            clock.advance(seconds)
            assert rig.seen("calls", "failures", "rate") == (12, 10, 10 / 12)
        rig.run("ok", "failed")
        assert rig.seen("state", "calls", "failures") == ("open", 12, 10)
        clock.advance(30)
        rig.run("ok", "ok", "ok")
        assert rig.seen("state", "calls", "rate") == ("closed", 0, 0.0)


class TestLeases:
    @pytest.mark.parametrize("timeout", [None, 5.0])
    def test_a_probe_that_never_ends_frees_its_place(self, clock: VirtualClock, timeout: float | None) -> None:
        rig = Rig(probe_timeout=timeout, half_open_calls=2)
        rig.half_open(clock)
        hung = [rig.admit(), rig.admit()]
        clock.advance((timeout or LEASE) - 0.001)
        rig.refused()
        clock.advance(0.002)
        rig.run("ok")
        for token in hung:
            rig.end(token, "ok")
        assert rig.state() is BreakerState.HALF_OPEN
        for token in hung:
            rig.end(token, "failed")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED

    @pytest.mark.parametrize("word", GOOD + BAD + NEUTRAL)
    def test_a_late_ending_changes_nothing_also_if_nobody_took_the_place(self, clock: VirtualClock, word: str) -> None:
        rig = Rig(probe_timeout=5.0, half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit()
        clock.advance(5)
        before = rig.breaker.snapshot()
        rig.end(token, word)
        assert rig.breaker.snapshot() == before
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED

    def test_by_default_the_deadline_of_the_call_ends_it(self, clock: VirtualClock) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        clock.advance(1.999)
        rig.refused()
        clock.advance(0.001)
        other = rig.admit(deadline=clock.monotonic() + 2)
        rig.end(token, "ok")
        assert rig.state() is BreakerState.HALF_OPEN
        rig.end(other, "ok")
        assert rig.state() is BreakerState.CLOSED

    @pytest.mark.parametrize("taken", [False, True])
    def test_a_hang_cut_at_the_deadline_is_not_late(self, clock: VirtualClock, taken: bool) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        clock.advance(2.001)
        if taken:
            rig.admit()
        rig.end(token, "timed out")
        assert rig.state() is BreakerState.OPEN

    @pytest.mark.parametrize("word", ["failed", "ok", "error"])
    def test_any_other_ending_after_the_deadline_is_late(self, clock: VirtualClock, word: str) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        clock.advance(2)
        rig.end(token, word)
        assert rig.state() is BreakerState.HALF_OPEN
        rig.admit()

    def test_a_deadline_may_be_farther_than_the_lease_of_calls_without_one(self, clock: VirtualClock) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2 * LEASE)
        clock.advance(1.5 * LEASE)
        rig.refused()
        rig.end(token, "ok")
        assert rig.state() is BreakerState.CLOSED

    def test_a_hang_of_an_earlier_period_is_nothing(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        rig.run("failed")
        clock.advance(30)
        assert rig.state() is BreakerState.HALF_OPEN
        rig.end(token, "timed out")
        assert rig.state() is BreakerState.HALF_OPEN

    def test_with_a_probe_timeout_the_deadline_makes_no_difference(self, clock: VirtualClock) -> None:
        rig = Rig(half_open_calls=1, probe_timeout=5.0)
        rig.half_open(clock)
        token = rig.admit(deadline=clock.monotonic() + 2)
        clock.advance(3)
        rig.refused()
        clock.advance(2)
        rig.end(token, "timed out")
        assert rig.state() is BreakerState.HALF_OPEN

    def test_good_probes_keep_their_place(self, clock: VirtualClock) -> None:
        rig = Rig(probe_timeout=1.0)
        rig.half_open(clock)
        rig.run("ok", "ok")
        rig.admit()
        rig.refused()
        clock.advance(1)
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED


class TestByHand:
    @pytest.mark.parametrize("state", list(BreakerState))
    def test_isolate_and_close(self, clock: VirtualClock, state: BreakerState) -> None:
        rig = Rig()
        put(rig, state, clock)
        token = None if state in (BreakerState.OPEN, BreakerState.ISOLATED) else rig.admit()
        rig.breaker.isolate()
        error = rig.refused()
        assert (error.retry_after, error.reason) == (None, RejectReason.ISOLATED)
        assert "is isolated" in str(error)
        clock.advance(1e6)
        assert rig.seen("state", "retry_after") == ("isolated", None)
        if token is not None:
            rig.end(token, "ok")
        rig.breaker.isolate()
        rig.refused()
        rig.breaker.close()
        assert rig.seen("state", "calls", "seconds_in_state") == ("closed", 0, 0.0)
        if token is not None:
            rig.end(token, "failed")
        assert rig.counts == (0, 0, 0)
        rig.run("ok")

    @pytest.mark.parametrize("state", list(BreakerState))
    def test_close_forgets_the_growth(self, steady: VirtualClock, state: BreakerState) -> None:
        rig = Rig()
        rig.half_open(steady)
        rig.run("failed")
        rig.breaker.close()
        put(rig, state, steady)
        rig.breaker.close()
        rig.open()
        assert rig.seen("retry_after") == (1.0,)

    @pytest.mark.parametrize("state", list(BreakerState))
    def test_reset_forgets_everything(self, clock: VirtualClock, state: BreakerState) -> None:
        rig = Rig()
        put(rig, state, clock)
        clock.advance(0.25)
        rig.breaker.reset()
        assert rig.breaker.snapshot() == Rig().breaker.snapshot()

    def test_close_keeps_the_count_of_openings(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        rig.run("failed")
        rig.breaker.close()
        assert rig.seen("opens") == (2,)

    def test_a_row_does_not_survive_a_close(self, clock: VirtualClock) -> None:
        del clock
        rig = Rig()
        rig.run(*["failed"] * 9)
        rig.breaker.close()
        rig.run(*["failed"] * 9)
        assert rig.state() is BreakerState.CLOSED

    def test_isolation_shows_the_window_of_its_moment(self, clock: VirtualClock) -> None:
        del clock
        rig = Rig()
        rig.run("ok", "failed")
        rig.breaker.isolate()
        assert rig.seen("state", "calls", "failures", "opens") == ("isolated", 2, 1, 0)


def put(rig: Rig, state: BreakerState, clock: VirtualClock) -> None:
    """Bring a closed breaker into a state."""
    match state:
        case BreakerState.CLOSED:
            rig.run("ok", "failed")
        case BreakerState.OPEN:
            rig.open()
        case BreakerState.HALF_OPEN:
            rig.half_open(clock)
        case BreakerState.ISOLATED:
            rig.breaker.isolate()
    assert rig.state() is state


def pull(rig: Rig, trigger: Trigger, clock: VirtualClock) -> None:
    """Have something happen, as far as it can."""
    match trigger:
        case Trigger.TRIPPED | Trigger.BAD:
            for _ in range(10):
                try:
                    rig.run("failed")
                except CircuitOpenError:
                    return
                if trigger is Trigger.BAD:
                    return
        case Trigger.GOOD:
            for _ in range(3):
                try:
                    rig.run("ok")
                except CircuitOpenError:
                    return
        case Trigger.TIME:
            clock.advance(30)
        case Trigger.ISOLATE:
            rig.breaker.isolate()
        case Trigger.CLOSE:
            rig.breaker.close()
        case Trigger.RESET:
            rig.breaker.reset()


class TestTransitions:
    @pytest.mark.parametrize(("state", "trigger"), list(itertools.product(BreakerState, Trigger)), ids=str)
    def test_the_table_is_what_happens(self, clock: VirtualClock, state: BreakerState, trigger: Trigger) -> None:
        rig = Rig()
        put(rig, state, clock)
        if (state, trigger) == (BreakerState.HALF_OPEN, Trigger.TRIPPED):
            return  # ten failures: the first one is a bad probe
        pull(rig, trigger, clock)
        assert rig.state() is TRANSITIONS.get((state, trigger), state)

    @pytest.mark.parametrize(("state", "trigger"), list(itertools.product(BreakerState, Trigger)), ids=str)
    def test_what_is_not_in_the_table_changes_nothing(self, state: BreakerState, trigger: Trigger) -> None:
        after = Generation(state, 0.0).after(trigger, CircuitBreaker().settings, 1.0)
        assert (None if after is None else after.state) is TRANSITIONS.get((state, trigger))

    def test_the_documentation_shows_the_table(self) -> None:
        (diagram,) = re.findall(r"```mermaid\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
        drawn = re.findall(r"^ +(\w+) --> (\w+): (.+)$", diagram, re.MULTILINE)
        wanted = {
            (str(before), str(after), str(why)) for (before, why), after in TRANSITIONS.items() if before != after
        }
        assert len(drawn) == len(wanted)
        assert set(drawn) == wanted
        assert re.findall(r"\[\*\] --> (\w+)", diagram) == ["closed"]


class TestEvents:
    def test_a_life(self, steady: VirtualClock) -> None:
        rig = Rig()
        with Recorder(rig.pipeline, events=[BreakerChanged]) as recorder:
            rig.run("ok")
            rig.open()
            steady.advance(1)
            rig.admit()
            rig.run("failed")
            steady.advance(2)
            assert rig.state() is BreakerState.HALF_OPEN
            rig.run("ok", "ok", "ok")
            rig.breaker.close()
            rig.breaker.isolate()
            rig.breaker.isolate()
            rig.breaker.reset()
            rig.breaker.reset()
        facts = [
            (one.previous, one.state, one.manual, round(one.failure_rate, 3)) for one in recorder.of(BreakerChanged)
        ]
        assert facts == [
            ("closed", "open", False, 0.909),
            ("open", "half_open", False, 0.909),
            ("half_open", "open", False, 0.909),
            ("open", "half_open", False, 0.909),
            ("half_open", "closed", False, 0.0),
            ("closed", "isolated", True, 0.0),
            ("isolated", "closed", True, 0.0),
        ]
        assert {(one.pipeline, one.policy) for one in recorder.of(BreakerChanged)} == {("quotes", "breaker")}
        operations = [(one.operation, one.target) for one in recorder.of(BreakerChanged)]
        assert operations == [("", None), ("print", None), *[("", None)] * 5]

    def test_what_the_clock_has_done_is_told_before_what_is_done_by_hand(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        clock.advance(2)
        with Recorder(rig.pipeline, events=[BreakerChanged]) as recorder:
            rig.breaker.isolate()
        facts = [(one.previous, one.state, one.manual) for one in recorder.of(BreakerChanged)]
        assert facts == [("open", "half_open", False), ("half_open", "isolated", True)]

    def test_every_pipeline_is_told_once(self, steady: VirtualClock) -> None:
        rig = Rig()
        other = Pipeline(Retry(), CircuitBreaker(), rig.breaker, name="other")
        with Recorder(events=[BreakerChanged]) as recorder:
            rig.open()
            steady.advance(1)
            other.call(lambda: None)
        told = sorted((one.pipeline, one.policy, one.state, one.operation) for one in recorder.of(BreakerChanged))
        assert told == [
            ("other", "breaker_2", "half_open", "<lambda>"),
            ("other", "breaker_2", "open", ""),
            ("quotes", "breaker", "half_open", ""),
            ("quotes", "breaker", "open", ""),
        ]

    def test_a_breaker_without_a_pipeline(self, steady: VirtualClock) -> None:
        breaker = CircuitBreaker(consecutive_failures=1)
        other = Rig()
        with Recorder(events=[BreakerChanged]) as recorder:
            breaker.settle(breaker.admit(other.call()), ending("failed"))
            steady.advance(1)
            breaker.admit(other.call())
        assert [(one.pipeline, one.policy, one.state) for one in recorder.of(BreakerChanged)] == [
            ("quotes", "", "half_open")
        ]

    def test_a_listener_may_call_back(self, steady: VirtualClock) -> None:
        rig = Rig()
        states: list[str] = []

        def listener(event: BreakerChanged) -> None:
            states.append(f"{event.state} {rig.state()} {rig.breaker.snapshot()['state']}")
            if event.state is BreakerState.HALF_OPEN:
                rig.run("ok", "ok", "ok")
            if event.state is BreakerState.OPEN and steady.elapsed < 1:
                rig.refused()

        with rig.pipeline.subscribe(listener, events=[BreakerChanged]):
            rig.open()
            steady.advance(1)
            rig.run("ok")
        assert states == ["open open open", "half_open half_open half_open", "closed closed closed"]
        assert rig.counts == (1, 0, 0)

    def test_a_predicate_may_look_at_the_breaker(self, clock: VirtualClock) -> None:
        del clock
        states: list[BreakerState] = []

        def down(error: Exception) -> bool:
            states.append(breaker.state)
            breaker.snapshot()
            return isinstance(error, ConnectionError)

        breaker = CircuitBreaker(on=down, consecutive_failures=1)
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(fails)
        assert states[-1] is BreakerState.CLOSED
        assert breaker.snapshot()["state"] == "open"


def fails() -> None:
    raise ConnectionError("down")


class TestOn:
    @pytest.mark.parametrize(
        ("error", "counts"),
        [
            (KeyError(), (1, 1, 0)),
            (ConnectionError(), (0, 0, 0)),
            (Answer(), (1, 0, 0)),
            (DeadlineExceededError(), (1, 1, 0)),
            (DeadlineExceededError(unprocessed=True), (0, 0, 0)),
            (CircuitOpenError("x"), (0, 0, 0)),
            (asyncio.CancelledError(), (0, 0, 0)),
        ],
    )
    def test_it_replaces_the_pipelines_failures(self, error: BaseException, counts: tuple[int, int, int]) -> None:
        rig = Rig(on=Allowlist(KeyError, answers=(Answer,)))
        rig.breaker.settle(rig.admit(), Ending(None, error, Allowlist(ConnectionError, answers=(KeyError,))))
        assert rig.counts == counts

    @pytest.mark.parametrize(
        ("kind", "counts"),
        [
            (EndingKind.OK, (1, 0, 0)),
            (EndingKind.FAILED, (1, 1, 0)),
            (EndingKind.TIMED_OUT, (1, 1, 0)),
            (EndingKind.ERROR, (0, 0, 0)),
            (EndingKind.ABANDONED, (0, 0, 0)),
        ],
    )
    def test_endings_that_say_themselves_what_they_are(self, kind: EndingKind, counts: tuple[int, int, int]) -> None:
        rig = Rig(on=KeyError)
        rig.breaker.settle(rig.admit(), Ending(kind))
        assert rig.counts == counts

    @pytest.mark.parametrize("kind", [EndingKind.TIMED_OUT, EndingKind.ABANDONED])
    def test_what_came_out_of_a_cut_or_a_cancellation_does_not_matter(self, kind: EndingKind) -> None:
        rig = Rig(on=KeyError)
        rig.breaker.settle(rig.admit(), Ending(kind, ValueError()))
        rig.breaker.settle(rig.admit(), Ending(kind, KeyError()))
        assert rig.counts == ((2, 2, 0) if kind is EndingKind.TIMED_OUT else (0, 0, 0))

    def test_results(self) -> None:
        pipeline = Pipeline(breaker := CircuitBreaker(on=Allowlist.of_results(lambda value: value == 503)))
        assert [pipeline.call(lambda: 503), pipeline.call(lambda: 200)] == [503, 200]
        assert breaker.snapshot()["calls"] == 2
        assert breaker.snapshot()["failures"] == 1

    def test_bad_results_of_the_pipeline_are_answers_elsewhere(self) -> None:
        failures = Allowlist.of_results(lambda value: value == 503)
        pipeline = Pipeline(breaker := CircuitBreaker(on=KeyError), failures=failures)
        assert pipeline.call(lambda: 503) == 503
        assert (breaker.snapshot()["calls"], breaker.snapshot()["failures"]) == (1, 0)

    def test_a_broken_predicate_is_neutral(self) -> None:
        def broken(error: Exception) -> bool:
            raise ZeroDivisionError

        rig = Rig(on=broken)
        rig.breaker.settle(rig.admit(), Ending(None, ConnectionError(), FAILURES))
        assert rig.counts == (0, 0, 0)


@pytest.mark.usefixtures("clock")
class TestUpdate:
    def test_the_state_and_the_counts_stay(self) -> None:
        rig = Rig()
        rig.run(*["failed"] * 9)
        rig.breaker.update(consecutive_failures=5, min_calls=10, open_for=4.0)
        assert rig.seen("state", "calls") == ("closed", 9)
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED
        rig.run("failed")
        assert rig.seen("state", "calls") == ("open", 11)

    def test_a_stale_row_does_not_open_it(self, clock: VirtualClock) -> None:
        rig = Rig(slow_after=0.5)
        rig.run(*["failed"] * 9)
        rig.breaker.update(consecutive_failures=5)
        token = rig.admit()
        clock.advance(1)
        rig.end(token, "ok")
        assert rig.state() is BreakerState.CLOSED

    @pytest.mark.parametrize("geometry", [{"window": 20.0}, {"window_calls": 7}])
    def test_another_window_begins_empty(self, geometry: dict[str, Any]) -> None:
        rig = Rig()
        rig.run(*["failed"] * 5)
        token = rig.admit()
        rig.breaker.update(**geometry)
        assert rig.counts == (0, 0, 0)
        rig.end(token, "failed")
        assert rig.counts == (0, 0, 0)
        rig.run("failed", "ok")
        assert rig.counts == (2, 1, 0)
        rig.breaker.update(**geometry)
        assert rig.counts == (2, 1, 0)

    def test_while_open(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        before = rig.breaker.snapshot()
        rig.breaker.update(window_calls=50, open_for=20.0, half_open_calls=1)
        assert rig.breaker.snapshot() == before
        clock.advance(1.2)
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED
        assert isinstance(rig.admit(), CallWindow)

    def test_a_half_open_period_keeps_its_places(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        rig.run("ok", "ok")
        rig.breaker.update(half_open_calls=1)
        rig.run("ok")
        assert rig.state() is BreakerState.CLOSED

    def test_a_bad_value_changes_nothing(self) -> None:
        rig = Rig()
        before = rig.breaker.settings
        with pytest.raises(ValueError, match="min_calls"):
            rig.breaker.update(failure_rate=0.5, min_calls=0)
        with pytest.raises(TypeError, match="no setting spare"):
            rig.breaker.update(spare=1)
        assert rig.breaker.settings is before

    def test_on(self) -> None:
        rig = Rig()
        rig.breaker.update(on=KeyError)
        rig.run("failed", "error")
        assert rig.counts == (1, 1, 0)


@pytest.mark.usefixtures("clock")
class TestInAPipeline:
    def test_sync_and_async_share_it(self, clock: VirtualClock) -> None:
        breaker = CircuitBreaker(consecutive_failures=4)
        pipeline = Pipeline(breaker, name="quotes")

        async def fails_later() -> None:
            await asyncio.sleep(0)
            raise ConnectionError

        for _ in range(2):
            with pytest.raises(ConnectionError):
                pipeline.call(fails)
            with pytest.raises(ConnectionError):
                asyncio.run(pipeline.acall(fails_later))
        with Recorder(pipeline, events=[Rejected]) as recorder:
            with pytest.raises(CircuitOpenError):
                pipeline.call(fails)
            with pytest.raises(CircuitOpenError):
                asyncio.run(pipeline.acall(fails_later))
        assert [(one.reason, one.mode, one.retry_after) for one in recorder.of(Rejected)] == [
            (RejectReason.OPEN, Mode.ENFORCE, pytest.approx(breaker.snapshot()["retry_after"]))
        ] * 2
        clock.advance(2)
        for _ in range(3):
            assert pipeline.call(lambda: "fine") == "fine"
        assert breaker.snapshot()["state"] == "closed"

    def test_a_retry_outside_does_not_retry_the_refusal(self) -> None:
        pipeline = Pipeline(Retry(9, wait=backoff.none()), CircuitBreaker(consecutive_failures=2))
        calls: list[None] = []

        def down() -> None:
            calls.append(None)
            raise ConnectionError("down")

        with pytest.raises(ConnectionError) as caught:
            pipeline.call(down)
        assert len(calls) == 2
        assert "attempt 3 not made: circuit open" in caught.value.__notes__[0]
        with pytest.raises(CircuitOpenError):
            pipeline.call(down)

    def test_shadow_mode_lets_everything_through_and_keeps_the_state_true(self, clock: VirtualClock) -> None:
        breaker = CircuitBreaker(consecutive_failures=2, mode="shadow")
        pipeline = Pipeline(breaker, name="quotes")
        healthy = False
        calls: list[None] = []

        def dependency() -> None:
            calls.append(None)
            if not healthy:
                raise ConnectionError

        def ask() -> None:
            with contextlib.suppress(ConnectionError):
                pipeline.call(dependency)

        with Recorder(pipeline, events=[Rejected, BreakerChanged]) as recorder:
            for _ in range(5):
                ask()
            assert breaker.snapshot()["state"] == "open"
            assert [one.mode for one in recorder.of(Rejected)] == [Mode.SHADOW] * 3
            clock.advance(2)
            ask()  # a probe, which fails
            assert breaker.snapshot()["opens"] == 2
            clock.advance(2)
            healthy = True
            for _ in range(3):
                ask()
        assert breaker.snapshot()["state"] == "closed"
        assert len(calls) == 9
        assert [one.state for one in recorder.of(BreakerChanged)] == [
            "open",
            "half_open",
            "open",
            "half_open",
            "closed",
        ]
        assert {one.mode for one in recorder.of(BreakerChanged)} == {Mode.SHADOW}

    def test_the_log_tells_shadow_mode(self, caplog: pytest.LogCaptureFixture) -> None:
        breaker = CircuitBreaker(consecutive_failures=1, mode="shadow")
        pipeline = Pipeline(breaker, name="logged-in-the-shadow")

        def dependency() -> None:
            raise ConnectionError

        with pytest.raises(ConnectionError):
            pipeline.call(dependency)

        assert "circuit breaker logged-in-the-shadow/breaker would be open since" in caplog.text

    def test_off(self) -> None:
        breaker = CircuitBreaker(consecutive_failures=1)
        pipeline = Pipeline(breaker)
        breaker.mode = Mode.OFF
        with pytest.raises(ConnectionError):
            pipeline.call(fails)
        assert breaker.snapshot()["calls"] == 0

    def test_a_cancelled_probe_gives_its_place_back(self, clock: VirtualClock) -> None:
        breaker = CircuitBreaker(consecutive_failures=1, half_open_calls=1)
        pipeline = Pipeline(breaker)
        with pytest.raises(ConnectionError):
            pipeline.call(fails)
        clock.advance(2)

        async def main() -> None:
            async def hangs() -> None:
                await asyncio.Event().wait()

            for _ in range(3):
                task = asyncio.create_task(pipeline.acall(hangs))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                with pytest.raises(CircuitOpenError):
                    await pipeline.acall(hangs)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(main())
        assert breaker.snapshot()["state"] == "half_open"
        for error in (KeyboardInterrupt, KeyError, GeneratorExit):
            with pytest.raises(error):
                pipeline.call(raises(error))
        pipeline.call(lambda: None)
        assert breaker.snapshot()["state"] == "closed"


def raises(error: type[BaseException]) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


@pytest.fixture
def _frantic_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(number: int, work: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(number, timeout=PATIENCE)

    def run(index: int) -> Any:
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(number) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, index) for index in range(number)]]


class TestConcurrency:
    @pytest.mark.usefixtures("_frantic_switching")
    @pytest.mark.parametrize("settings", [{}, {"window_calls": 10**6}, {"slow_after": 3600.0}], ids=str)
    def test_counts_are_exact(self, settings: dict[str, Any]) -> None:
        rig = Rig(window=3600, min_calls=10**6, consecutive_failures=None, **settings)

        def work(index: int) -> None:
            for number in range(1500):
                rig.run("failed" if number % 3 == 0 else "error" if number % 3 == 1 else "ok")
                if number % 50 == index:
                    rig.breaker.snapshot()

        in_threads(THREADS, work)
        assert rig.counts == (THREADS * 1000, THREADS * 500, 0)

    @pytest.mark.usefixtures("_frantic_switching")
    @pytest.mark.parametrize("missing", [0, 1])
    def test_the_last_failure_of_a_row_opens_it(self, missing: int) -> None:
        rig = Rig(window=3600, min_calls=10**9, consecutive_failures=THREADS * 1000 + missing, open_for=30)
        tokens = [[rig.admit() for _ in range(1000)] for _ in range(THREADS)]
        in_threads(THREADS, lambda index: ends(rig, tokens[index]))
        assert rig.seen("state", "failures", "opens") == (
            "closed" if missing else "open",
            THREADS * 1000,
            0 if missing else 1,
        )

    @pytest.mark.usefixtures("_frantic_switching")
    def test_a_success_in_between_breaks_the_row(self) -> None:
        rig = Rig(window=3600, min_calls=10**9, consecutive_failures=THREADS + 1)
        # Between two failures of a thread it has a success, so that no row can be longer than there are threads.
        in_threads(THREADS, lambda _: rig.run(*["failed", "ok"] * 1000))
        assert rig.seen("state", "calls") == ("closed", THREADS * 2000)

    @pytest.mark.usefixtures("_frantic_switching")
    def test_half_open_under_threads(self) -> None:
        with virtual_time() as clock:
            for _ in range(20):
                half_open_under_threads(clock)

    def test_half_open_with_calls_in_threads(self) -> None:
        with virtual_time() as clock:
            rig = Rig(consecutive_failures=1)
            rig.open()
            clock.advance(1.2)
            others_refused = threading.Event()
            refused = itertools.count(1)

            def ask(_: int) -> bool:
                try:
                    rig.pipeline.call(others_refused.wait, PATIENCE)
                except CircuitOpenError:
                    if next(refused) == 13:
                        others_refused.set()
                    return False
                return True

            assert sum(in_threads(16, ask)) == 3
            assert rig.state() is BreakerState.CLOSED

    def test_half_open_with_tasks(self) -> None:
        async def main(clock: VirtualClock) -> None:
            rig = Rig(consecutive_failures=1)
            rig.open()
            clock.advance(1.2)
            done = asyncio.Event()
            tasks = [asyncio.create_task(rig.pipeline.acall(done.wait)) for _ in range(50)]
            await asyncio.wait(tasks[3:])
            done.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert results.count(True) == 3
            assert sum(isinstance(result, CircuitOpenError) for result in results) == 47
            assert rig.state() is BreakerState.CLOSED

        with virtual_time() as clock:
            asyncio.run(main(clock))

    def test_a_thread_that_comes_late_to_the_end_of_the_open_time(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        clock.advance(1.2)

        def others() -> None:
            assert rig.state() is BreakerState.HALF_OPEN
            rig.run("failed")

        rig.interfere(others)
        assert rig.state() is BreakerState.OPEN
        assert rig.seen("opens", "seconds_in_state") == (2, 0.0)

    @pytest.mark.parametrize("word", ["failed", "ok"])
    def test_a_thread_that_comes_late_to_a_half_open_period(self, clock: VirtualClock, word: str) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        rig.interfere(lambda: rig.run(word))
        if word == "failed":
            assert rig.refused().retry_after is not None
        else:
            rig.run("ok")
            assert rig.counts == (1, 0, 0)

    @pytest.mark.usefixtures("_frantic_switching")
    def test_a_storm(self) -> None:
        """Any mixture, and in the end no probe place is lost."""
        with virtual_time() as clock:
            rig = Rig(consecutive_failures=5, open_for=0.5, max_open_for=0.5)
            words = ["ok", "failed", "error", "cancelled", "failed", "ok", "failed", "failed", "7"]

            def work(index: int) -> int:
                refused = 0
                for number in range(300):
                    try:
                        rig.run(words[(number * 7 + index) % len(words)])
                    except CircuitOpenError:
                        refused += 1
                        clock.advance(0.05)
                    if number % 100 == 99:
                        (rig.breaker.isolate, rig.breaker.close, rig.breaker.reset)[(index + number // 100) % 3]()
                return refused

            assert sum(in_threads(THREADS, work)) > 0
            rig.breaker.close()
            for _ in range(3):
                rig.half_open(clock)
                tokens = [rig.admit() for _ in range(3)]
                rig.refused()
                for token in tokens:
                    rig.end(token, "ok")
                assert rig.state() is BreakerState.CLOSED


def half_open_under_threads(clock: VirtualClock) -> None:
    rig = Rig(consecutive_failures=1)
    rig.open()
    clock.advance(1.2)
    with Recorder(rig.pipeline, events=[BreakerChanged]) as recorder:
        admitted = in_threads(16, lambda _: admits(rig))
    tokens = [token for token in admitted if token is not None]
    assert len(tokens) == len(set(tokens)) == 3
    assert [one.state for one in recorder.of(BreakerChanged)] == ["half_open"]
    in_threads(3, lambda index: rig.end(tokens[index], "ok"))
    assert rig.state() is BreakerState.CLOSED


def ends(rig: Rig, tokens: list[Any]) -> None:
    for token in tokens:
        rig.end(token, "failed")


def admits(rig: Rig) -> Any:
    try:
        return rig.admit()
    except CircuitOpenError:
        return None


def size(thing: Any, seen: set[int]) -> int:
    if id(thing) in seen or isinstance(thing, type | BreakerState | Mode):
        return 0
    seen.add(id(thing))
    return sys.getsizeof(thing) + sum(size(part, seen) for part in gc.get_referents(thing))


def test_memory() -> None:
    breaker = CircuitBreaker()
    seen: set[int] = set()
    assert 500 < sum(size(part, seen) for part in (vars(breaker), *vars(breaker).values())) < 3000
