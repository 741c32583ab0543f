"""Cancellation at every suspension of the async drivers, and the harness caught red-handed on planted leaks."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from resilience import Call, Ending, Gate, Pipeline, Retry, Ticket, backoff
from resilience.testing import virtual_time
from tests.harness import Report, Scenario, cancel_everywhere_asyncio, cancel_everywhere_trio
from tests.turnstile import Turnstile

RUNNERS = [cancel_everywhere_asyncio, cancel_everywhere_trio]
Runner = Callable[[Callable[[], Scenario]], Report]


def full(gate: Turnstile) -> Scenario:
    """A retry around a gate whose permit is taken at first; the first attempt fails, a retry waits."""
    pipeline = Pipeline(Retry(3, wait=backoff.fixed(0.5)), gate)
    attempts = 0

    async def fetch() -> str:
        nonlocal attempts
        await anyio.lowlevel.checkpoint()
        attempts += 1
        if attempts == 1:
            raise ConnectionError("hung up")
        await anyio.lowlevel.checkpoint()
        return "fine"

    async def hold() -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    def check() -> str | None:
        return gate.leaked() or (None if pipeline.snapshot()["in_flight"] == 0 else "the pipeline still counts a call")

    async def holder() -> None:
        await Pipeline(gate).acall(hold)

    return Scenario(call=lambda: pipeline.acall(fetch), check=check, helpers=[holder, holder])


@pytest.mark.parametrize("run", RUNNERS)
def test_permits_come_back_wherever_cancellation_strikes(run: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    with virtual_time():
        report = run(lambda: full(Turnstile()))
    print(f"{run.__name__} visited {report.visited} suspensions")

    assert report.wrong == []
    assert report.visited >= 4
    assert "visited" in capsys.readouterr().out


class ForgetsOnCancel(Turnstile):
    """A planted leak: settles only what ended by itself."""

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        if ending.kind != "abandoned":
            super().settle(token, ending)


class Swallows(Turnstile):
    """A planted fault: see `swallowing`."""


def swallowing(gate: Turnstile) -> Scenario:
    scenario = full(gate)
    call = scenario.call

    async def swallow() -> None:
        try:
            await call()
        except BaseException:
            return

    scenario.call = swallow
    return scenario


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize(("make", "leak"), [(full, ForgetsOnCancel), (swallowing, Swallows)])
def test_a_planted_leak_is_caught(
    run: Runner, make: Callable[[Turnstile], Scenario], leak: Callable[[], Turnstile]
) -> None:
    with virtual_time():
        report = run(lambda: make(leak()))

    assert report.wrong != []


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


@pytest.mark.parametrize("run", RUNNERS)
def test_a_gate_that_counts_only_good_endings_is_caught(run: Runner) -> None:
    def make() -> Scenario:
        gate = Sticky()
        return Scenario(
            call=lambda: Pipeline(gate).acall(anyio.lowlevel.checkpoint),
            check=lambda: f"{gate.inside} inside" if gate.inside else None,
        )

    report = run(make)

    assert report.wrong != []
