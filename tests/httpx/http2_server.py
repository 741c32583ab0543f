"""An HTTP/2 server on loopback, without TLS (RFC 9113 3.3, prior knowledge): it answers, is silent, or sends much."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

CHUNK = 16_000


class Http2Server:
    """A server by path: /ok answers 200, /path/... with its path, /hang nothing, /busy/<size> 503 and so many bytes.

    Attributes:
        resets: how many streams clients have reset.
        connections: how many connections it has accepted.
        refused: how many requests of /refuse it has refused, as not processed.
    """

    def __init__(self) -> None:
        self.resets = 0
        self.connections = 0
        self.refused = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):  # it is closed already
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5.0)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(accepted)
            self._start(self._serve, accepted)

    def _serve(self, accepted: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        waiting: dict[int, int] = {}
        try:
            accepted.sendall(connection.data_to_send())
            while data := accepted.recv(65_536):
                for event in connection.receive_data(data):
                    with contextlib.suppress(h2.exceptions.ProtocolError):  # it was reset meanwhile
                        self._handle(connection, event, waiting)
                for stream in list(waiting):
                    self._send(connection, stream, waiting)
                accepted.sendall(connection.data_to_send())
        except (OSError, h2.exceptions.ProtocolError):
            pass  # the client has gone, or has broken the protocol
        finally:
            accepted.close()

    def _handle(self, connection: h2.connection.H2Connection, event: h2.events.Event, waiting: dict[int, int]) -> None:
        if isinstance(event, h2.events.StreamReset) and event.stream_id is not None:
            self.resets += 1
            waiting.pop(event.stream_id, None)
        if not isinstance(event, h2.events.RequestReceived) or event.stream_id is None:
            return
        path = dict(event.headers or [])[b":path"].decode()
        if path == "/hang":
            return
        if path == "/refuse":
            self.refused += 1
            connection.reset_stream(event.stream_id, error_code=h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        if path.startswith("/path/"):
            connection.send_headers(event.stream_id, [(":status", "200")])
            connection.send_data(event.stream_id, path.encode(), end_stream=True)
            return
        busy, size = path.startswith("/busy/"), int(path.rpartition("/")[2] if path.startswith("/busy/") else 2)
        connection.send_headers(event.stream_id, [(":status", "503" if busy else "200")])
        waiting[event.stream_id] = size

    @staticmethod
    def _send(connection: h2.connection.H2Connection, stream: int, waiting: dict[int, int]) -> None:
        while waiting.get(stream):
            size = min(waiting[stream], CHUNK, connection.local_flow_control_window(stream))
            if size <= 0:
                return
            waiting[stream] -= size
            connection.send_data(stream, b"x" * size, end_stream=not waiting[stream])
        waiting.pop(stream, None)
