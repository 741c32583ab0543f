"""Whether the request of a failed attempt surely never left: where that is not certain, the answer is no."""

from __future__ import annotations

import ipaddress
import weakref
from collections.abc import Callable
from typing import Any, Final

import grpc

from resilience.grpc._failures import code_of, details_of

_UNREACHABLE: Final = "failed to connect to all addresses"
_DOWN: Final = grpc.ChannelConnectivity.TRANSIENT_FAILURE
_DISCONNECTED: Final = frozenset({_DOWN, grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING})
_STATES: Final = {state.value[0]: state for state in grpc.ChannelConnectivity}


class Connectivity:
    """What is known of the connection of one channel.

    Args:
        target: the channel's; None where it is not known, or where something further in may make several attempts of
            one of ours. Then nothing is ever certain.
    """

    def __init__(self, target: str | None) -> None:
        self._addresses = () if target is None else addresses(target)
        self._connectivity: Callable[[], object] = _unknown

    def watch(self, connectivity: Callable[[], object]) -> None:
        """Take what tells the state of the channel at this very moment; what it raises means that nobody knows."""
        self._connectivity = connectivity

    def is_disconnected(self) -> bool:
        """Return whether the channel surely has no connection at this moment."""
        return bool(self._addresses) and self._state() in _DISCONNECTED

    def never_sent(self, error: Exception, *, apart: bool) -> bool:
        """Return whether the request surely never left.

        It did not, when gRPC reports that it reached none of the target's addresses, names one of this channel's, and
        the channel had no connection before the attempt (`apart`) and has none after it. The words alone would not
        do: a server that fails to reach a server of its own may pass on the same words, and may have done half of its
        work by then. But a server that speaks is connected. Names are not resolved here, so it is certain only for
        targets that are literal addresses or localhost.
        """
        if not apart or code_of(error) is not grpc.StatusCode.UNAVAILABLE:
            return False
        details = details_of(error)
        named = details.startswith(_UNREACHABLE) and any(address in details for address in self._addresses)
        return named and self._state() is _DOWN

    def _state(self) -> object:
        try:
            return self._connectivity()
        except Exception:  # the channel is closed
            return None


def _unknown() -> None:
    """Nobody has said how to find out."""


def connectivity_of(channel: Any) -> Callable[[], object]:
    """Return what tells the state of a channel of the synchronous API at the moment when it is asked.

    There is no public way: `subscribe` tells of the past, on a thread of its own. So a private one is used; where grpc
    has it no more, the state is unknown.
    """
    ask: Any = getattr(getattr(channel, "_channel", None), "check_connectivity_state", None)
    return _unknown if ask is None else lambda: _STATES.get(ask(False))


def aio_connectivity_of(channel: grpc.aio.Channel) -> Callable[[], object]:
    """Return what tells the state of a channel of `grpc.aio`; it does not keep the channel alive, which keeps us."""
    known = weakref.ref(channel)

    def connectivity() -> object:
        there = known()
        return None if there is None else there.get_state()

    return connectivity


def addresses(target: str) -> tuple[str, ...]:
    """Return how gRPC writes the addresses of a target in its errors, where that is certain without a resolver."""
    scheme, colon, rest = target.partition(":")
    if scheme in ("dns", "ipv4", "ipv6") and colon and not rest.isdecimal():
        target = rest.rpartition("/")[2]
    found: list[str] = []
    for one in target.split(","):
        host, _, port = one.rpartition(":")
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
