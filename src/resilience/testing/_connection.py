"""The server's end of a connection of FaultyServer or FaultyGrpcServer."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

POLL: Final = 0.05
"""The timeout of the sockets: seconds after which a blocked thread looks at whether the server stops."""
LONGEST_HEAD: Final = 65536
"""The most bytes of a head, or of a line in a chunked body."""
_RESET: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""A value of SO_LINGER, on and without any time: closing sends RST in place of FIN."""


class Connection:
    """The server's end of a connection. What blocks raises an OSError if the client has left, or the server stops.

    Args:
        accepted: the socket of the connection; it is given a timeout.
        stopping: waits for so many seconds, or until the server stops, and returns whether it stops.
    """

    def __init__(self, accepted: socket.socket, stopping: Callable[[float], bool]) -> None:
        accepted.settimeout(POLL)
        self._socket = accepted
        self._stopping = stopping
        self._received = bytearray()

    def wait(self, seconds: float) -> None:
        """Wait in real time."""
        if self._stopping(seconds):
            raise ConnectionAbortedError("the server stops")

    def send(self, data: bytes) -> None:
        """Send all of `data`, however long the client takes to receive it."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except TimeoutError:
                self.wait(0)

    def read_until(self, mark: bytes) -> str:
        """Return what comes before `mark`, and skip `mark`; ValueError if it does not come within LONGEST_HEAD."""
        while (end := self._received.find(mark)) < 0:
            if len(self._received) > LONGEST_HEAD:
                raise ValueError(f"a head or a line is longer than {LONGEST_HEAD} bytes")
            self._read_more()
        text = self._received[:end].decode("latin-1")
        del self._received[: end + len(mark)]
        return text

    def read(self, size: int, into: bytearray) -> None:
        """Add the next `size` bytes to `into`; those that arrive, if the client leaves before."""
        while True:
            part = self._received[:size]
            del self._received[:size]
            into += part
            size -= len(part)
            if size == 0:
                return
            self._read_more()

    def hold(self) -> None:
        """Discard what arrives until the client closes its side."""
        while self.receive():
            pass

    def linger(self) -> None:
        """Close the sending side, and discard what arrives until the client closes its own (RFC 9112, section 9.6)."""
        # The system would reset a connection that is closed while bytes arrive, and the client could lose the answer.
        self.finish_sending()
        self.hold()

    def finish_sending(self) -> None:
        """Close the sending side (FIN)."""
        self._socket.shutdown(socket.SHUT_WR)

    def stop_receiving(self) -> None:
        """Have `receive` return nothing, also where it waits in another thread."""
        self._socket.shutdown(socket.SHUT_RD)

    def reset_on_close(self) -> None:
        """Have the connection reset when it is closed."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _read_more(self) -> None:
        data = self.receive()
        if not data:
            raise ConnectionAbortedError("the client has left")
        self._received += data

    def receive(self) -> bytes:
        """Return what arrives next; nothing if the client has closed its side."""
        while True:
            try:
                return self._socket.recv(65536)
            except TimeoutError:
                self.wait(0)
