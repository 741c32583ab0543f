"""The ports of FaultyServer and FaultyGrpcServer: what accepts their connections, and ends them."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Final

from resilience.testing._connection import Connection

LONGEST_STOP: Final = 5.0
"""The most seconds that the end of a block waits for one of the threads."""


class Ports:
    """Ports of 127.0.0.1 that are served inside a block, each connection by a thread of its own.

    They can be entered only once (RuntimeError). The end of the block ends all waits, closes all connections, and joins
    all threads.

    Args:
        owner: the name of the class whose ports they are, for threads and errors.
        serving: what serves a connection, one for each port.

    Attributes:
        served: the numbers of the ports, in the order of `serving`.
        refused: that of a port on which nothing listens.
    """

    def __init__(self, owner: str, *serving: Callable[[Connection], object]) -> None:
        self._owner = owner
        self._serving = serving
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._running: contextlib.ExitStack | None = None
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._accepted = 0

    def __enter__(self) -> Ports:
        if self._running is not None:
            raise RuntimeError(f"a {self._owner} can be entered only once; make another one")
        with contextlib.ExitStack() as starting:
            selector = starting.enter_context(selectors.DefaultSelector())
            self.served = [self._listen(selector, serve, starting) for serve in self._serving]
            # Bound, so that the system gives the port to nothing else, but not listening.
            refusing = starting.enter_context(socket.socket())
            refusing.bind(("127.0.0.1", 0))
            self.refused = _port_of(refusing)
            waker, woken = map(starting.enter_context, socket.socketpair())
            selector.register(woken, selectors.EVENT_READ)
            name = f"{self._owner} accept"
            thread = threading.Thread(target=self._accept, args=(selector,), daemon=True, name=name)
            thread.start()
            starting.callback(thread.join, LONGEST_STOP)
            starting.callback(waker.close)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        if self._running is not None:
            self._running.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the client may have left
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LONGEST_STOP)

    @property
    def connections(self) -> int:
        """How many connections have been accepted."""
        with self._lock:
            return self._accepted

    @property
    def open_connections(self) -> int:
        """How many of them this side has not closed yet."""
        with self._lock:
            return len(self._open)

    def clear(self) -> None:
        """Count the accepted connections from 0 again."""
        with self._lock:
            self._accepted = 0

    def _listen(
        self, selector: selectors.BaseSelector, serve: Callable[[Connection], object], sockets: contextlib.ExitStack
    ) -> int:
        """Serve a port of its own; return its number."""
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, (listener, serve))
        return _port_of(listener)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        while not self._stopping.is_set():
            for key, _ in selector.select():
                if key.data is not None:
                    with contextlib.suppress(OSError):  # the client may have left
                        self._start(*key.data)

    def _start(self, listener: socket.socket, serve: Callable[[Connection], object]) -> None:
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._accepted += 1
            self._open.add(accepted)
        thread = threading.Thread(target=self._serve, args=(accepted, serve), daemon=True, name=self._owner)
        thread.start()
        self._threads = [*[one for one in self._threads if one.is_alive()], thread]

    def _serve(self, accepted: socket.socket, serve: Callable[[Connection], object]) -> None:
        try:
            with contextlib.suppress(OSError):
                serve(Connection(accepted, self._stopping.wait))
        finally:
            with self._lock:
                self._open.discard(accepted)
                accepted.close()


def _port_of(bound: socket.socket) -> int:
    number: int = bound.getsockname()[1]
    return number
