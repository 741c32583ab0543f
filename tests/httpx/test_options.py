"""Options of one request."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from resilience import Pipeline, Retry, backoff
from resilience.events import CallEnded
from resilience.httpx import attach, options
from resilience.httpx._options import RequestOptions
from resilience.testing import Recorder, VirtualClock
from tests.httpx.helpers import Ask, Script, retrying


def test_they_name_the_operation(ask: Ask) -> None:
    pipeline = retrying()
    with Recorder(pipeline, events=[CallEnded]) as recorder:
        ask(pipeline, Script(200), extensions=options(operation="quote"))

    assert [event.operation for event in recorder.of(CallEnded)] == ["quote"]


@pytest.mark.parametrize(("method", "idempotent", "requests"), [("POST", True, 3), ("GET", False, 1), ("GET", None, 3)])
def test_they_say_what_may_be_repeated(ask: Ask, method: str, idempotent: bool | None, requests: int) -> None:
    script = Script(500)
    ask(retrying(), script, method, extensions=options(idempotent=idempotent))

    assert len(script.requests) == requests


def test_a_timeout_bounds_the_whole_request(virtual_clock: VirtualClock) -> None:
    script = Script(500)
    client = attach(httpx.Client(transport=script), Pipeline(Retry(9, wait=backoff.fixed(1.0)), budget=None))

    start = virtual_clock.monotonic()
    assert client.get("http://a.test", extensions=options(timeout=2.5)).status_code == 500
    assert len(script.requests) == 3
    assert virtual_clock.monotonic() - start == pytest.approx(2.0)
    assert 0 < (script.timeouts[0]["read"] or 0) <= 2.5


def test_a_redirect_has_the_time_that_is_left(virtual_clock: VirtualClock) -> None:
    def hop() -> httpx.Response:
        virtual_clock.advance(1.0)
        return httpx.Response(302, headers={"location": "http://b.test"})

    script = Script(hop, hop, hop, 200)
    client = attach(httpx.Client(transport=script, follow_redirects=True), Pipeline())
    with pytest.raises(httpx.TimeoutException):
        client.get("http://a.test", extensions=options(timeout=1.5))

    assert [request.url.host for request in script.requests] == ["a.test", "b.test"]


def test_a_request_that_is_sent_again_after_its_time_has_time_again(virtual_clock: VirtualClock) -> None:
    client = attach(httpx.Client(transport=Script(200)), Pipeline())
    request = client.build_request("GET", "http://a.test", extensions=options(timeout=1.0))
    for _ in range(3):
        assert client.send(request).status_code == 200
        virtual_clock.advance(2.0)


def test_they_are_merged_with_other_extensions() -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions)
        return httpx.Response(200)

    client = attach(httpx.Client(transport=httpx.MockTransport(answer)), Pipeline())
    client.get("http://a.test", extensions={**options(operation="x"), "mine": 1})

    assert seen[0]["mine"] == 1
    assert seen[0]["resilience"] == RequestOptions(operation="x")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"operation": ""}, ValueError, "operation"),
        ({"idempotent": 1}, TypeError, "idempotent"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"settle": "x"}, ValueError, "settle"),
        ({"speed": 1}, TypeError, "speed"),
    ],
)
def test_bad_ones_are_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        options(**given)


def test_an_extension_that_is_made_by_hand_is_refused() -> None:
    client = attach(httpx.Client(transport=Script(200)), Pipeline())

    with pytest.raises(TypeError, match=r"must be made by resilience\.httpx\.options"):
        client.get("http://a.test", extensions={"resilience": {"timeout": 3}})
