"""Whether the request of a failed attempt was certainly never sent. Where that is not certain, the answer is False."""

from __future__ import annotations

import ipaddress
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import grpc

from resilience.grpc._failures import code_of, details_of

_UNREACHABLE: Final = "failed to connect to all addresses"
_DOWN_STATE: Final = grpc.ChannelConnectivity.TRANSIENT_FAILURE
_DOWN: Final = frozenset({_DOWN_STATE, _DOWN_STATE.value[0]})
_DISCONNECTED: Final = _DOWN.union(
    *((state, state.value[0]) for state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING))
)
"""The states without a connection, as members of the enumeration and as the numbers that gRPC uses inside."""


class Connectivity:
    """What is known about the connection of one channel.

    Args:
        target: the target of the channel. None if it is unknown, or if an inner interceptor may make several attempts
            of one: then nothing is ever certain.
    """

    def __init__(self, target: str | None) -> None:
        self._addresses = () if target is None else addresses(target)
        self._connectivity: Callable[[], object] = _unknown

    def watch(self, connectivity: Callable[[], object]) -> None:
        """Set the function that returns the present state of the channel. If it raises, the state is unknown."""
        self._connectivity = connectivity

    def is_disconnected(self) -> bool:
        """Return whether the channel certainly has no connection at present."""
        if not self._addresses:
            return False
        try:
            return self._connectivity() in _DISCONNECTED
        except Exception:  # the channel is closed
            return False

    def never_sent(self, error: Exception, *, disconnected: bool) -> bool:
        """Return whether the request was certainly never sent.

        That is so if gRPC reports that it could connect to none of the addresses, the report names an address of this
        channel, and the channel had no connection before the attempt (`disconnected`) and has none after it. The report
        alone proves nothing: a server that cannot reach another server may pass on the same text, and may have done
        part of its work. But a server that answers is connected. Names are not resolved here, so it is certain only for
        targets that are literal addresses or localhost.
        """
        if not disconnected or code_of(error) is not grpc.StatusCode.UNAVAILABLE:
            return False
        details = details_of(error)
        is_ours = details.startswith(_UNREACHABLE) and any(address in details for address in self._addresses)
        return is_ours and self._state() in _DOWN

    def _state(self) -> object:
        try:
            return self._connectivity()
        except Exception:  # the channel is closed
            return None


def _unknown() -> None:
    """The state of a channel for which no function was set: None, unknown."""


def connectivity_of(channel: Any) -> Callable[[], object]:
    """Return a function that returns the present state of a channel of the synchronous API.

    There is no public way: `subscribe` reports changes later, on another thread. So this uses a private attribute;
    where grpc does not have it, the state is unknown.
    """
    check: Any = getattr(getattr(channel, "_channel", None), "check_connectivity_state", None)
    return _unknown if check is None else partial(check, False)


def aio_connectivity_of(channel: grpc.aio.Channel) -> Callable[[], object]:
    """Return a function that returns the present state of a channel of `grpc.aio`.

    It does not refer to the channel, which refers to it through the interceptors. The private attribute is much quicker
    than the public method, to which it holds a weak reference.
    """
    check: Any = getattr(getattr(channel, "_channel", None), "check_connectivity_state", None)
    if check is not None:
        return partial(check, False)
    reference = weakref.ref(channel)

    def connectivity() -> object:
        alive = reference()
        return None if alive is None else alive.get_state()

    return connectivity


def addresses(target: str) -> tuple[str, ...]:
    """Return the addresses of a target as gRPC writes them in its errors; none if that takes a resolver."""
    scheme, colon, rest = target.partition(":")
    if scheme in ("dns", "ipv4", "ipv6") and colon and not rest.isdecimal():
        target = rest.rpartition("/")[2]
    found: list[str] = []
    for address in target.split(","):
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            return ()
        names = ("127.0.0.1", "::1") if host == "localhost" else (host.removeprefix("[").removesuffix("]"),)
        for name in names:
            try:
                version = ipaddress.ip_address(name).version
            except ValueError:
                return ()
            found.append(f" ipv4:{name}:{port}: " if version == 4 else f" ipv6:%5B{name}%5D:{port}: ")
    return tuple(found)
