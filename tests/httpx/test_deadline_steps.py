"""The upload of a plain client: no part of it is sent after the deadline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpcore
import httpx
import pytest

from resilience import DeadlineExceededError, Pipeline, Timeout
from resilience._util.clock import FOREVER
from resilience.httpx._deadline import SLICE, Timeouts, Upload
from resilience.httpx._modules import load_httpx_module
from resilience.testing import virtual_time
from tests.httpx.helpers import Ask, Pool

HTTPX = load_httpx_module("httpx")


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
