"""FaultyServer: an HTTP server on loopback that misbehaves on request, for tests of clients."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from resilience.testing._faults import FAULTS, Connection, Exchange, Fault, Parameters, find, refusal
from resilience.testing._faulty_http2 import converse_http2
from resilience.testing._faulty_requests import ReceivedRequest, parse, read_body, read_head

FAIL_THEN_OK: Final = "fail-then-ok"
"""The path that has another fault for the first requests of each key."""
LONGEST_STOP: Final = 5.0
"""The most seconds that the end of a block waits for one of the server's threads."""


class FaultyServer:
    """An HTTP/1.1 server on loopback that misbehaves as the path of a request says, and records what it receives.

        with FaultyServer() as server:
            httpx.get(f"{server.url}/fail-then-ok?failures=2&fault=reset")

    It listens inside the block only, on ports of 127.0.0.1 that the system chooses. The faults are described on the
    page "A misbehaving server" of the documentation; the answer to an unknown path, a 404, lists them. All waits are in
    real time, also inside `virtual_time()`. The end of the block ends all faults, closes all connections and joins all
    threads. It can be entered only once (RuntimeError).

    Attributes:
        url: the URL to which the path of a fault is appended, such as "http://127.0.0.1:40000".
        refused_url: the URL of a port on which nothing listens, so that connections are refused.
        accept_reset_url: that of one on which connections are accepted, and reset at once (RST).
        accept_close_url: that of one on which connections are accepted, and closed at once (FIN).
        silent_url: that of one on which connections are accepted, and nothing is ever sent.

    `http2_url` is that of a port for HTTP/2.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._running: contextlib.ExitStack | None = None
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._requests: list[ReceivedRequest] = []
        self._fail_then_ok = Counter[str]()
        self._connections = 0

    def __enter__(self) -> FaultyServer:
        if self._running is not None:
            raise RuntimeError("a FaultyServer can be entered only once; make another one")
        with contextlib.ExitStack() as starting:
            selector = starting.enter_context(selectors.DefaultSelector())
            self.url = self._listen(selector, self._converse, starting)
            self.accept_reset_url = self._listen(selector, Connection.reset_on_close, starting)
            self.accept_close_url = self._listen(selector, Connection.linger, starting)
            self.silent_url = self._listen(selector, Connection.hold, starting)
            self._http2_url = self._listen(selector, partial(converse_http2, record=self._record_http2), starting)
            # Bound, so that the system gives the port to nothing else, but not listening.
            refusing = starting.enter_context(socket.socket())
            refusing.bind(("127.0.0.1", 0))
            self.refused_url = _url_of(refusing)
            waker, woken = map(starting.enter_context, socket.socketpair())
            selector.register(woken, selectors.EVENT_READ)
            thread = threading.Thread(target=self._accept, args=(selector,), daemon=True, name="FaultyServer accept")
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
    def http2_url(self) -> str:
        """The URL of a port for HTTP/2 without TLS, by prior knowledge (RFC 9113, section 3.3), with faults of its own.

        Raises:
            ImportError: the package h2 is not installed.
        """
        if find_spec("h2") is None:
            raise ImportError("HTTP/2 needs the package h2: pip install h2, or httpx[http2]")
        return self._http2_url

    @property
    def connections(self) -> int:
        """How many connections have been accepted, on all ports."""
        with self._lock:
            return self._connections

    @property
    def open_connections(self) -> int:
        """How many of them this side has not closed yet."""
        with self._lock:
            return len(self._open)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests whose head was received; each is added when its body was read or cut, before the answer."""
        with self._lock:
            return list(self._requests)

    def count(self, method: str | None = None, path: str | None = None) -> int:
        """Return how many requests were received with a method and a path, without its query; None stands for any."""
        return sum(1 for request in self.requests if method in (None, request.method) and path in (None, request.path))

    def clear(self) -> None:
        """Forget connections and requests, and let `/fail-then-ok` start over."""
        with self._lock:
            self._connections = 0
            self._requests.clear()
            self._fail_then_ok.clear()

    def _listen(
        self, selector: selectors.BaseSelector, serve: Callable[[Connection], object], sockets: contextlib.ExitStack
    ) -> str:
        """Serve a port of its own; return its URL."""
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, (listener, serve))
        return _url_of(listener)

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
            self._connections += 1
            self._open.add(accepted)
        thread = threading.Thread(target=self._serve, args=(accepted, serve), daemon=True, name="FaultyServer")
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

    def _record_http2(self, request: ReceivedRequest, key: str) -> int:
        """Record a request over HTTP/2, and return how many there were of its path and key."""
        with self._lock:
            self._requests.append(request)
            self._fail_then_ok[f"{request.path} {key}"] += 1
            return self._fail_then_ok[f"{request.path} {key}"]

    def _converse(self, connection: Connection) -> None:
        try:
            while self._exchange(connection):
                pass
        except ValueError as error:
            refusal(400, str(error)).run(Exchange(connection, "GET", {}, b"", Parameters()))
            connection.linger()

    def _exchange(self, connection: Connection) -> bool:
        """Read a request and answer it; return whether the connection takes another one."""
        method, target, headers = read_head(connection)
        parts = urlsplit(target)
        fault, parameters = self._choose(parts.path, parts.query)
        body = bytearray()
        complete = False
        try:
            if fault.reads_body:
                read_body(connection, headers, body)
                complete = True
        finally:
            received = ReceivedRequest(method, parts.path, parts.query, headers, len(body), complete)
            with self._lock:
                self._requests.append(received)
        keeps = fault.run(Exchange(connection, method, headers, bytes(body), parameters))
        return keeps and headers.get("connection", "").lower() != "close"

    def _choose(self, path: str, query: str) -> tuple[Fault, Parameters]:
        """Return the fault that a path and a query ask for, and its parameters."""
        name = path.removeprefix("/")
        try:
            if name != FAIL_THEN_OK:
                fault = find(name)
                return fault, parse(query, fault.parameters)
            fault = find(dict(parse_qsl(query)).get("fault", "503"))
            asked = parse(query, {*fault.parameters, "failures", "fault"})
        except LookupError:
            paths = ["/status/<code>", f"/{FAIL_THEN_OK}", *[f"/{known}" for known in FAULTS]]
            return refusal(404, f"unknown fault; known are {', '.join(sorted(paths))}"), Parameters()
        except ValueError as error:
            return refusal(400, str(error)), Parameters()
        with self._lock:
            self._fail_then_ok[asked.key] += 1
            fails = self._fail_then_ok[asked.key] <= asked.failures
        return (fault, asked) if fails else (FAULTS["ok"], Parameters())


def _url_of(bound: socket.socket) -> str:
    return f"http://127.0.0.1:{bound.getsockname()[1]}"
