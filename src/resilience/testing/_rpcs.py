"""The server's end of gRPC over HTTP/2, as the faults of FaultyGrpcServer use it.

The form of requests and responses on the wire is that of the document "gRPC over HTTP2" (PROTOCOL-HTTP2.md) of gRPC.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Generator
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from resilience.testing._connection import Connection

Metadata: TypeAlias = "list[tuple[str, str]]"

_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_SAFE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""The characters of `grpc-message` that are not percent-encoded."""
_PREFIX: Final = 5
"""The bytes before each message: whether it is compressed, and its length."""


class RpcEndedError(ConnectionAbortedError):
    """The client has cancelled the RPC or left, or the server stops."""


class Rpc:
    """An RPC, for the thread that answers it. What sends or waits raises RpcEndedError once the client has left.

    Attributes:
        method: its full name, "/package.Service/Method".
        metadata: the headers of the request by their names in lower case, without those that begin with ":". The
            values of repeated ones are joined by ",", and those of binary ones are in base64, as sent.
        messages: the serialized messages of the request that have arrived.
        complete: whether all of them have.
    """

    def __init__(self, connection: GrpcConnection, stream: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.metadata: dict[str, str] = {}
        self.method = ""
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name == ":path":
                self.method = value
            elif not name.startswith(":"):
                self.metadata[name] = f"{self.metadata[name]},{value}" if name in self.metadata else value
        self.messages: list[bytes] = []
        self.complete = False
        self._connection = connection
        self._stream = stream
        self._received = bytearray()
        self._ended = False
        self._head_sent = False

    @property
    def timeout(self) -> float | None:
        """The seconds that the client allowed, from its `grpc-timeout`; None if it set no deadline."""
        sent = re.fullmatch("([0-9]{1,8})([HMSmun])", self.metadata.get("grpc-timeout", ""))
        return int(sent[1]) * _UNITS[sent[2]] if sent else None

    def receive(self, data: bytes) -> None:
        """Take a part of the request's messages. For the thread that reads the connection, which holds its lock."""
        self._received += data
        while len(self._received) >= _PREFIX:
            end = _PREFIX + int.from_bytes(self._received[1:_PREFIX], "big")
            if len(self._received) < end:
                break
            self.messages.append(bytes(self._received[_PREFIX:end]))
            del self._received[:end]

    def end(self) -> None:
        """Have what waits end, and what would be sent fail. With the lock of the connection held."""
        self._ended = True

    def wait(self, seconds: float | None = None, until: Callable[[], bool] = lambda: False) -> None:
        """Wait in real time for so many seconds, without an end where None, or until something is true."""
        with self._connection.changed:
            self._connection.changed.wait_for(lambda: self._ended or until(), seconds)
            self._check()

    def read(self, number: int) -> bytes | None:
        """Wait for the message of a number from 0; None if the request has ended before."""
        self.wait(until=lambda: self.complete or len(self.messages) > number)
        return self.messages[number] if len(self.messages) > number else None

    def read_all(self) -> None:
        """Wait until all messages have arrived."""
        self.wait(until=lambda: self.complete)

    def send_head(self, *, status: int = 200, content_type: str = "application/grpc", end: bool = False) -> None:
        """Send the initial metadata, unless it has been sent; `end`: and nothing else."""
        if not self._head_sent:
            self._head_sent = True
            self._send_headers([(":status", str(status)), ("content-type", content_type)], end=end)

    def send_message(self, message: bytes, *, length: int | None = None) -> None:
        """Send a message; `length` is what is said of its length, if that is not true."""
        self.send_head()
        size = len(message) if length is None else length
        self.send_data(b"\0" + size.to_bytes(_PREFIX - 1, "big") + message)

    def send_data(self, data: bytes) -> None:
        """Send bytes as the client makes room for them."""
        left = memoryview(data)
        while left:
            with self._connection.sending() as state:
                window = min(state.local_flow_control_window(self._stream), state.max_outbound_frame_size)
                self._check()
                if window > 0:
                    state.send_data(self._stream, bytes(left[:window]))
                    left = left[window:]
            if left and window <= 0:
                self.wait(until=self._has_window)

    def send_status(self, code: int, details: str, metadata: Metadata) -> None:
        """End the RPC with a status, 0 to 16, in trailers of their own or in the only headers."""
        trailers = [("grpc-status", str(code)), *metadata]
        if details:
            trailers.insert(1, ("grpc-message", quote(details, safe=_SAFE)))
        first = [] if self._head_sent else [(":status", "200"), ("content-type", "application/grpc")]
        self._send_headers([*first, *trailers], end=True)

    def end_without_status(self) -> None:
        """End the response without the trailers that gRPC asks for."""
        with self._connection.sending() as state:
            self._check()
            state.end_stream(self._stream)

    def reset(self, *, refused: bool) -> None:
        """Reset the stream with REFUSED_STREAM, which says that nothing was processed, or with INTERNAL_ERROR."""
        from h2.errors import ErrorCodes

        with self._connection.sending() as state:
            self._check()
            state.reset_stream(self._stream, ErrorCodes.REFUSED_STREAM if refused else ErrorCodes.INTERNAL_ERROR)

    def give_up_connection(self, how: Callable[[GrpcConnection], object]) -> None:
        """End the connection of this RPC, with all others on it."""
        how(self._connection)

    def _send_headers(self, headers: list[tuple[str, str]], *, end: bool) -> None:
        with self._connection.sending() as state:
            self._check()
            state.send_headers(self._stream, headers, end_stream=end)

    def _has_window(self) -> bool:
        with self._connection.sending() as state:
            return bool(state.local_flow_control_window(self._stream) > 0)

    def _check(self) -> None:
        if self._ended:
            raise RpcEndedError("the client has left")


class GrpcConnection:
    """The server's end of a connection of gRPC, whose RPCs are answered in threads of their own.

    Args:
        connection: what it speaks over.
        answer: answers an RPC; called in its thread when its head has arrived.

    Attributes:
        changed: notified when something has arrived; its lock guards the state of the connection and of its RPCs.
    """

    def __init__(self, connection: Connection, answer: Callable[[Rpc], object]) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection

        self.changed = threading.Condition()
        self._connection = connection
        self._answer = answer
        self._state: Any = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._rpcs: dict[int, Rpc] = {}
        self._given_up = False

    def serve(self) -> None:
        """Serve the connection until it ends, and wait for the threads of its RPCs."""
        from h2.exceptions import ProtocolError

        threads: list[threading.Thread] = []
        try:
            with self.sending() as state:
                state.initiate_connection()
            while data := self._connection.receive():
                if not self._given_up:
                    with contextlib.suppress(ProtocolError), self.sending() as state:
                        for event in state.receive_data(data):
                            self._handle(state, event, threads)
        finally:
            with self.changed:
                for rpc in self._rpcs.values():
                    rpc.end()
                self.changed.notify_all()
            for thread in threads:
                thread.join()

    @contextlib.contextmanager
    def sending(self) -> Generator[Any]:
        """Enter the state of the connection; what it has to say after that is sent, and those who wait look again."""
        with self.changed:
            try:
                yield self._state
            finally:
                if not self._given_up:
                    self._connection.send(self._state.data_to_send())
                self.changed.notify_all()

    def go_away(self) -> None:
        """Give the connection up by a GOAWAY with stream 0: nothing on it was processed (RFC 9113, section 6.8)."""
        with self.sending() as state:
            state.close_connection(last_stream_id=0)
        self.close()

    def close(self) -> None:
        """Close the connection (FIN); what the client still sends is discarded."""
        with self.changed:
            self._end_all()
            self._connection.finish_sending()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        with self.changed:
            self._end_all()
            self._connection.reset_on_close()
            self._connection.stop_receiving()

    def _end_all(self) -> None:
        self._given_up = True
        for rpc in self._rpcs.values():
            rpc.end()
        self.changed.notify_all()

    def _handle(self, state: Any, event: Any, threads: list[threading.Thread]) -> None:
        """Handle an event of h2. Lock held."""
        kind, rpc = type(event).__name__, self._rpcs.get(getattr(event, "stream_id", 0))
        if kind == "RequestReceived":
            self._rpcs[event.stream_id] = rpc = Rpc(self, event.stream_id, event.headers)
            thread = threading.Thread(target=self._run, args=(event.stream_id, rpc), name="FaultyGrpcServer RPC")
            threads[:] = [*[one for one in threads if one.is_alive()], thread]
            thread.start()
        elif kind == "DataReceived":
            state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if rpc is not None:
                rpc.receive(event.data)
        elif rpc is not None and kind == "StreamEnded":
            rpc.complete = True
        elif rpc is not None and kind == "StreamReset":
            rpc.end()

    def _run(self, stream: int, rpc: Rpc) -> None:
        from h2.exceptions import ProtocolError

        try:
            with contextlib.suppress(OSError, ProtocolError):  # the client has left
                self._answer(rpc)
        finally:
            with self.changed:
                self._rpcs.pop(stream, None)
