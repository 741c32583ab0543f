"""Cancellation at every suspension of the async drivers, and planted leaks that the harness must catch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest

from resilience import Allowlist, Call, Ending, Gate, Pipeline, Policy, Retry, Substitute, Ticket, WaitQueue, backoff
from resilience.testing import virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario, hung_up, on_asyncio, waiting_scenario
from tests.support.turnstile import Turnstile

Runner: TypeAlias = "Callable[[Callable[[], Scenario]], Report]"

each_runner = pytest.mark.parametrize("run", RUNNERS)


class AsksElsewhere(Substitute[str]):
    """A substitute that takes its time."""

    async def replace(self, call: Call, ending: Ending) -> str:
        await anyio.lowlevel.checkpoint()
        return "stale"


def guarded(make: Callable[[Turnstile], Pipeline[Any]], gate: Turnstile, *, bad: bool = False) -> Scenario:
    """Calls through a gate whose permit others hold at first; the first attempt fails or returns "bad"."""
    pipeline = make(gate)

    async def bad_result() -> str:
        return "bad"

    def check() -> str | None:
        return gate.leaked() or (None if pipeline.snapshot()["in_flight"] == 0 else "the pipeline still counts a call")

    return waiting_scenario(
        pipeline.acall, check, holding=Pipeline(gate).acall, first_attempt=bad_result if bad else hung_up
    )


def retry() -> Retry:
    return Retry(3, wait=backoff.fixed(0.5))


def shadow(policy: Policy[Any]) -> Policy[Any]:
    policy.mode = "shadow"
    return policy


BAD = Allowlist.of_results(lambda value: value == "bad")

PIPELINES: dict[str, Callable[[Turnstile], Pipeline[Any]]] = {
    "gate": lambda gate: Pipeline(gate),
    "two gates": lambda gate: Pipeline(Turnstile(), gate),
    "loop": lambda gate: Pipeline(retry(), gate),
    "gate around a loop": lambda gate: Pipeline(gate, retry()),
    "substitute": lambda gate: Pipeline(AsksElsewhere(), gate),
    "gate around a substitute": lambda gate: Pipeline(gate, AsksElsewhere()),
    "nested": lambda gate: Pipeline(retry(), Pipeline(gate, Pipeline(Turnstile()))),
    "shadow gate": lambda gate: Pipeline(retry(), shadow(gate), Turnstile()),
    "shadow loop": lambda gate: Pipeline(shadow(retry()), gate),
    "shadow substitute": lambda gate: Pipeline(shadow(AsksElsewhere()), gate),
    "bad results": lambda gate: Pipeline(retry(), gate, failures=BAD),
    "listened to": lambda gate: listened(Pipeline(retry(), gate)),
}


def listened(pipeline: Pipeline[Any]) -> Pipeline[Any]:
    pipeline.subscribe(lambda event: None)
    return pipeline


@each_runner
@pytest.mark.parametrize("name", PIPELINES)
def test_permits_come_back_wherever_cancellation_strikes(run: Runner, name: str) -> None:
    with virtual_time():
        report = run(lambda: guarded(PIPELINES[name], Turnstile(), bad=name == "bad results"))

    report.must_hold()


@each_runner
def test_the_queue_and_the_wait_between_attempts_are_visited(run: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    with virtual_time():
        report = run(lambda: guarded(PIPELINES["loop"], Turnstile()))
    report.must_hold()

    assert report.visited >= 4  # the queue, the first attempt, the wait, the second attempt
    assert f"visited {report.visited} suspensions" in capsys.readouterr().out


@each_runner
def test_a_scenario_that_never_waits_fails(run: Runner) -> None:
    async def at_once() -> str:
        return "fine"

    report = run(lambda: Scenario(call=lambda: Pipeline(Turnstile()).acall(at_once), check=lambda: None))

    with pytest.raises(AssertionError, match="no suspension was visited"):
        report.must_hold()


class ForgetsOnCancel(Turnstile):
    """A planted leak: settles only what ended by itself."""

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        if ending.kind != "abandoned":
            super().settle(token, ending)


def forgetful() -> Scenario:
    return guarded(PIPELINES["loop"], ForgetsOnCancel())


def swallowing() -> Scenario:
    """A planted fault: somebody catches the cancellation and goes on."""
    scenario = guarded(PIPELINES["loop"], Turnstile())
    call: Callable[[], Awaitable[Any]] = scenario.call

    async def swallow() -> None:
        try:
            await call()
        except BaseException:
            return

    scenario.call = swallow
    return scenario


class Sticky(Gate[None]):
    """A planted leak: counts in, and counts out only good endings."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0

    def admit(self, call: Call) -> None:
        self.inside += 1

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        if ending.error is None:
            self.inside -= 1


def sticky() -> Scenario:
    gate = Sticky()
    return Scenario(
        call=lambda: Pipeline(gate).acall(anyio.lowlevel.checkpoint),
        check=lambda: f"{gate.inside} inside" if gate.inside else None,
    )


@each_runner
@pytest.mark.parametrize("planted", [forgetful, swallowing, sticky])
def test_a_planted_leak_is_caught(run: Runner, planted: Callable[[], Scenario]) -> None:
    with virtual_time():
        report = run(planted)

    with pytest.raises(AssertionError):
        report.must_hold()


class KeepsGranted(Turnstile):
    """A planted leak that only cancellation in the tick of the grant finds: what was granted is not handed on."""

    def __init__(self) -> None:
        super().__init__()
        self.line = WaitQueue(self.take, lambda: None)


def test_only_late_cancellation_finds_a_grant_that_is_lost() -> None:
    with virtual_time():
        report = on_asyncio(lambda: guarded(PIPELINES["gate"], KeepsGranted()))

    assert report.wrong
    assert all("late" in where for where in report.wrong)
