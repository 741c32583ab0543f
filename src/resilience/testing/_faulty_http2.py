"""The HTTP/2 side of FaultyServer: streams that are refused or reset, and connections that are given up."""

from __future__ import annotations

from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from resilience.testing._faults import Connection, Parameters
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

    parts = urlsplit(headers[":path"])
    name = parts.path.removeprefix("/")
    try:
        asked, problem = parse(parts.query, ("failures",)), ""
    except ValueError as error:
        asked, problem = Parameters(), str(error)
    usual = {name: value for name, value in headers.items() if not name.startswith(":")}
    received = ReceivedRequest(headers[":method"], parts.path, parts.query, usual, size, complete=True)
    fails = record(received, asked.key) <= asked.failures
    if problem:
        _answer(state, number, 400, f"{problem}\n")
    elif name == STALL:
        return
    elif name in FAULTS and not fails:
        _answer(state, number, 200, "ok")
    elif name == "goaway":
        state.close_connection(last_stream_id=0)
        raise _GivenUpError
    elif name == "refuse-stream":
        state.reset_stream(number, error_code=ErrorCodes.REFUSED_STREAM)
    elif name == "reset-stream":
        state.reset_stream(number, error_code=ErrorCodes.INTERNAL_ERROR)
    elif name == "ok":
        _answer(state, number, 200, "ok")
    elif name.isascii() and name.isdigit() and 200 <= int(name) <= 599:
        _answer(state, number, int(name), name)
    else:
        known = ", ".join(sorted(f"/{one}" for one in ("ok", "<status>", STALL, *FAULTS)))
        _answer(state, number, 404, f"unknown fault over HTTP/2; known are {known}\n")


def _answer(state: Any, number: int, status: int, text: str) -> None:
    """Send a whole answer."""
    headers = [(":status", str(status)), ("content-type", "text/plain; charset=utf-8")]
    state.send_headers(number, [*headers, ("content-length", str(len(text)))])
    state.send_data(number, text.encode(), end_stream=True)
