"""The steps to sending a request with a plain client: none begins after the deadline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpcore
import httpx
import pytest

from resilience import DeadlineExceededError, Pipeline, Timeout
from resilience._util.clock import FOREVER
from resilience.httpx._deadline import SLICE, DeadlineTrace, Timeouts, Upload
from resilience.httpx._modules import load_httpx_module
from resilience.testing import VirtualClock, virtual_time
from tests.httpx.helpers import Ask, Pool

HTTPX = load_httpx_module("httpx")


def ticking(clock: VirtualClock, seconds: float) -> DeadlineTrace:
    return DeadlineTrace(Timeouts({}, clock.monotonic() + seconds), HTTPX, None)


def test_each_step_to_a_connection_has_what_is_left() -> None:
    with virtual_time() as clock:
        hear = ticking(clock, 2)
        clock.advance(1.5)
        info: dict[str, Any] = {"host": "quotes.test", "timeout": 2.0}
        hear("connection.connect_tcp.started", info)
        assert info == {"host": "quotes.test", "timeout": pytest.approx(0.5)}
        clock.advance(1)
        hear("connection.start_tls.started", info)
        assert info["timeout"] == 0.001


@pytest.mark.parametrize(
    "name",
    [
        "connection.connect_tcp",
        "connection.connect_unix_socket",
        "http11.send_request_headers",
        "http2.send_request_headers",
    ],
)
def test_nothing_is_begun_after_the_deadline(name: str) -> None:
    with virtual_time() as clock:
        hear = ticking(clock, 2)
        hear(f"{name}.started", {})
        clock.advance(2)
        hear(f"{name}.complete", {})
        with pytest.raises(httpx.ConnectTimeout, match="before the request was sent"):
            hear(f"{name}.started", {})


def test_the_transport_of_httpx_does_not_try_again_past_the_deadline() -> None:
    """It waits 0, 0.5, 1, 2, ... seconds before its tries."""
    refused = httpcore.ConnectError("refused")
    with virtual_time() as clock:
        hear = ticking(clock, 1.2)
        with pytest.raises(httpcore.ConnectError) as caught:
            for pause in (0, 0.5, 1):
                try:
                    raise refused
                except httpcore.ConnectError:
                    hear("connection.retry.started", {"timeout": 1.2})
                clock.advance(pause)

    assert caught.value is refused
    assert clock.elapsed == 0.5


def test_a_large_body_is_sent_in_slices() -> None:
    with virtual_time() as clock:
        timeouts = Timeouts({}, clock.monotonic() + 1)
        chunks = [b"", b"a" * SLICE, b"b" * (2 * SLICE + 1)]

        assert [len(one) for one in Upload(chunks, timeouts, HTTPX)] == [SLICE, SLICE, SLICE, 1]
        assert b"".join(Upload(chunks, timeouts, HTTPX)) == b"".join(chunks)


def test_a_body_is_not_sent_on_after_the_deadline() -> None:
    sent: list[bytes] = []
    closed: list[object] = []

    class Slow(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for number in range(10):
                clock.advance(0.4)
                yield b"%d" % number

        def close(self) -> None:
            closed.append(self)

    class Reading(Pool):
        def handle_request(self, request: httpcore.Request) -> httpcore.Response:
            stream: Any = request.stream
            for chunk in stream:
                sent.append(chunk)
            return super().handle_request(request)

    with virtual_time() as clock, pytest.raises(DeadlineExceededError) as caught:
        Ask("sync")(Pipeline(Timeout(1)), Reading(200).below("sync"), "PUT", content=Slow())

    assert sent == [b"0", b"1"]
    assert isinstance(caught.value.__cause__, httpx.WriteTimeout)
    assert not caught.value.unprocessed
    Upload(Slow(), Timeouts({}, FOREVER), HTTPX).close()
    assert len(closed) == 1


def test_a_trace_of_the_users_own_hears_everything() -> None:
    heard: list[str] = []

    with virtual_time() as clock:
        hear = DeadlineTrace(Timeouts({}, clock.monotonic() + 1), HTTPX, lambda name, info: heard.append(name))
        hear("connection.connect_tcp.started", {})
        hear("connection.connect_tcp.complete", {})

    assert heard == ["connection.connect_tcp.started", "connection.connect_tcp.complete"]
