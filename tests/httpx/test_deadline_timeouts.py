"""The timeouts of a request: those that were given, clipped to the time that is left, and who is told of a cut."""

from __future__ import annotations

import asyncio
from typing import Any

import httpcore
import httpx
import pytest

from resilience import CircuitBreaker, DeadlineExceededError, Pipeline, ResilienceError, Retry, Timeout, backoff
from resilience._util.clock import FOREVER
from resilience.events import TimedOut
from resilience.httpx import ResilientTransport, attach
from resilience.httpx._deadline import Timeouts
from resilience.testing import Recorder, virtual_time
from tests.httpx.helpers import Ask, Pool, Script

GIVEN = {"connect": 5.0, "read": 0.3, "write": None}


def test_timeouts_are_those_that_were_given_where_there_is_no_deadline() -> None:
    timeouts = Timeouts(GIVEN, FOREVER).filled()

    assert dict(timeouts) == GIVEN
    assert [timeouts.get(phase) for phase in ("connect", "write", "pool")] == [5.0, None, None]
    assert (timeouts.get("pool", 7), timeouts["read"]) == (7, 0.3)
    with pytest.raises(KeyError):
        timeouts["pool"]


def test_timeouts_are_what_is_left_when_they_are_asked_for() -> None:
    with virtual_time() as clock:
        timeouts = Timeouts(GIVEN, clock.monotonic() + 2).filled()
        assert dict(timeouts) == {"connect": 2.0, "read": 0.3, "write": 2.0, "pool": 2.0}
        clock.advance(1.9)
        assert [timeouts.get(phase) for phase in ("connect", "read")] == [pytest.approx(0.1)] * 2
        assert timeouts["pool"] == pytest.approx(0.1)
        clock.advance(5)
        assert timeouts.get("connect") == 0.001  # sockets take 0 for "do not wait at all"
        timeouts.set_deadline(clock.monotonic() + 1e9)
        assert (timeouts.get("read"), timeouts.get("write")) == (0.3, 1_000_000.0)


def test_what_is_left_reaches_a_transport_that_copies_the_timeouts() -> None:
    script = Script(200)

    with virtual_time():
        Ask("sync")(Pipeline(Timeout(0.5)), script)

    assert script.timeouts == [dict.fromkeys(("connect", "read", "write", "pool"), 0.5)]


def test_timeouts_are_clipped_to_what_is_left(ask: Ask) -> None:
    script = Script(503, 200)
    given = httpx.Timeout(5.0, connect=0.3, pool=None)

    with virtual_time():
        ask(Pipeline(Timeout(2), Retry(2, wait=backoff.fixed(0.5)), Timeout(1)), script, timeout=given)

    # In an async client, the attempt is cut by other means.
    left = (1, 1) if ask.way == "sync" else (2, 1.5)
    assert len(script.timeouts) == 2
    for sent, seconds in zip(script.timeouts, left, strict=True):
        assert sent["connect"] == 0.3
        assert sent["write"] == sent["pool"] == pytest.approx(seconds, abs=0.01)


def test_without_a_deadline_timeouts_are_those_of_the_client(ask: Ask) -> None:
    script = Script(200)

    ask(Pipeline(), script, timeout=httpx.Timeout(5.0, pool=None))

    assert script.timeouts[-1] == {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": None}


def test_a_bare_request_gets_timeouts_when_there_is_a_deadline() -> None:
    script = Script(200)

    with virtual_time():
        ResilientTransport(Pipeline(Timeout(2)), script).handle_request(httpx.Request("GET", "http://quotes.test"))

    assert set(script.timeouts[-1]) == {"connect", "read", "write", "pool"}
    assert max(seconds or 0.0 for seconds in script.timeouts[-1].values()) <= 2


def test_a_timeout_that_we_clipped_is_a_deadline() -> None:
    breaker = CircuitBreaker()
    pipeline = Pipeline(Timeout(1), breaker)

    with virtual_time() as clock, Recorder(pipeline, events=[TimedOut]) as recorder:

        def stall() -> httpx.Response:
            clock.advance(1)
            raise httpx.ReadTimeout("slow")

        with pytest.raises(DeadlineExceededError) as caught:
            Ask("sync")(pipeline, Script(stall))

    assert isinstance(caught.value, httpx.TimeoutException)
    assert isinstance(caught.value.__cause__, httpx.ReadTimeout)
    assert not caught.value.unprocessed
    assert (len(recorder.events), breaker.snapshot()["failures"]) == (1, 1)


def test_a_timeout_of_httpx_stays_one() -> None:
    with pytest.raises(httpx.ReadTimeout) as caught:
        Ask("sync")(Pipeline(Timeout(100)), Script(httpx.ReadTimeout("slow")))

    assert not isinstance(caught.value, ResilienceError)


def test_a_deadline_in_the_queue_of_the_pool_says_that_nothing_was_sent() -> None:
    breaker = CircuitBreaker()

    with virtual_time() as clock:

        class Full(Pool):
            def handle_request(self, request: httpcore.Request) -> httpcore.Response:
                clock.advance(1)
                return super().handle_request(request)

        pool = Full(httpcore.PoolTimeout("all busy"))
        with pytest.raises(DeadlineExceededError, match="nothing was called") as caught:
            Ask("sync")(Pipeline(Timeout(1), breaker), pool.below("sync"))

    assert caught.value.unprocessed
    assert breaker.snapshot()["calls"] == 0


def test_the_timeouts_of_an_attempt_do_not_end_the_body_over_another_transport() -> None:
    """As httpx-aiohttp does it: it reads the timeouts once, for the head and for the silences of the body."""
    kept: list[dict[str, Any]] = []

    class Keeping(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            kept.append(dict(request.extensions["timeout"]))
            return httpx.Response(200)

    async def main() -> None:
        pipeline = Pipeline(Timeout(9), Retry(), Timeout(0.5))
        await attach(httpx.AsyncClient(transport=Keeping(), timeout=30), pipeline).get("http://a.test")

    with virtual_time():
        asyncio.run(main())
    assert kept == [{phase: pytest.approx(9, abs=0.1) for phase in ("connect", "read", "write", "pool")}]


def test_timeouts_for_other_transports_are_those_of_a_dict() -> None:
    with virtual_time() as clock:
        timeouts = Timeouts(GIVEN, clock.monotonic() + 2).filled()

        assert (
            timeouts.copy()
            == dict(timeouts)
            == {**timeouts}
            == {"connect": 2.0, "read": 0.3, "write": 2.0, "pool": 2.0}
        )
        assert (timeouts | {"x": 1.0})["connect"] == 2.0
        timeouts.set_deadline(clock.monotonic() + 1)
        assert timeouts.copy()["connect"] == 1.0
