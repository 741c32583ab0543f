"""The faults of FaultyServer: functions that answer a request wrongly, late, in part or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final, TypeAlias

from resilience.testing._connection import Connection

Header: TypeAlias = "tuple[str, str]"

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters in the query of a request. None stands for the default of the fault."""

    interval: float = 0.05
    delay: float = 0.05
    size: int | None = None
    events: int = 3
    failures: int = 1
    fault: str = "503"
    key: str = ""
    body: str | None = None
    headers: tuple[Header, ...] = ()
    """Headers that the answer has, in addition to the usual ones or in place of those of the same name."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and the connection to answer it on."""

    connection: Connection
    method: str
    headers: Mapping[str, str]
    body: bytes
    asked: Parameters

    def head(self, status: int, *usual: Header) -> bytes:
        """Return the head of an answer."""
        replaced = {name.lower() for name, _ in self.asked.headers}
        headers = [*[one for one in usual if one[0].lower() not in replaced], *self.asked.headers]
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}", *[f"{name}: {value}" for name, value in headers]]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def answer(self, status: int, body: bytes, *usual: Header) -> bool:
        """Send a whole answer, and return True; the statuses 204 and 304 have no body."""
        bare = status in (204, 304)
        head = self.head(status, *usual, *([] if bare else [("Content-Length", str(len(body)))]))
        self.send(head, b"" if bare else body)
        return True

    def send(self, head: bytes, body: bytes) -> None:
        """Send a head, and the body where the method has one (RFC 9110, section 6.4.1)."""
        self.connection.send(head if self.method == "HEAD" else head + body)

    def drip(self, data: bytes) -> None:
        """Send one byte in each interval, the first one at once."""
        for at in range(len(data)):
            self.connection.wait(self.asked.interval if at else 0)
            self.connection.send(data[at : at + 1])


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done with a request.

    Attributes:
        run: does it; returns whether the connection takes another request, and is closed otherwise.
        parameters: the names of the parameters that `run` uses, in addition to those that every fault takes.
        reads_body: whether the body of the request is read before that.
    """

    run: Callable[[Exchange], bool]
    parameters: tuple[str, ...] = ()
    reads_body: bool = True


def refusal(status: int, text: str) -> Fault:
    """Return what answers that a request is wrong."""
    return Fault(lambda exchange: exchange.answer(status, f"{text}\n".encode(), _PLAIN))


def _status(exchange: Exchange, *, status: int) -> bool:
    asked = exchange.asked
    text = asked.body if asked.body is not None else "ok" if status == 200 else str(status)
    body = text.encode() if asked.size is None else b"x" * asked.size
    return exchange.answer(status, body, _PLAIN)


def _echo(exchange: Exchange) -> bool:
    kind = exchange.headers.get("content-type", "application/octet-stream")
    return exchange.answer(200, exchange.body, ("Content-Type", kind))


def _early_503(exchange: Exchange) -> bool:
    exchange.answer(503, b"503", ("Connection", "close"))
    exchange.connection.linger()
    return False


def _close(exchange: Exchange) -> bool:
    return False


def _reset(exchange: Exchange) -> bool:
    exchange.connection.reset_on_close()
    return False


def _stall(exchange: Exchange) -> bool:
    exchange.connection.hold()
    return False


def _raw(exchange: Exchange, *, data: bytes) -> bool:
    exchange.connection.send(data)
    return False


def _body(exchange: Exchange, *, header: Header, then: Callable[[Exchange], bool], body: bytes = b"") -> bool:
    exchange.send(exchange.head(200, header), body)
    return then(exchange)


def _late(exchange: Exchange, *, then: Callable[[Exchange], bool], data: bytes = b"") -> bool:
    exchange.connection.wait(exchange.asked.delay)
    exchange.connection.send(data)
    return then(exchange)


def _head_drip(exchange: Exchange) -> bool:
    exchange.drip(exchange.head(200, _OK))
    exchange.connection.send(b"ok")
    return True


def _drip(exchange: Exchange, *, status: int) -> bool:
    body = b"x" * (100 if exchange.asked.size is None else exchange.asked.size)
    exchange.connection.send(exchange.head(status, ("Content-Length", str(len(body)))))
    exchange.drip(b"" if exchange.method == "HEAD" else body)
    return True


def _early_hints(exchange: Exchange) -> bool:
    exchange.connection.send(_HINT)
    return exchange.answer(200, b"ok")


def _hints_forever(exchange: Exchange) -> bool:
    while True:
        exchange.connection.send(_HINT)
        exchange.connection.wait(exchange.asked.interval)


def _sse(exchange: Exchange) -> bool:
    exchange.connection.send(exchange.head(200, ("Content-Type", "text/event-stream"), _CHUNKED))
    for number in () if exchange.method == "HEAD" else range(exchange.asked.events):
        exchange.connection.wait(exchange.asked.interval if number else 0)
        event = f"data: {number}\n\n".encode()
        exchange.connection.send(b"%x\r\n%s\r\n" % (len(event), event))
    exchange.connection.send(b"" if exchange.method == "HEAD" else b"0\r\n\r\n")
    return True


_HINT: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
_UNASKED: Final = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_PLAIN: Final = ("Content-Type", "text/plain; charset=utf-8")
_CHUNKED: Final = ("Transfer-Encoding", "chunked")
_OK: Final = ("Content-Length", "2")
_GOOD: Final = partial(_body, header=_OK, body=b"ok")
_SHORT: Final = partial(_body, header=("Content-Length", "100"), body=b"0123456789")

FAULTS: Final[Mapping[str, Fault]] = {
    "ok": Fault(partial(_status, status=200), ("body", "size")),
    "echo": Fault(_echo),
    "sse": Fault(_sse, ("events", "interval")),
    "redirect-loop": Fault(lambda exchange: exchange.answer(302, b"", ("Location", "/redirect-loop"))),
    "early-503": Fault(_early_503, reads_body=False),
    "close": Fault(_close),
    "reset": Fault(_reset),
    "stall": Fault(_stall),
    "half-status": Fault(partial(_raw, data=b"HTTP/1.1 20")),
    "half-headers": Fault(partial(_raw, data=b"HTTP/1.1 200 OK\r\nContent-Le")),
    "head-drip": Fault(_head_drip, ("interval",)),
    "early-hints": Fault(_early_hints),
    "hints-forever": Fault(_hints_forever, ("interval",)),
    "headers-stall": Fault(partial(_body, header=_OK, then=_stall)),
    "drip": Fault(partial(_drip, status=200), ("interval", "size")),
    "drip-503": Fault(partial(_drip, status=503), ("interval", "size")),
    "short-body": Fault(partial(_SHORT, then=_close)),
    "short-body-reset": Fault(partial(_SHORT, then=partial(_late, then=_reset)), ("delay",)),
    "chunk-cut": Fault(partial(_body, header=_CHUNKED, body=b"4\r\ngood\r\n10\r\ncut", then=_close)),
    "chunk-bad": Fault(partial(_body, header=_CHUNKED, body=b"4\r\ngood\r\nzz\r\n", then=_close)),
    "bad-gzip": Fault(lambda exchange: exchange.answer(200, b"no gzip", ("Content-Encoding", "gzip"))),
    "long-body": Fault(partial(_body, header=_OK, body=b"ok-and-much-more", then=lambda exchange: True)),
    "keepalive-close": Fault(partial(_GOOD, then=partial(_late, then=_close)), ("delay",)),
    "keepalive-reset": Fault(partial(_GOOD, then=partial(_late, then=_reset)), ("delay",)),
    "408-idle": Fault(partial(_GOOD, then=partial(_late, then=_close, data=_UNASKED)), ("delay",)),
}
"""The faults by their path without its first slash; those of a status are not among them."""


def find(name: str) -> Fault:
    """Return the fault of a name in FAULTS, or of a status, as in `status/503` or `503`. Raises LookupError."""
    if status := re.fullmatch("(?:status/)?([2-5][0-9][0-9])", name):
        return Fault(partial(_status, status=int(status[1])), ("body", "size"))
    return FAULTS[name]
