"""What hooks of the user's do wrong never reaches the call."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

import resilience
from resilience import (
    Allowlist,
    Call,
    Ending,
    Gate,
    Loop,
    Pipeline,
    RejectedError,
    RejectReason,
    Retry,
    RetryState,
    Substitute,
    Ticket,
    backoff,
)
from resilience._util import validation
from resilience._util.log_once import forget
from resilience.events import RetryScheduled
from resilience.testing import Recorder, VirtualClock


@pytest.fixture(autouse=True)
def _forget() -> None:
    forget()


def down() -> int:
    raise ConnectionError("down")


def broken(*_: Any) -> bool:
    raise RuntimeError("a bug in a hook")


class BrokenLoop(Loop):
    def delay(self, call: Call, ending: Ending, series: RetryState) -> float | None:
        raise RuntimeError("a bug in a hook")


class BrokenSubstitute(Substitute[int]):
    def should_handle(self, call: Call, ending: Ending) -> bool:
        raise RuntimeError("a bug in a hook")


class SecondTimeClosed(Gate[None]):
    def admit(self, call: Call) -> None:
        if call.attempt > 1:
            raise RejectedError("closed", reason=RejectReason.OPEN)

    def settle(self, token: Ticket | None, ending: Ending) -> None: ...


class BrokenNotMade(Retry):
    def on_attempt_rejected(self, call: Call, ending: Ending, error: Exception, series: RetryState) -> None:
        raise RuntimeError("a bug in a hook")


@pytest.mark.parametrize(
    ("policies", "failures"),
    [
        ((BrokenLoop(),), None),
        ((BrokenSubstitute(),), None),
        ((BrokenNotMade(wait=backoff.none()), SecondTimeClosed()), None),
        ((Retry(wait=backoff.none()),), Allowlist(ConnectionError, when=broken)),
    ],
)
def test_the_outcome_stays(
    policies: tuple[Any, ...], failures: Allowlist | None, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline: Pipeline[Any] = Pipeline(*policies, failures=failures)
    with caplog.at_level(logging.ERROR), pytest.raises(ConnectionError, match="down"):
        pipeline.call(down)
    with pytest.raises(ConnectionError, match="down"):
        asyncio.run(pipeline.acall(down))

    assert len([record for record in caplog.records if "said once" in record.getMessage()]) == 1


def test_a_broken_result_predicate_lets_the_value_through() -> None:
    pipeline = Pipeline(Retry(on=Allowlist.of_results(broken), wait=backoff.none()))

    assert pipeline.call(lambda: 5) == 5
    assert asyncio.run(pipeline.acall(lambda: 5)) == 5


class Slow(Substitute[int]):
    def replace(self, call: Call, ending: Ending) -> Any:
        async def compute() -> int:
            return 7

        return compute()


def test_an_awaitable_substitute_is_for_async_calls() -> None:
    pipeline = Pipeline(Slow())
    with pytest.raises(TypeError, match="substitute has an async `replace`"):
        pipeline.call(down)

    assert asyncio.run(pipeline.acall(down)) == 7


def test_a_nested_pipeline_that_drains_refuses() -> None:
    inner: Pipeline[Any] = Pipeline(name="draining-inner")
    outer = Pipeline(inner)
    assert inner.drain(0)
    with pytest.raises(RejectedError, match="drained"):
        outer.call(int)
    with pytest.raises(RejectedError, match="drained"):
        asyncio.run(outer.acall(int))
    inner.resume()

    assert outer.call(int) == 0


class Closed(Gate[None]):
    def admit(self, call: Call) -> None:
        raise RejectedError("closed")


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_the_mode_of_a_pipeline_is_that_of_all_in_it(mode: str) -> None:
    alone: Pipeline[Any] = Pipeline(Closed(), mode=mode)
    nested: Pipeline[Any] = Pipeline(Pipeline(Closed(), mode=mode))
    around: Pipeline[Any] = Pipeline(Pipeline(Closed()), mode=mode)
    for pipeline in (alone, nested, around):
        assert pipeline.call(int) == 0
        assert asyncio.run(pipeline.acall(int)) == 0
    around.mode = "enforce"
    with pytest.raises(RejectedError):
        around.call(int)
    around.update(mode=mode)
    assert around.call(int) == 0


def test_numbers_too_large_for_a_float_are_refused() -> None:
    with pytest.raises(ValueError, match="x must be a number"):
        validation.number("x", 10**400)


def test_lazy_parts_and_unknown_names() -> None:
    assert resilience.testing.virtual_time is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = resilience.nothing


def run_python(code: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_mode_comes_from_the_environment() -> None:
    code = "import resilience._pipeline.engine as e; print(e.switch.mode)"

    assert run_python(code, RESILIENCE_MODE="shadow").strip() == "shadow"
    told = run_python(code, RESILIENCE_MODE="of")
    assert "RESILIENCE_MODE is ignored" in told
    assert "enforce" in told


@pytest.mark.slow
def test_the_import_is_light() -> None:
    code = """
import sys, resilience
heavy = {"httpx", "httpx2", "grpc", "prometheus_client", "trio", "asyncio", "anyio"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"


def test_the_public_names_are_there() -> None:
    for name in resilience.__all__:
        assert getattr(resilience, name) is not None


def test_the_fixtures(virtual_time: VirtualClock, recorder: Recorder) -> None:
    calls: list[int] = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return "fine"

    assert Pipeline(Retry(wait=backoff.fixed(60.0))).call(flaky) == "fine"
    assert virtual_time.elapsed == 60.0
    assert len(recorder.of(RetryScheduled)) == 1


@pytest.mark.slow
def test_pytest_finds_the_plugin_by_itself(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_fixtures(virtual_time, recorder):
            virtual_time.advance(3.0)
            assert recorder.events == []
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
