"""The lines that pipelines write to the log: their words, levels and facts, and how many there are."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from random import Random
from typing import Any

import pytest

import resilience
from resilience import (
    Allowlist,
    Bulkhead,
    BulkheadFullError,
    Caller,
    CircuitBreaker,
    Cooldown,
    Failure,
    Pipeline,
    RejectedError,
    Retry,
    RetryBudget,
    Timeout,
    backoff,
)
from resilience.events import Mode
from resilience.testing import VirtualClock, reset, virtual_time
from tests.support.fork import in_child
from tests.support.functions import down, raising
from tests.support.interpreter import run_python
from tests.support.logs import held_back, lines_of
from tests.support.policies import Closed, retrying
from tests.support.threads import in_threads
from tests.support.ways import Make, each_way

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")

THREADS = 8
CALLS = 500


def secretly_down() -> None:
    raise ConnectionError("secret")


def fail(pipeline: Pipeline[None], level: int, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    with caplog.at_level(level, logger="resilience"), virtual_time(), pytest.raises(ConnectionError):
        pipeline.bind(target="example.org").call(secretly_down)
    return [record for record in caplog.records if record.name == "resilience"]


def quotes() -> Pipeline[None]:
    return Pipeline(Retry(3, wait=backoff.fixed(20)), name="logged quotes")


def refused(caller: Caller[Any], calls: int = 1, function: Callable[[], Any] = int) -> None:
    for _ in range(calls):
        with pytest.raises(RejectedError):
            caller.call(function)


@pytest.fixture
def full() -> Generator[Bulkhead]:
    """A bulkhead whose only permit is taken."""
    bulkhead = Bulkhead(1)
    with bulkhead:
        yield bulkhead


class TestLines:
    def test_lines(self, caplog: pytest.LogCaptureFixture) -> None:
        lines = fail(quotes(), logging.DEBUG, caplog)
        assert [(line.levelname, line.getMessage()) for line in lines] == [
            (
                "INFO",
                "logged quotes/retry: secretly_down failed in attempt 1 of 3 with ConnectionError (transient), "
                "target example.org; the next attempt follows in 20 s",
            ),
            (
                "INFO",
                "logged quotes/retry: secretly_down failed in attempt 2 of 3 with ConnectionError (transient), "
                "target example.org; the next attempt follows in 20 s",
            ),
            (
                "WARNING",
                "logged quotes/retry: secretly_down failed in attempt 3 of 3 with ConnectionError, "
                "target example.org; given up after 40 s: attempts",
            ),
        ]
        assert "secret" not in caplog.text.replace("secretly_down", "")

    def test_facts(self, caplog: pytest.LogCaptureFixture) -> None:
        first, _, last = fail(quotes(), logging.DEBUG, caplog)
        where: dict[str, object] = {
            "resilience_pipeline": "logged quotes",
            "resilience_policy": "retry",
            "resilience_operation": "secretly_down",
            "resilience_target": "example.org",
            "resilience_held_back": 0,
            "resilience_error_type": "ConnectionError",
            "resilience_max_attempts": 3,
        }
        more = {
            "resilience_attempt": 1,
            "resilience_wait": 20.0,
            "resilience_kind": "transient",
            "resilience_mode": "enforce",
        }
        end: dict[str, object] = {
            "resilience_attempts": 3,
            "resilience_elapsed": 40.0,
            "resilience_reason": "attempts",
        }
        for line, facts in ((first, where | more), (last, where | end)):
            assert {key: value for key, value in vars(line).items() if key.startswith("resilience_")} == facts

    @pytest.mark.parametrize(
        ("level", "levels"),
        [
            (logging.INFO, ["INFO", "INFO", "WARNING"]),
            (logging.WARNING, ["WARNING"]),
            (logging.ERROR, []),
        ],
    )
    def test_levels(self, caplog: pytest.LogCaptureFixture, level: int, levels: list[str]) -> None:
        assert [line.levelname for line in fail(quotes(), level, caplog)] == levels

    def test_the_facts_of_a_rejection(self, caplog: pytest.LogCaptureFixture, full: Bulkhead) -> None:
        refused(Pipeline(full, name="logged gate").bind(target="example.org", operation="quote"))

        (line,) = caplog.records
        assert line.getMessage() == (
            "logged gate/bulkhead: quote was rejected with BulkheadFullError (full), target example.org"
        )
        assert {key: value for key, value in vars(line).items() if key.startswith("resilience_")} == {
            "resilience_pipeline": "logged gate",
            "resilience_policy": "bulkhead",
            "resilience_operation": "quote",
            "resilience_target": "example.org",
            "resilience_held_back": 0,
            "resilience_reason": "full",
            "resilience_retry_after": None,
            "resilience_error_type": "BulkheadFullError",
            "resilience_mode": "enforce",
        }

    def test_a_breaker(self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
        breaker = CircuitBreaker(consecutive_failures=1, open_for=1, half_open_calls=1)
        pipeline: Pipeline[Any] = Pipeline(breaker, name="logged breaker")
        with caplog.at_level(logging.DEBUG, "resilience"):
            with pytest.raises(ConnectionError):
                pipeline.call(down)
            virtual_clock.advance(2)
            pipeline.bind(target="example.org").call(int)
            breaker.isolate()

        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("WARNING", "logged breaker/breaker: the circuit breaker is open since a call failed"),
            ("DEBUG", "logged breaker/breaker: the circuit breaker is half-open, target example.org"),
            ("INFO", "logged breaker/breaker: the circuit breaker is closed"),
            ("WARNING", "logged breaker/breaker: the circuit breaker is isolated (manually)"),
        ]

    @pytest.mark.usefixtures("virtual_clock")
    def test_a_cooldown(self, caplog: pytest.LogCaptureFixture) -> None:
        busy = Allowlist(ConnectionError, when=lambda error: Failure(retry_after=30.0))
        pipeline: Pipeline[Any] = Pipeline(Cooldown(mode="shadow"), failures=busy, name="cooled")
        with caplog.at_level(logging.INFO, "resilience"), pytest.raises(ConnectionError):
            pipeline.call(down)

        (line,) = caplog.records
        assert (line.levelname, line.getMessage()) == (
            "INFO",
            "cooled/cooldown: calls would be held back for 30 s: the server has asked for a pause",
        )
        assert vars(line)["resilience_seconds"] == 30.0

    def test_an_attempt_without_a_limit(self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
        import tenacity

        stopping = Retry(stop=tenacity.stop_after_attempt(2), wait=backoff.fixed(1))
        with caplog.at_level(logging.INFO, "resilience"), pytest.raises(ConnectionError):
            Pipeline(stopping, name="stopping").call(down)

        first, last = lines_of(caplog)
        assert first.startswith("stopping/retry: down failed in attempt 1 with ConnectionError (transient); the next")
        assert last == "stopping/retry: down failed in attempt 2 with ConnectionError; given up after 1 s: stop"

    @pytest.mark.parametrize(
        ("function", "name"),
        [
            (raising(asyncio.QueueFull("secret")), "asyncio.queues.QueueFull"),
            (lambda: "a value with a secret", "str"),
        ],
        ids=["an exception", "a bad result"],
    )
    def test_the_type_of_the_error(
        self, caplog: pytest.LogCaptureFixture, function: Callable[[], Any], name: str
    ) -> None:
        failures = Allowlist(asyncio.QueueFull) | Allowlist.of_results(lambda result: True)
        with caplog.at_level(logging.INFO, "resilience"), virtual_time(), suppress(asyncio.QueueFull):
            Pipeline(Retry(2, on=failures), name="typed").call(function)

        retried, given_up = lines_of(caplog)
        assert f"failed in attempt 1 of 2 with {name} (transient); " in retried
        assert f"failed in attempt 2 of 2 with {name}; given up" in given_up
        assert "secret" not in caplog.text

    def test_a_success_says_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG, logger="resilience"):
            assert quotes().call(len, "ab") == 2
        assert caplog.records == []

    def test_shadow(self, caplog: pytest.LogCaptureFixture) -> None:
        (line,) = fail(Pipeline(Retry(mode="shadow")), logging.DEBUG, caplog)
        assert vars(line)["resilience_mode"] == "shadow"

    def test_the_log_of_a_shadow_retry_does_not_promise(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "resilience"), pytest.raises(ConnectionError):
            Pipeline(Retry(mode="shadow")).call(down)

        assert "would follow in" in caplog.text

    def test_a_pipeline_without_a_name(self, caplog: pytest.LogCaptureFixture, full: Bulkhead) -> None:
        refused(Pipeline(full))

        assert lines_of(caplog) == ["bulkhead: int was rejected with BulkheadFullError (full)"]

    @pytest.mark.parametrize(
        ("target", "shown"),
        [
            ("https://user:secret@example.org:8443/path?token=secret#secret", "https://example.org:8443/path"),
            ("postgresql://secret@db/orders", "postgresql://db/orders"),
            ("user:secret@example.org", "example.org"),
            ("example.org/path?key=secret", "example.org/path"),
            ("example.org:443", "example.org:443"),
            ("dns:///quotes:50051", "dns:///quotes:50051"),
            ("orders@v2", "orders@v2"),
        ],
    )
    def test_a_target_has_no_credentials(
        self, caplog: pytest.LogCaptureFixture, full: Bulkhead, target: str, shown: str
    ) -> None:
        refused(Pipeline(full, name="logged gate").bind(target=target))

        (line,) = caplog.records
        assert vars(line)["resilience_target"] == shown
        assert line.getMessage().endswith(f", target {shown}")


class TestRejections:
    """Every rejection is an event, and so gives a line, wherever it is made."""

    def test_1000_bulkhead_refusals_give_a_line(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, full: Bulkhead
    ) -> None:
        pipeline: Pipeline[Any] = Pipeline(full, name="busy")
        refused(pipeline, 1_000)
        virtual_clock.advance(10)
        refused(pipeline)

        line = "busy/bulkhead: int was rejected with BulkheadFullError (full)"
        assert lines_of(caplog) == [line, f"{line} (and 999 more since the last line)"]

    @each_way
    def test_by_one_gate(self, caplog: pytest.LogCaptureFixture, full: Bulkhead, make: Make) -> None:
        with pytest.raises(BulkheadFullError):
            make(Pipeline(full, name="one"), int)

        assert [line.split(":")[0] for line in lines_of(caplog, "rejected")] == ["one/bulkhead"]

    @each_way
    @pytest.mark.parametrize("outer", [True, False])
    def test_by_one_of_two_gates(
        self, caplog: pytest.LogCaptureFixture, full: Bulkhead, make: Make, outer: bool
    ) -> None:
        other = Bulkhead(9, name="other")
        with pytest.raises(BulkheadFullError):
            make(Pipeline(*((full, other) if outer else (other, full)), name="two"), int)

        assert [line.split(":")[0] for line in lines_of(caplog, "rejected")] == ["two/bulkhead"]
        assert other.in_flight == 0

    @each_way
    def test_after_a_wait(self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, make: Make) -> None:
        queue = Bulkhead(1, queue=1, max_wait=1)
        with queue, pytest.raises(BulkheadFullError):
            make(Pipeline(queue, name="queued"), int)

        assert "queued/bulkhead" in caplog.text
        assert "was rejected with BulkheadFullError (queue_timeout)" in caplog.text

    @each_way
    def test_in_shadow_mode(self, caplog: pytest.LogCaptureFixture, full: Bulkhead, make: Make) -> None:
        full.mode = Mode.SHADOW
        assert make(Pipeline(full, name="shadowed"), int) == 0

        assert len(lines_of(caplog, "would be rejected with BulkheadFullError (full)")) == 1

    def test_of_a_block(self, caplog: pytest.LogCaptureFixture, full: Bulkhead) -> None:
        async def enter() -> None:
            async with full:
                raise AssertionError

        with pytest.raises(BulkheadFullError), full:
            raise AssertionError
        with pytest.raises(BulkheadFullError):
            asyncio.run(enter())

        assert lines_of(caplog) == ["bulkhead: block was rejected with BulkheadFullError (full)"]

    def test_during_a_drain(self, caplog: pytest.LogCaptureFixture) -> None:
        pipeline: Pipeline[Any] = Pipeline(Retry(), name="drained")
        pipeline.drain(timeout=1)
        refused(pipeline, 3)

        assert lines_of(caplog) == ["drained: int was rejected with RejectedError (draining)"]

    def test_by_a_policy_of_ones_own(self, caplog: pytest.LogCaptureFixture) -> None:
        refused(Pipeline(Closed(), name="own"))

        assert lines_of(caplog) == ["own/closed: int was rejected with RejectedError (isolated)"]

    @pytest.mark.slow
    def test_with_too_many_abandoned_threads(self, caplog: pytest.LogCaptureFixture) -> None:
        may_end = threading.Event()
        pipeline: Pipeline[Any] = Pipeline(Timeout(0.05, thread=True, max_abandoned=1), name="threads")
        try:
            with pytest.raises(TimeoutError):
                pipeline.call(may_end.wait, 60)
            refused(pipeline)
        finally:
            may_end.set()

        assert "threads/timeout: int was rejected with BulkheadFullError (abandoned_full)" in caplog.text

    def test_each_gate_of_a_pipeline_has_a_line_of_its_own(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, full: Bulkhead
    ) -> None:
        """The rejections of an open breaker do not hide those of the bulkhead."""
        breaker = CircuitBreaker()
        pipeline: Pipeline[Any] = Pipeline(breaker, full, name="both")
        refused(pipeline, 100)
        breaker.isolate()
        refused(pipeline, 100)
        virtual_clock.advance(10)
        refused(pipeline)

        assert lines_of(caplog, "rejected") == [
            "both/bulkhead: int was rejected with BulkheadFullError (full)",
            "both/breaker: int was rejected with CircuitOpenError (isolated)",
            "both/breaker: int was rejected with CircuitOpenError (isolated) (and 99 more since the last line)",
        ]


class TestThrottling:
    def test_10000_calls_with_35_percent_failures_give_few_lines(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        random = Random(1)
        pipeline: Pipeline[Any] = Pipeline(
            Retry(3, wait=backoff.none()), CircuitBreaker(), budget=RetryBudget(0.2), name="flood"
        )

        def flaky() -> None:
            if random.random() < 0.35:
                raise ConnectionError

        with caplog.at_level(logging.INFO, "resilience"):
            for _ in range(10_000):
                with suppress(ConnectionError, RejectedError):
                    pipeline.call(flaky)

        assert virtual_clock.elapsed < 10
        lines = lines_of(caplog)
        assert len(lines) == len({line.partition(" failed in ")[2] for line in lines}) <= 3

    def test_each_kind_has_an_interval_of_its_own(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        pipeline = retrying(name="kinds", budget=None)
        with caplog.at_level(logging.INFO, "resilience"):
            for _ in range(5):
                with suppress(ConnectionError):
                    pipeline.call(down)
            virtual_clock.advance(10)
            with suppress(ConnectionError):
                pipeline.call(down)

        assert [(line.levelname, vars(line)["resilience_held_back"]) for line in caplog.records] == [
            ("INFO", 0),
            ("WARNING", 0),
            ("INFO", 9),
            ("WARNING", 4),
        ]

    def test_each_pipeline_has_lines_of_its_own(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, full: Bulkhead
    ) -> None:
        for pipeline in [Pipeline(full, name="here"), Pipeline(full, name="there"), Pipeline(full), Pipeline(full)]:
            refused(pipeline, 2)

        assert [line.partition(":")[0] for line in lines_of(caplog)] == [
            *("here/bulkhead", "there/bulkhead"),
            *("bulkhead", "bulkhead"),
        ]

    def test_a_flapping_breaker_does_not_flood_and_no_state_hides_another(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        breaker = CircuitBreaker(consecutive_failures=1, open_for=0.1, half_open_calls=1)
        pipeline: Pipeline[Any] = Pipeline(breaker, name="flapping")
        with caplog.at_level(logging.DEBUG, "resilience"):
            for _ in range(20):
                with pytest.raises(ConnectionError):
                    pipeline.call(down)
                virtual_clock.advance(0.2)
                pipeline.call(int)
            virtual_clock.advance(10)
            with pytest.raises(ConnectionError):
                pipeline.call(down)

        states = [vars(record)["resilience_state"] for record in caplog.records]
        assert states == ["open", "half_open", "closed", "open"]
        assert held_back(caplog) == [0, 0, 0, 19]

    @pytest.mark.usefixtures("frequent_switches")
    def test_the_numbers_are_exact_under_threads(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, full: Bulkhead
    ) -> None:
        pipeline: Pipeline[Any] = Pipeline(full, name="crowded")

        def work(index: int) -> None:
            for _ in range(CALLS):
                refused(pipeline)
                virtual_clock.advance(0.01)

        in_threads(THREADS, work)
        virtual_clock.advance(10)
        refused(pipeline)

        numbers = held_back(caplog)
        assert len(numbers) + sum(numbers) == THREADS * CALLS + 1
        assert 3 <= len(numbers) <= virtual_clock.elapsed / 10 + 1

    def test_the_end_of_virtual_time_does_not_silence_a_pipeline(
        self, caplog: pytest.LogCaptureFixture, full: Bulkhead
    ) -> None:
        pipeline: Pipeline[Any] = Pipeline(full)
        with virtual_time() as time:
            time.advance(3_600)
            refused(pipeline)
        refused(pipeline)

        assert len(lines_of(caplog)) == 2

    def test_reset_lets_lines_through(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, full: Bulkhead
    ) -> None:
        pipeline: Pipeline[Any] = Pipeline(Closed(), name="reset")
        refused(pipeline, 3)
        reset()
        refused(pipeline, 3)

        assert held_back(caplog) == [0, 0]

    def test_a_forked_child_does_not_tell_what_its_parent_held_back(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        pipeline: Pipeline[Any] = Pipeline(Closed(), name="forked")
        refused(pipeline, 3)

        def child() -> str:
            caplog.clear()
            refused(pipeline, 2)
            return str(held_back(caplog))

        assert in_child(child) == "[0]"
        virtual_clock.advance(10)
        refused(pipeline)
        assert held_back(caplog) == [0, 2]


@pytest.mark.usefixtures("log_interval")
class TestConfigure:
    @pytest.mark.parametrize(("interval", "lines"), [(0, 4), (1, 3), (2.5, 2), (60.0, 1)])
    def test_interval(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, interval: float, lines: int
    ) -> None:
        resilience.logs.configure(interval=interval)
        pipeline: Pipeline[Any] = Pipeline(Closed())
        for seconds in (0.5, 1, 2, 0):
            refused(pipeline)
            virtual_clock.advance(seconds)

        assert len(lines_of(caplog)) == lines

    def test_it_applies_at_once_to_pipelines_that_have_logged(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        pipeline: Pipeline[Any] = Pipeline(Closed())
        refused(pipeline, 2)
        resilience.logs.configure(interval=0)
        refused(pipeline, 2)
        resilience.logs.configure()
        refused(pipeline, 2)

        assert held_back(caplog) == [0, 1, 0]

    @pytest.mark.parametrize("wrong", [-1, -0.001, math.nan, math.inf, -math.inf, "10", None, True])
    def test_a_wrong_interval_changes_nothing(
        self, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, wrong: Any
    ) -> None:
        with pytest.raises((TypeError, ValueError), match="interval must be a number >= 0, not"):
            resilience.logs.configure(interval=wrong)
        refused(Pipeline(Closed()), 2)

        assert len(lines_of(caplog)) == 1


@pytest.mark.slow
class TestSetUp:
    CODE = """
import logging, resilience
{}
full = resilience.Bulkhead(1)
pipeline = resilience.Pipeline(full, name="busy")
with full:
    for _ in range(1_000):
        try:
            pipeline.call(int)
        except resilience.BulkheadFullError:
            pass
"""

    def test_a_program_that_sets_up_no_logging_sees_nothing(self) -> None:
        assert run_python(self.CODE.format("")) == ""

    def test_a_program_that_sets_up_logging_sees_the_line(self) -> None:
        assert run_python(self.CODE.format("logging.basicConfig()")) == (
            "WARNING:resilience:busy/bulkhead: int was rejected with BulkheadFullError (full)\n"
        )

    def test_a_program_may_give_the_logger_a_handler_of_its_own(self) -> None:
        setup = "resilience.logs.logger.addHandler(logging.StreamHandler()); resilience.logs.configure(interval=0)"

        assert run_python(self.CODE.format(setup)).splitlines() == 1_000 * [
            "busy/bulkhead: int was rejected with BulkheadFullError (full)"
        ]
