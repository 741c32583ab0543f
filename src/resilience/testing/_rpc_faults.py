"""The faults of FaultyGrpcServer: functions that answer an RPC wrongly, late, in part or not at all."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

from resilience.testing._rpcs import GrpcConnection, Rpc

CODES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""The names of the status codes of gRPC; each stands at the place of its number."""
FOR_ALL: Final = frozenset({"failures", "key"})
"""The parameters that every fault takes."""
LIMITS: Final = {"delay": 3600, "failures": 10**6, "interval": 3600, "messages": 10**6, "size": 10**7}
"""The parameters that are numbers, and the greatest value of each; those in seconds may have a fraction."""
_SECONDS: Final = ("delay", "interval", "retry-delay")
_RETRY_INFO: Final = b"type.googleapis.com/google.rpc.RetryInfo"


@dataclass(frozen=True, slots=True)
class Asked:
    """The parameters of a fault. None stands for its default."""

    delay: float = 0.05
    details: str | None = None
    failures: int | None = None
    interval: float = 0.0
    key: str = ""
    messages: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    retry_delay: float | None = None
    size: int | None = None
    response: bytes = b"ok"

    def answers(self) -> list[bytes]:
        """Return the messages of a good answer."""
        message = self.response if self.size is None else b"x" * self.size
        return [message] * (1 if self.messages is None else self.messages)


@dataclass(frozen=True, slots=True)
class RpcFault:
    """What is done with an RPC.

    Attributes:
        run: does it.
        parameters: the names of the parameters that `run` uses, in addition to those that every fault takes.
        reads_requests: whether all messages of the request are read before that.
    """

    run: Callable[[Rpc, Asked], object]
    parameters: tuple[str, ...] = ()
    reads_requests: bool = True


def refuse(rpc: Rpc, code: str, details: str) -> None:
    """Answer with a status."""
    rpc.send_status(CODES.index(code), details, [])


def _send(rpc: Rpc, messages: list[bytes], interval: float) -> None:
    for number, message in enumerate(messages):
        if number and interval:
            rpc.wait(interval)
        rpc.send_message(message)


def _ok(rpc: Rpc, asked: Asked) -> None:
    _send(rpc, asked.answers(), asked.interval)
    rpc.send_status(0, "", list(asked.metadata))


def _echo(rpc: Rpc, asked: Asked) -> None:
    number = 0
    while (message := rpc.read(number)) is not None:
        rpc.send_message(message)
        number += 1
    rpc.send_status(0, "", list(asked.metadata))


def _slow(rpc: Rpc, asked: Asked) -> None:
    rpc.wait(asked.delay)
    _ok(rpc, asked)


def _status(rpc: Rpc, asked: Asked, *, code: int) -> None:
    _some(rpc, asked)
    details = CODES[code] if asked.details is None else asked.details
    metadata = list(asked.metadata)
    if asked.retry_delay is not None:
        metadata.append(("grpc-status-details-bin", _retry_info(code, details, asked.retry_delay)))
    rpc.send_status(code, details, metadata)


def _some(rpc: Rpc, asked: Asked) -> None:
    """Send the messages that come before the fault: none, unless asked for."""
    if asked.messages:
        _send(rpc, asked.answers(), asked.interval)


def _stall(rpc: Rpc, asked: Asked) -> None:
    _some(rpc, asked)
    rpc.wait()


def _head_stall(rpc: Rpc, asked: Asked) -> None:
    rpc.send_head()
    rpc.wait()


def _reset_stream(rpc: Rpc, asked: Asked, *, refused: bool) -> None:
    _some(rpc, asked)
    rpc.reset(refused=refused)


def _give_up(rpc: Rpc, asked: Asked, *, how: Callable[[GrpcConnection], object]) -> None:
    _some(rpc, asked)
    rpc.give_up_connection(how)


def _http(rpc: Rpc, asked: Asked, *, status: int) -> None:
    rpc.send_head(status=status, content_type="text/plain; charset=utf-8")
    rpc.send_data(f"{status}\n".encode())
    rpc.end_without_status()


def _no_status(rpc: Rpc, asked: Asked) -> None:
    _send(rpc, asked.answers(), asked.interval)
    rpc.end_without_status()


def _short_message(rpc: Rpc, asked: Asked) -> None:
    rpc.send_message(b"0123456789", length=100)
    rpc.send_status(0, "", [])


_OK: Final = ("interval", "messages", "metadata", "size")
_BEFORE: Final = ("interval", "messages", "size")
_STATUS: Final = (*_OK, "details", "pushback", "retry-delay")

FAULTS: Final[Mapping[str, RpcFault]] = {
    "ok": RpcFault(_ok, _OK),
    "echo": RpcFault(_echo, ("metadata",), reads_requests=False),
    "slow": RpcFault(_slow, ("delay", *_OK)),
    "stall": RpcFault(_stall, _BEFORE),
    "head-stall": RpcFault(_head_stall),
    "reset-stream": RpcFault(partial(_reset_stream, refused=False), _BEFORE),
    "refuse-stream": RpcFault(partial(_reset_stream, refused=True)),
    "goaway": RpcFault(partial(_give_up, how=GrpcConnection.go_away)),
    "close": RpcFault(partial(_give_up, how=GrpcConnection.close), _BEFORE),
    "reset": RpcFault(partial(_give_up, how=GrpcConnection.reset), _BEFORE),
    "no-status": RpcFault(_no_status, _BEFORE),
    "short-message": RpcFault(_short_message),
}
"""The faults by their names; those of a status are not among them."""


def find(text: str, response: bytes) -> tuple[RpcFault, Asked]:
    """Return the fault that is written as `name?parameter=value&...`, and its parameters.

    Args:
        text: the name of a fault in FAULTS, or of a status code, also after "early-", or "http-" and a status.
        response: the message of good answers.

    Raises:
        LookupError: there is no such fault.
        ValueError: a parameter is not among those of the fault, or its value is not allowed.
    """
    name, _, query = text.partition("?")
    if status := re.fullmatch("http-([2-5][0-9][0-9])", name):
        fault = RpcFault(partial(_http, status=int(status[1])))
    elif (code := name.removeprefix("early-")) in CODES:
        fault = RpcFault(partial(_status, code=CODES.index(code)), _STATUS, reads_requests=code == name)
    elif name in FAULTS:
        fault = FAULTS[name]
    else:
        known = ", ".join([*FAULTS, "http-<status>", "<CODE>", "early-<CODE>"])
        raise LookupError(
            f"unknown fault {name!r}; known are {known}, where <CODE> is a status code such as UNAVAILABLE"
        )
    return fault, _parse(query, FOR_ALL.union(fault.parameters), response)


def _parse(query: str, known: frozenset[str], response: bytes) -> Asked:
    values: dict[str, Any] = {}
    metadata: list[tuple[str, str]] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"unknown parameter {name!r}; known are {', '.join(sorted(known))}")
        if name == "metadata":
            metadata.append(_metadatum(value))
        elif name == "pushback":
            metadata.append(_metadatum(f"grpc-retry-pushback-ms:{value}"))
        elif name in ("details", "key"):
            values[name] = value
        else:
            values[name.replace("-", "_")] = _number(name, value)
    return Asked(metadata=tuple(metadata), response=response, **values)


def _number(name: str, value: str) -> float:
    fraction = "([.][0-9]+)?" if name in _SECONDS else ""
    greatest = LIMITS.get(name, 10**9)
    if not re.fullmatch(f"[0-9]+{fraction}", value) or float(value) > greatest:
        raise ValueError(
            f"{name} must be {'a number' if fraction else 'an integer'} from 0 to {greatest}, not {value!r}"
        )
    return float(value) if fraction else int(value)


def _metadatum(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (colon and re.fullmatch("[0-9a-z_.-]+", name) and re.fullmatch("[ -~]*", value)):
        raise ValueError(f"metadata must be name:value, with a name in lower case and a value in ASCII, not {text!r}")
    return name, value.strip()


def _retry_info(code: int, details: str, delay: float) -> str:
    """Return a google.rpc.Status with a RetryInfo, serialized and in base64."""
    seconds, nanoseconds = int(delay), round(delay % 1 * 1e9)
    duration = _field(1, seconds) + _field(2, nanoseconds)
    packed = _field(1, _RETRY_INFO) + _field(2, _field(1, duration))
    status = _field(1, code) + _field(2, details.encode()) + _field(3, packed)
    return base64.b64encode(status).decode().rstrip("=")


def _field(number: int, value: int | bytes) -> bytes:
    """Return a field of a message of Protocol Buffers."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
