"""The RetryInfo in the status details of an error: how long the server asks to wait before a retry.

The trailer `grpc-status-details-bin` has a message `google.rpc.Status` (google/rpc/status.proto), whose details may
have a `google.rpc.RetryInfo` (google/rpc/error_details.proto). They are read here by the wire format of Protocol
Buffers, since the packages that have these messages are not needed for anything else, and may be absent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

DETAILS_KEY: Final = "grpc-status-details-bin"
_RETRY_INFO: Final = b"/google.rpc.RetryInfo"
_DETAILS: Final = 3
"""The field of Status with its details, each a google.protobuf.Any."""
_LONGEST: Final = 315_576_000_000
"""The longest time of a google.protobuf.Duration, in seconds."""


def retry_delay(details: bytes) -> float | None:
    """Return the retry delay of a serialized Status, in seconds, > 0; None if it has none, or cannot be parsed."""
    with contextlib.suppress(ValueError, IndexError):
        for number, detail in _fields(details):
            if number == _DETAILS and isinstance(detail, bytes):
                parts = dict(_fields(detail))
                kind, value = parts.get(1), parts.get(2, b"")
                if isinstance(kind, bytes) and kind.endswith(_RETRY_INFO) and isinstance(value, bytes):
                    return _seconds(dict(_fields(value)).get(1, b""))
    return None


def _seconds(duration: Any) -> float | None:
    """Return the seconds of a serialized Duration; None if it is not positive, or longer than one can be."""
    parts = dict(_fields(duration))
    seconds, nanoseconds = parts.get(1, 0), parts.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanoseconds, int):
        return None
    total = seconds + nanoseconds / 1e9
    return total if 0 < total <= _LONGEST else None


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and value of each field of a serialized message; a fixed-width value comes as bytes.

    Raises:
        ValueError, IndexError: it is not a serialized message.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        value: int | bytes
        if wire_type == 0:
            value, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(wire_type, -1)
            if wire_type == 2:
                size, at = _varint(data, at)
            if size < 0 or at + size > len(data):
                raise ValueError("not a message of Protocol Buffers")
            value, at = data[at : at + size], at + size
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that is encoded at a position, as an int64, and the position after it."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            break
        if shift > 63:
            raise ValueError("not a number of Protocol Buffers")
    number &= (1 << 64) - 1
    return (number - (1 << 64) if number >> 63 else number), at
