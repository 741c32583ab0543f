"""Sets of hosts, to which a client says more than to others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from resilience._util import validation
from resilience._util.redaction import redacted

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([1-9][0-9]{0,4}))?")
_PORTS: Final = {"http": 80, "https": 443}
MOST: Final = 65_535
"""The greatest number of a port."""


class Hosts:
    """A set of hosts, each with a port, or with all of its ports.

    Args:
        parameter: the name of the parameter, for messages.
        hosts: the hosts, as "host" or "host:port"; an IPv6 address in brackets, an international name in its ASCII
            form, such as "xn--mnchen-3ya.de".

    Raises:
        TypeError, ValueError: a host is no string, or not of this form.
    """

    def __init__(self, parameter: str, hosts: Iterable[str] | str) -> None:
        given: Any = hosts
        if not hasattr(given, "__iter__"):
            raise TypeError(
                f'{parameter} must be hosts such as "api.example.com" or "localhost:8080", not {redacted(hosts)}'
            )
        each: Iterable[Any] = [hosts] if isinstance(hosts, str) else given
        self._hosts = frozenset(_parsed(parameter, host) for host in each)

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def __eq__(self, other: object) -> bool:
        return self._hosts == other._hosts if isinstance(other, Hosts) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._hosts)

    def match(self, url: Any) -> bool:
        """Return whether a URL is of one of these hosts."""
        host = url.raw_host.decode("ascii").strip("[]")
        return (host, None) in self._hosts or (host, url.port or _PORTS.get(url.scheme)) in self._hosts

    def __repr__(self) -> str:
        return repr(sorted(host if port is None else f"{host}:{port}" for host, port in self._hosts))


def _parsed(parameter: str, host: Any) -> tuple[str, int | None]:
    """Return a host without brackets, and its port; None for all of its ports."""
    found = _HOST.fullmatch(validation.text(f"an element of {parameter}", host).lower())
    port = None if found is None or found[2] is None else int(found[2])
    if found is None or (port is not None and port > MOST):
        raise ValueError(
            f'an element of {parameter} must be "host" or "host:port", such as "api.example.com" or "[::1]:8080", an '
            f'international name in its ASCII form, "xn--...", not {redacted(host)}'
        )
    return found[1].strip("[]"), port
