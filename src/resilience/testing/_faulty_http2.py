"""The HTTP/2 side of FaultyServer: streams that are refused or reset, and connections that are given up."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Final, Protocol

from resilience.testing._connection import Connection
from resilience.testing._faults import Parameters
from resilience.testing._faulty_requests import ReceivedRequest, parse

FAULTS: Final = ("goaway", "refuse-stream", "reset-stream")
"""The paths, without their first slash, that fail for the first `failures` requests of a key, and answer after that."""
STALL: Final = "stall"


class _GivenUpError(Exception):
    """The connection was given up by a GOAWAY."""


class Record(Protocol):
    """Records requests."""

    def __call__(self, request: ReceivedRequest, key: str) -> int:
        """Record a request, and return how many there were of its path and key."""
        ...


def converse_http2(connection: Connection, *, record: Record) -> None:
    """Serve a connection over HTTP/2, until it ends."""
    from h2 import connection as h2_connection
    from h2.config import H2Configuration
    from h2.exceptions import ProtocolError

    state: Any = h2_connection.H2Connection(H2Configuration(client_side=False))
    streams: dict[int, dict[str, Any]] = {}
    state.initiate_connection()
    connection.send(state.data_to_send())
    while data := connection.receive():
        try:
            for event in state.receive_data(data):
                with contextlib.suppress(ProtocolError):  # the client has reset the stream in the same packet
                    _handle(state, event, streams, record)
        except ProtocolError:
            connection.send(state.data_to_send())
            return
        except _GivenUpError:  # what the client still sends must not be answered by another GOAWAY
            connection.send(state.data_to_send())
            connection.linger()
            return
        connection.send(state.data_to_send())


def _handle(state: Any, event: Any, streams: dict[int, dict[str, Any]], record: Record) -> None:
    """Handle an event of h2: a request is answered when its last frame has arrived."""
    kind = type(event).__name__
    if kind == "RequestReceived":
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        streams[event.stream_id] = {"headers": headers, "size": 0}
    elif kind == "DataReceived":
        state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if event.stream_id in streams:
            streams[event.stream_id]["size"] += len(event.data)
    elif kind == "StreamReset":
        streams.pop(event.stream_id, None)
    elif kind == "StreamEnded" and (stream := streams.pop(event.stream_id, None)) is not None:
        _respond(state, event.stream_id, stream["headers"], stream["size"], record)


def _respond(state: Any, number: int, headers: dict[str, str], size: int, record: Record) -> None:
    """Answer a request, or do what its path says."""
    from h2.errors import ErrorCodes

    path, _, query = headers[":path"].partition("?")
    name, method = path.removeprefix("/"), headers[":method"]
    try:
        asked, problem = parse(query, ("failures",)), ""
    except ValueError as error:
        asked, problem = Parameters(), str(error)
    usual = {name: value for name, value in headers.items() if not name.startswith(":")}
    received = ReceivedRequest(method, path, query, usual, size, complete=True)
    fails = record(received, asked.key) <= asked.failures
    if not problem and name == STALL:
        return
    if not problem and fails and name == "goaway":
        state.close_connection(last_stream_id=0)
        raise _GivenUpError
    if not problem and fails and name in FAULTS:
        refused = name == "refuse-stream"
        state.reset_stream(number, error_code=ErrorCodes.REFUSED_STREAM if refused else ErrorCodes.INTERNAL_ERROR)
        return
    status, text = 200, "ok"
    if problem:
        status, text = 400, f"{problem}\n"
    elif re.fullmatch("[2-5][0-9][0-9]", name):
        status, text = int(name), name
    elif name not in (*FAULTS, "ok"):
        known = ", ".join(sorted(f"/{one}" for one in ("ok", "<status>", STALL, *FAULTS)))
        status, text = 404, f"unknown fault over HTTP/2; known are {known}\n"
    _answer(state, number, status, b"" if status in (204, 304) else text.encode(), is_head=method == "HEAD")


def _answer(state: Any, number: int, status: int, body: bytes, *, is_head: bool) -> None:
    """Send a whole answer, of which HEAD gets the head only."""
    headers = [(":status", str(status)), ("content-type", "text/plain; charset=utf-8")]
    if status not in (204, 304):
        headers.append(("content-length", str(len(body))))
    bare = is_head or not body
    state.send_headers(number, headers, end_stream=bare)
    if not bare:
        state.send_data(number, body, end_stream=True)
