"""An HTTP server on loopback that misbehaves as it is told, and counts what it was sent."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

RESET = struct.pack("ii", 1, 0)
LONGEST_STALL = 5.0


class Server:
    """Answers each request by the next word from `choose`; a method of that name does it.

    Args:
        choose: gets the path of a request.
    """

    def __init__(self, choose: Callable[[str], str] = lambda path: path.strip("/").partition("/")[0]) -> None:
        self.choose = choose
        self.seen: Counter[str] = Counter()
        """How often each `x-id` arrived, completely."""
        self.answered: Counter[str] = Counter()
        self.connections = 0
        self.together = threading.Barrier(4)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Server:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self.together.abort()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LONGEST_STALL)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            with self._lock:
                self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                while not self._stopping.is_set() and self._one(connection):
                    pass
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(connection)

    def _one(self, connection: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return False
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if "chunked" in headers.get("transfer-encoding", ""):
            while not body.endswith(b"0\r\n\r\n"):
                body += connection.recv(65536)
        while len(body) < int(headers.get("content-length", "0")):
            body += connection.recv(65536)
        path = first.split(" ")[1]
        word = self.choose(path)
        with self._lock:
            self.seen[headers.get("x-id", path)] += 1
            self.answered[word] += 1
        keep: bool = getattr(self, word.replace("-", "_"))(connection)
        return keep

    def _send(self, connection: socket.socket, status: str, body: bytes, *headers: str) -> bool:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return True

    def _wait_for_the_client(self, connection: socket.socket) -> bool:
        connection.settimeout(LONGEST_STALL)
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        return False

    def good(self, connection: socket.socket) -> bool:
        return self._send(connection, "200 OK", b"fine")

    def big(self, connection: socket.socket) -> bool:
        return self._send(connection, "200 OK", b"x" * 300_000)

    def chunked(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n")
        return True

    def busy(self, connection: socket.socket) -> bool:
        return self._send(connection, "503 Busy", b"come back later")

    def busy_big(self, connection: socket.socket) -> bool:
        return self._send(connection, "503 Busy", b"x" * 200_000)

    def busy_chunked(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n")
        return True

    def busy_pausing(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 20\r\n\r\nten bytes.")
        self._stopping.wait(0.4)
        connection.sendall(b"ten more..")
        return True

    def busy_dripping(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 1000\r\n\r\n")
        return self._drip(connection)

    def busy_cut(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 1000\r\n\r\nten bytes.")
        return False

    def reset(self, connection: socket.socket) -> bool:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return False

    def close(self, connection: socket.socket) -> bool:
        return False

    def slowly(self, connection: socket.socket) -> bool:
        self._stopping.wait(0.45)
        return self.good(connection)

    def stall(self, connection: socket.socket) -> bool:
        return self._wait_for_the_client(connection)

    def stall_in_body(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nten bytes.")
        return self._wait_for_the_client(connection)

    def cut(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nten bytes.")
        return False

    def drip(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        return self._drip(connection)

    def _drip(self, connection: socket.socket) -> bool:
        for _ in range(1000):
            if self._stopping.wait(0.02):
                return False
            connection.sendall(b".")
        return True

    def all_at_once(self, connection: socket.socket) -> bool:
        """Answer when four requests are here: as many as a pool of four can have."""
        try:
            self.together.wait(LONGEST_STALL)
        except threading.BrokenBarrierError:
            return False
        return self.good(connection)


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port where nobody answers those who connect: the line for it is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


FAULTS = (
    "good", "big", "chunked", "busy", "busy_big", "busy_chunked", "busy_dripping", "busy_cut", "reset", "close",
    "stall", "stall_in_body", "cut", "drip",
)  # fmt: skip


def at_random(seed: int, words: Iterable[str] = FAULTS) -> Callable[[str], str]:
    """Choose by chance, but do what the path says where it says something."""
    chance = random.Random(seed)
    lock = threading.Lock()
    choices = list(words)

    def choose(path: str) -> str:
        asked = path.strip("/").partition("/")[0]
        with lock:
            return asked or chance.choice(choices)

    return choose
