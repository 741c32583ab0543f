"""The settings of a transport: when a call is settled."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from resilience import Bulkhead, CircuitBreaker, Pipeline, Timeout
from resilience.httpx import attach, options
from resilience.testing import VirtualClock
from tests.httpx.helpers import Script, Stream

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def streaming(headers: dict[str, str], pace: float, clock: VirtualClock) -> Script:
    """Return a transport that answers with a body of three chunks, each after so many seconds."""
    body = Stream(b"a", b"b", b"c", before=lambda: clock.advance(pace))
    return Script(httpx.Response(200, headers=headers, stream=body))


@pytest.mark.parametrize(
    ("headers", "settings", "extensions"),
    [
        (EVENTS, {}, {}),
        ({}, {"settle": "headers"}, {}),
        ({}, {}, options(settle="headers")),
        (EVENTS, {"settle": "body"}, {}),
    ],
)
def test_it_is_settled_at_the_head(
    headers: dict[str, str], settings: dict[str, Any], extensions: Any, virtual_clock: VirtualClock
) -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    script = streaming(headers, 5.0, virtual_clock)
    client = attach(httpx.Client(transport=script), Pipeline(Timeout(8.0), bulkhead, breaker), **settings)

    with client.stream("GET", "http://a.test", extensions=extensions) as response:
        assert bulkhead.in_flight == 0
        assert breaker.snapshot()["calls"] == 1
        assert b"".join(response.iter_raw()) == b"abc"  # 15 s after a deadline of 8 s


@pytest.mark.parametrize(("settings", "extensions"), [({}, {}), ({"settle": "headers"}, options(settle="body"))])
def test_it_is_settled_with_the_body(settings: dict[str, Any], extensions: Any, virtual_clock: VirtualClock) -> None:
    bulkhead = Bulkhead(1)
    script = streaming({}, 5.0, virtual_clock)
    client = attach(httpx.Client(transport=script), Pipeline(Timeout(8.0), bulkhead), **settings)

    with client.stream("GET", "http://a.test", extensions=extensions) as response:
        assert bulkhead.in_flight == 1
        with pytest.raises(httpx.TimeoutException):
            list(response.iter_raw())
    assert bulkhead.in_flight == 0


def test_without_a_retry_the_innermost_of_several_timeouts_bounds_the_head_only(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(Timeout(60.0), Timeout(8.0))
    client = attach(httpx.Client(transport=streaming({}, 5.0, virtual_clock)), pipeline)

    with client.stream("GET", "http://a.test") as response:
        assert b"".join(response.iter_raw()) == b"abc"


@pytest.mark.parametrize("kind", ["Text/Event-Stream", "text/event-stream ; charset=utf-8"])
def test_server_sent_events_are_known_in_any_case(kind: str, virtual_clock: VirtualClock) -> None:
    bulkhead = Bulkhead(1)
    client = attach(httpx.Client(transport=streaming({"content-type": kind}, 1.0, virtual_clock)), Pipeline(bulkhead))
    with client.stream("GET", "http://a.test"):
        assert bulkhead.in_flight == 0


def test_other_types_are_not() -> None:
    bulkhead = Bulkhead(1)
    script = Script(httpx.Response(200, headers={"content-type": "text/event-streams"}, stream=Stream(b"a")))
    with attach(httpx.Client(transport=script), Pipeline(bulkhead)).stream("GET", "http://a.test"):
        assert bulkhead.in_flight == 1


@pytest.mark.parametrize("headers", [EVENTS, {}])
def test_the_timeout_of_the_request_bounds_such_a_body_too(
    headers: dict[str, str], virtual_clock: VirtualClock
) -> None:
    client = attach(httpx.Client(transport=streaming(headers, 5.0, virtual_clock)), Pipeline())
    extensions = options(timeout=8.0, settle="headers")
    with (
        client.stream("GET", "http://a.test", extensions=extensions) as response,
        pytest.raises(httpx.TimeoutException),
    ):
        list(response.iter_raw())
