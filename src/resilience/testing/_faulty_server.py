"""FaultyServer: an HTTP server on loopback that misbehaves on request, for tests of clients."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from resilience.testing._faults import FAULTS, Connection, Exchange, Fault, Header, Parameters, find, refusal

FAIL_THEN_OK: Final = "fail-then-ok"
"""The path that has another fault for the first requests of each key."""
LONGEST_STOP: Final = 5.0
"""The most seconds that the end of a block waits for one of the server's threads."""
FOR_ALL: Final = frozenset({"header", "key", "retry-after"})
"""The parameters that every fault takes."""
LIMITS: Final = {"delay": 3600, "events": 10**6, "failures": 10**6, "interval": 3600, "size": 10**8}
"""The parameters that are numbers, and the greatest value of each; those in seconds may have a fraction."""


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request that a FaultyServer has received.

    Attributes:
        method: the method, such as "POST".
        path: the path, without the query.
        query: what stands after the "?"; empty if there is none.
        headers: the headers by their names in lower case; the values of repeated ones are joined by ", " (RFC 9110,
            section 5.3).
        body_length: the bytes of the body that were read, without the framing of chunks.
        complete: whether the whole body was read. It is not if the client left before its end, and for `/early-503`.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str] = field(repr=False)
    body_length: int
    complete: bool


def parse(query: str, known: Iterable[str]) -> Parameters:
    """Return the parameters in a query.

    Raises:
        ValueError: one of them is neither among `known` nor among FOR_ALL, or its value is not allowed.
    """
    allowed = FOR_ALL.union(known)
    values: dict[str, Any] = {}
    headers: list[Header] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            raise ValueError(f"unknown parameter {name!r}; known are {', '.join(sorted(allowed))}")
        if name in LIMITS:
            values[name] = _number(name, value)
        elif name == "header":
            headers.append(_header(value))
        elif name == "retry-after":
            headers.append(_header(f"Retry-After:{value}"))
        else:
            values[name] = value
    return Parameters(headers=tuple(headers), **values)


def _number(name: str, value: str) -> float:
    fraction = "([.][0-9]+)?" if name in ("delay", "interval") else ""
    if not re.fullmatch(f"[0-9]+{fraction}", value) or float(value) > LIMITS[name]:
        raise ValueError(
            f"{name} must be {'a number' if fraction else 'an integer'} from 0 to {LIMITS[name]}, not {value!r}"
        )
    return float(value) if fraction else int(value)


def _header(text: str) -> Header:
    name, colon, value = text.partition(":")
    if not (name and colon and text.isprintable() and max(text) <= "\xff"):
        raise ValueError(f"header must be name:value in Latin-1, not {text!r}")
    return name, value.strip()


def read_head(connection: Connection) -> tuple[str, str, dict[str, str]]:
    """Return method, target and headers of the next request; ValueError if it is not HTTP/1.1."""
    first, *lines = connection.read_until(b"\r\n\r\n").split("\r\n")
    parts = re.fullmatch(r"([!-~]+) ([!-~]+) HTTP/1\.1", first)
    if parts is None:
        raise ValueError(f"not a request line of HTTP/1.1: {first!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        before = headers.get(name.lower())
        headers[name.lower()] = value.strip() if before is None else f"{before}, {value.strip()}"
    return parts[1], parts[2], headers


def read_body(connection: Connection, headers: dict[str, str], into: bytearray) -> None:
    """Add the body of a request to `into` as it arrives; ValueError if its length or a chunk is malformed."""
    if "chunked" not in headers.get("transfer-encoding", "").lower():
        connection.read(_length(headers.get("content-length", "0"), 10), into)
        return
    while size := _length(connection.read_until(b"\r\n").partition(";")[0].strip(), 16):
        connection.read(size, into)
        connection.read_until(b"\r\n")
    while connection.read_until(b"\r\n"):  # trailers
        pass


def _length(text: str, base: int) -> int:
    if not re.fullmatch("[0-9a-fA-F]{1,15}", text):
        raise ValueError(f"not a length: {text!r}")
    return int(text, base)


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
