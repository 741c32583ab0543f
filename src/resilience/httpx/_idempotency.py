"""Which requests may be repeated beyond their method: patterns of method and path, and keys that servers remember."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from fnmatch import translate
from typing import Any, Final

from resilience._util import validation

_METHOD: Final = re.compile(r"[A-Z]+|\*")


class Routes:
    """Patterns of method and path, such as "POST */_search"."""

    def __init__(self, patterns: Iterable[str] | str) -> None:
        given: Any = patterns
        each: Iterable[Any] = [patterns] if isinstance(patterns, str) else given
        if not hasattr(given, "__iter__"):
            raise TypeError(f'idempotent must be patterns such as "POST */_search", not {patterns!r}')
        self._patterns = [_parsed(pattern) for pattern in each]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, method: str, path: str) -> bool:
        """Return whether a pattern matches the method and the path of a request."""
        return any(of in (method, "*") and path_matches(path) for of, path_matches in self._patterns)


def _parsed(pattern: Any) -> tuple[str, Callable[[str], object]]:
    if not isinstance(pattern, str):
        raise TypeError(f'an element of idempotent must be a pattern such as "POST */_search", not {pattern!r}')
    method, _, path = pattern.partition(" ")
    if not _METHOD.fullmatch(method) or not path.startswith(("/", "*")) or " " in path:
        raise ValueError(
            f"an element of idempotent must be a method in capitals, or *, a space, and a pattern of paths, such as "
            f'"POST */_search", not {pattern!r}'
        )
    return method, re.compile(translate(path)).match


class IdempotencyKey:
    """Send a key with requests that are not idempotent, by which the server tells a repetition from a new request.

    Args:
        hosts: the hosts that remember such keys, as "host" or "host:port"; at least one. A server that ignores the key
            would do repeated work twice, so it is sent to no other host.
        header: the name of the header.
        methods: the methods of the requests that get a key.
        make: returns a new key; by default a random UUID (RFC 9562). draft-ietf-httpapi-idempotency-key-header wants
            the value quoted, and several servers do not: return the quotes with the key if yours wants them.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.

    One logical call has one key, the same on every attempt. A request that has the header already keeps it. With a key
    the request may be repeated like one with an idempotent method, also after a 409, the answer while the first request
    still runs.
    """

    def __init__(
        self,
        hosts: Iterable[str] | str,
        *,
        header: str = "Idempotency-Key",
        methods: Iterable[str] = ("POST", "PATCH"),
        make: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.hosts = check_hosts("hosts", hosts)
        if not self.hosts:
            raise ValueError("hosts must name at least one host that remembers idempotency keys")
        self.header = validation.text("header", header)
        self.methods = frozenset(validation.text("a method", method) for method in methods)
        given: Any = make
        if not callable(given):
            raise TypeError(f"make must be a callable that returns a key, not {make!r}")
        self.make = make

    def key_for(self, request: Any) -> str | None:
        """Return a new key for a request; None for a request that gets none. Internal."""
        if (
            request.method not in self.methods
            or request.headers.get(self.header)
            or not is_among(request.url, self.hosts)
        ):
            return None
        return self.make()

    def __repr__(self) -> str:
        return f"IdempotencyKey({sorted(self.hosts)}, header={self.header!r})"


def check_hosts(name: str, hosts: Iterable[str] | str) -> frozenset[str]:
    """Return hosts as a set of lower-case names; raise TypeError or ValueError for what is no host or host and port."""
    given: Any = hosts
    each: Iterable[Any] = [hosts] if isinstance(hosts, str) else given
    if not hasattr(given, "__iter__"):
        raise TypeError(f'{name} must be hosts such as "api.example.com" or "localhost:8080", not {hosts!r}')
    found = [validation.text(f"an element of {name}", host).lower() for host in each]
    for host in found:
        if "/" in host or "*" in host or "@" in host:
            raise ValueError(f'an element of {name} must be "host" or "host:port", not {host!r}')
    return frozenset(found)


def is_among(url: Any, hosts: frozenset[str]) -> bool:
    """Return whether a URL is of one of these hosts; one without a port stands for all of its ports."""
    host: str = url.host
    if host in hosts:
        return True
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return f"{host}:{port}" in hosts
