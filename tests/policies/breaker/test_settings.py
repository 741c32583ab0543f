"""The settings of a circuit breaker: their validation, and how an ending is judged by its own allowlist."""

import asyncio
import math
from typing import Any

import pytest

from resilience import Allowlist, CircuitOpenError, DeadlineExceededError, Ending, EndingKind, Failure, Pipeline
from resilience._policies.breaker.breaker import CircuitBreaker
from tests.policies.breaker.helpers import FAILURES, Answer, Rig

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


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
                "open_for": 0.5,
                "open_growth": 1.25,
                "max_open_for": 30.0,
                "half_open_calls": 1,
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
            with pytest.raises(TypeError, match=parameter if parameter != "on" else "expected an Allowlist"):
                CircuitBreaker(**settings)

    @pytest.mark.parametrize("parameter", ["min_calls", "window_calls", "consecutive_failures", "half_open_calls"])
    def test_counts_are_whole(self, parameter: str) -> None:
        settings: dict[str, Any] = {parameter: 2.0}
        with pytest.raises(TypeError, match=f"{parameter} must be an integer >= 1, not 2.0"):
            CircuitBreaker(**settings)

    def test_it_says_what_it_expects(self) -> None:
        assert CircuitBreaker()._expected_seconds is None
        assert CircuitBreaker(slow_after=2)._expected_seconds == 2


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

    @pytest.mark.parametrize("kind", [EndingKind.FAILED, EndingKind.TIMED_OUT])
    def test_the_hint_of_the_server_is_part_of_the_verdict(self, kind: EndingKind) -> None:
        verdict = CircuitBreaker().settings.verdict(Ending(kind, failure=Failure(retry_after=7)))
        assert verdict == (False, kind is EndingKind.TIMED_OUT, 7)

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
