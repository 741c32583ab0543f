"""Repairs HTTP/2 connections of httpcore and httpcore2, from which responses that are left early are not removed.

When a request is cut, or a body is closed before its end, httpcore forgets the stream, and does not reset it: to the
HTTP/2 state it stays open. After as many of them as the server admits at once, every further request fails with "Max
outbound streams is 100" although the server is well. And what such streams have received is never acknowledged: after
16 MiB the server may not send anything more. So before each attempt, the streams that belong to no response are reset
(RFC 9113 8.1, error code CANCEL), and the bytes that no response will acknowledge are given back (RFC 9113 6.9).

The frames are sent together with those of the next request. There is no public way to do that; see `_privates`.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from resilience.httpx._privates import (
    connections_in,
    http2_connections,
    http2_state_of,
    may_use_http2,
    pool_of,
    unacknowledged,
)

CANCEL: Final = 8
"""The error code of a stream that is not needed any more (RFC 9113 7)."""
LEAST: Final = 65_535
"""How many bytes are given back at once at least: the initial window of RFC 9113 6.9.2."""


def http2_pool_of(transport: Any) -> Any:
    """Return the pool of a transport that may use HTTP/2; None for any other transport."""
    pool = pool_of(transport)
    return pool if may_use_http2(pool) else None


def release_left_streams(pool: Any) -> None:
    """Reset the streams in a pool that belong to no response, and give back the bytes that they have received."""
    for connection in connections_in(pool):
        for http2 in http2_connections(connection):
            # Another thread may use the connection, which httpcore does not keep apart: the next attempt tries again.
            with contextlib.suppress(Exception):
                state, events, _ = http2_state_of(http2)
                _reset_left(state, events)
                _give_back(state, events)


def _reset_left(state: Any, events: dict[int, list[Any]]) -> None:
    left = [number for number, stream in list(state.streams.items()) if number not in events and not stream.closed]
    for number in left:
        state.reset_stream(number, error_code=CANCEL)


def _give_back(state: Any, events: dict[int, list[Any]]) -> None:
    unread = sum(
        getattr(event, "flow_controlled_length", 0) for queue in list(events.values()) for event in list(queue)
    )
    lost = unacknowledged(state) - unread
    if lost >= LEAST:
        state.increment_flow_control_window(lost)
