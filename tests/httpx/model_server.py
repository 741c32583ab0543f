"""A server of language models on loopback, which answers as a script says, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, TypeAlias

from resilience.testing._connection import Connection
from resilience.testing._faulty_requests import read_body, read_head

LONGEST = 10.0
"""The most seconds that one pause or silence lasts, and that the end waits for a thread."""


class End(Enum):
    """What becomes of the connection after an answer, in place of the next request."""

    RESET = auto()
    """It is reset (RST)."""
    CLOSE = auto()
    """It is closed (FIN)."""


Step: TypeAlias = "bytes | float | End"
"""Bytes that are sent, a pause in seconds, or the end of the connection."""
Answer: TypeAlias = "tuple[Step, ...]"

RESET: Answer = (End.RESET,)
CLOSE: Answer = (End.CLOSE,)
SILENCE: tuple[float | End, ...] = (LONGEST, End.CLOSE)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Overloaded"
    lines = [f"HTTP/1.1 {status} {phrase}", *[f"{name}: {value}" for name, value in headers.items()]]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answer(payload: object, status: int = 200, **headers: str) -> Answer:
    """Return an answer with a JSON body; the headers are written with underscores."""
    body = json.dumps(payload).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (_head(status, {"Content-Type": "application/json", "Content-Length": str(len(body)), **named}) + body,)


def refusal(status: int, **headers: str) -> Answer:
    """Return an error as the services of models make it."""
    return answer({"type": "error", "error": {"type": "some_error", "message": "not now"}}, status, **headers)


def stream(kind: str, parts: Iterable[bytes | float | End]) -> Answer:
    """Return an answer whose body is sent chunk by chunk, with the pauses in between; it may break off at an `End`."""
    steps: list[Step] = [_head(200, {"Content-Type": kind, "Transfer-Encoding": "chunked"})]
    for part in parts:
        if isinstance(part, bytes):
            steps.append(b"%x\r\n%s\r\n" % (len(part), part))
        else:
            steps.append(part)
    return (*steps, b"0\r\n\r\n") if not isinstance(steps[-1], End) else tuple(steps)


@dataclass(frozen=True)
class Received:
    """A request that was read to its end."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: Any = field(repr=False)


class ModelServer:
    """Answers one request after another by a script, on whatever connections they come. What is not in it is a 400.

    Attributes:
        url: its address.
        connections: how many it has accepted since the script was set.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._script: list[Answer] = []
        self._requests: list[Received] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> ModelServer:
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the client may have left
                    connection.shutdown(socket.SHUT_RDWR)
            threads = list(self._threads)
        for thread in threads:
            thread.join(LONGEST)
        assert not [thread for thread in threads if thread.is_alive()]

    @property
    def requests(self) -> list[Received]:
        """What was received since the script was set; each request is added before it is answered."""
        with self._lock:
            return list(self._requests)

    def script(self, *answers: Answer) -> None:
        """Set the answers, and forget what was received."""
        with self._lock:
            self._script = list(answers)
            self._requests.clear()
            self.connections = 0

    def _start(self, target: Any, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True, name="ModelServer")
        with self._lock:
            self._threads = [*[one for one in self._threads if one.is_alive()], thread]
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._open.add(accepted)
            self._start(self._serve, accepted)

    def _serve(self, accepted: socket.socket) -> None:
        try:
            connection = Connection(accepted, self._stopping.wait)
            with contextlib.suppress(OSError, ValueError):
                while self._exchange(connection):
                    pass
        finally:
            with self._lock:
                self._open.discard(accepted)
                accepted.close()

    def _exchange(self, connection: Connection) -> bool:
        """Read a request and answer it; return whether the connection takes another one."""
        method, path, headers = read_head(connection)
        body = bytearray()
        read_body(connection, headers, body)
        received = Received(method, path, headers, json.loads(body) if body else None)
        with self._lock:
            self._requests.append(received)
            steps = self._script.pop(0) if self._script else refusal(400)
        for step in steps:
            if isinstance(step, bytes):
                connection.send(step)
            elif isinstance(step, float):
                connection.wait(min(step, LONGEST))
            else:
                if step is End.RESET:
                    connection.reset_on_close()
                return False
        return True
