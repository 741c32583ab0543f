"""The requests that FaultyServer receives: their heads, bodies, and the parameters in their queries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from resilience.testing._connection import Connection
from resilience.testing._faults import Header, Parameters

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
