"""FaultyServer: an HTTP server on loopback that misbehaves on request, for tests of clients."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from importlib.util import find_spec
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from resilience.testing._connection import Connection
from resilience.testing._faults import FAULTS, Exchange, Fault, Parameters, find, refusal
from resilience.testing._faulty_http2 import converse_http2
from resilience.testing._faulty_requests import ReceivedRequest, parse, read_body, read_head
from resilience.testing._ports import Ports

FAIL_THEN_OK: Final = "fail-then-ok"
"""The path that has another fault for the first requests of each key."""


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
        http2 = partial(converse_http2, record=self._record_http2)
        self._ports = Ports(
            type(self).__name__, self._converse, Connection.reset_on_close, Connection.linger, Connection.hold, http2
        )
        self._lock = threading.Lock()
        self._requests: list[ReceivedRequest] = []
        self._fail_then_ok = Counter[str]()

    def __enter__(self) -> FaultyServer:
        self._ports.__enter__()
        served = [f"http://127.0.0.1:{port}" for port in self._ports.served]
        self.url, self.accept_reset_url, self.accept_close_url, self.silent_url, self._http2_url = served
        self.refused_url = f"http://127.0.0.1:{self._ports.refused}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ports.__exit__(*exc_info)

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
        return self._ports.connections

    @property
    def open_connections(self) -> int:
        """How many of them this side has not closed yet."""
        return self._ports.open_connections

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
        self._ports.clear()
        with self._lock:
            self._requests.clear()
            self._fail_then_ok.clear()

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
