"""What a request tells another process: the time that is left, and which attempt it is."""

from __future__ import annotations

import httpx
import pytest

from resilience import Pipeline, Retry, Timeout
from resilience._call.ambient import InboundRequest
from resilience._util.clock import FOREVER
from resilience.httpx import attach
from resilience.testing import VirtualClock
from tests.httpx.helpers import NOW, Script

TIME, ATTEMPT = "x-envoy-expected-rq-timeout-ms", "x-envoy-attempt-count"
pytestmark = pytest.mark.usefixtures("virtual_clock")


def sent(url: str, *policies: Retry | Timeout, to: str = "a.test") -> list[tuple[str | None, str | None]]:
    """Return the two headers of each attempt of a request that always fails."""
    script = Script(503)
    attach(httpx.Client(transport=script), Pipeline(*policies, budget=None), propagate_to=to).get(url)
    return [(request.headers.get(TIME), request.headers.get(ATTEMPT)) for request in script.requests]


def test_each_attempt_says_what_is_left_and_which_it_is() -> None:
    assert sent("http://a.test", Timeout(2.0), Retry(2, wait=NOW), Timeout(0.5)) == [("500", "1"), ("500", "2")]


def test_without_a_deadline_there_is_no_time() -> None:
    assert sent("http://a.test", Retry(2, wait=NOW)) == [(None, "1"), (None, "2")]


@pytest.mark.parametrize(
    ("url", "to", "tells"),
    [
        ("http://a.test:8080", "a.test", True),
        ("http://a.test:8080", "a.test:8080", True),
        ("http://a.test", "a.test:80", True),
        ("https://a.test", "a.test:443", True),
        ("http://a.test", "a.test:8080", False),
        ("http://b.a.test", "a.test", False),
    ],
)
def test_only_hosts_that_are_named_are_told(url: str, to: str, tells: bool) -> None:
    assert (sent(url, Timeout(2.0), to=to) == [("2000", "1")]) is tells


def test_a_part_of_a_retry_is_a_retry(virtual_clock: VirtualClock) -> None:
    request = InboundRequest.begin(FOREVER, 3)
    try:
        assert sent("http://a.test", Retry(4, wait=NOW)) == [(None, "3")]
    finally:
        request.end()


def test_the_request_of_the_caller_stays_unchanged() -> None:
    client = attach(httpx.Client(transport=Script(200)), Timeout(2.0), propagate_to="a.test")
    request = client.build_request("GET", "http://a.test")
    client.send(request)

    assert TIME not in request.headers
