"""What an attempt still holds is let go of once another one is decided on, before the wait for it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilience import Pipeline, Retry, backoff
from resilience._call.caller import options_of
from resilience._call.entry import aexecute, execute
from resilience._call.running_call import RunningCall
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience.testing import virtual_time


class Holding(RunningCall):
    """A call whose attempts leave something behind."""

    __slots__ = ("log", "release_attempt")


def holding(pipeline: Pipeline[Any], failures: int, log: list[Any]) -> Holding:
    def attempt() -> str:
        log.append("attempt")
        if log.count("attempt") <= failures:
            raise ConnectionError
        return "good"

    return Holding.make(options_of(pipeline, NETWORK_ERRORS), attempt, (), {})


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_plain_calls(failures: int) -> None:
    log: list[Any] = []
    pipeline: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.fixed(60)))
    call = holding(pipeline, failures, log)

    with virtual_time() as clock:
        call.release_attempt = lambda _: log.append(clock.monotonic())
        start = clock.monotonic()
        assert execute(pipeline.engine, call) == "good"

    assert log == [one for number in range(failures) for one in ("attempt", start + 60 * number)] + ["attempt"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_awaited_calls(backend: str) -> None:
    log: list[Any] = []
    pipeline: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()))
    call = holding(pipeline, 2, log)

    async def let_go(_: object) -> None:
        log.append("begins")
        await anyio.lowlevel.checkpoint()
        log.append("done")

    call.release_attempt = let_go
    assert anyio.run(aexecute, pipeline.engine, call, backend=backend) == "good"

    assert log == ["attempt", "begins", "done", "attempt", "begins", "done", "attempt"]


def test_nothing_is_let_go_of_when_no_attempt_follows() -> None:
    log: list[Any] = []
    pipeline: Pipeline[Any] = Pipeline(Retry(2, wait=backoff.none()))
    call = holding(pipeline, 9, log)
    call.release_attempt = lambda _: log.append("let go")

    with pytest.raises(ConnectionError):
        execute(pipeline.engine, call)

    assert log == ["attempt", "let go", "attempt"]
