"""Which requests may be repeated beyond their method: patterns of method and path, and keys that servers remember."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from fnmatch import translate
from typing import Any, Final

from resilience._util import validation
from resilience._util.redaction import redacted
from resilience.httpx._hosts import Hosts

MADE: Final = "resilience_made_key"
"""The extension with the key that was made for a request, and the `id` of the first one: redirects have a copy."""
_METHOD: Final = re.compile(r"[A-Z]+|\*")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A name of RFC 9110 5.6.2, such as that of a header or method."""
_VISIBLE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
"""The value of a header in visible ASCII characters, with spaces inside only."""


class RequestPatterns:
    """Patterns of method and path, such as "POST */_search"."""

    def __init__(self, patterns: Iterable[str] | str) -> None:
        given: Any = patterns
        each: Iterable[Any] = [patterns] if isinstance(patterns, str) else given
        if not hasattr(given, "__iter__"):
            raise TypeError(f'idempotent must be patterns such as "POST */_search", not {redacted(patterns)}')
        self._given = tuple(each)
        self._patterns = [_parsed(pattern) for pattern in self._given]

    def __eq__(self, other: object) -> bool:
        return self._given == other._given if isinstance(other, RequestPatterns) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._given)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, method: str, path: str) -> bool:
        """Return whether a pattern matches the method and the path of a request."""
        return any(of in (method, "*") and path_matches(path) for of, path_matches in self._patterns)


def _parsed(pattern: Any) -> tuple[str, Callable[[str], object]]:
    if not isinstance(pattern, str):
        raise TypeError(f'an element of idempotent must be a pattern such as "POST */_search", not {redacted(pattern)}')
    method, _, path = pattern.partition(" ")
    if not _METHOD.fullmatch(method) or not path.startswith(("/", "*")) or " " in path:
        raise ValueError(
            f"an element of idempotent must be a method in capitals, or *, a space, and a pattern of paths, such as "
            f'"POST */_search", not {redacted(pattern)}'
        )
    return method, re.compile(translate(path)).match


class IdempotencyKey:
    """Send a key with requests that are not idempotent, by which the server tells a repetition from a new request.

    Args:
        hosts: the hosts that remember such keys, at least one: "host" for all of its ports and schemes, or "host:port".
            A server that ignores the key would do repeated work twice, so it is sent to no other host.
        header: the name of the header.
        methods: the methods of the requests that get a key, in capital letters, at least one.
        make: returns a new key, of visible ASCII characters; by default a random UUID (RFC 9562).
            draft-ietf-httpapi-idempotency-key-header wants the value quoted, and several servers do not: return the
            quotes with the key if yours wants them.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range; in a request, what `make` returns.

    One logical call has one key, the same on every attempt and after a redirect. A request that has the header already
    keeps it. With the header, the request may be repeated like one with an idempotent method; with a key that was made
    here also after a 409, the answer while the first request still runs.
    """

    def __init__(
        self,
        hosts: Iterable[str] | str,
        *,
        header: str = "Idempotency-Key",
        methods: Iterable[str] | str = ("POST", "PATCH"),
        make: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.hosts = Hosts("hosts", hosts)
        if not self.hosts:
            raise ValueError("hosts must name at least one host that remembers idempotency keys")
        self.header = validation.text("header", header)
        if not _TOKEN.fullmatch(header):
            raise ValueError(f"header must be the name of a header (RFC 9110 5.6.2), not {redacted(header)}")
        given: Any = methods
        if not hasattr(given, "__iter__"):
            raise TypeError(f'methods must be methods such as ["POST"], not {redacted(methods)}')
        each: Iterable[Any] = [methods] if isinstance(methods, str) else given
        self.methods = frozenset(validation.text("an element of methods", method) for method in each)
        if not self.methods or any(not _TOKEN.fullmatch(one) or one != one.upper() for one in self.methods):
            raise ValueError(
                f'methods must be one or more methods in capital letters, such as ["POST"], not {redacted(methods)}'
            )
        function: Any = make
        if not callable(function):
            raise TypeError(f"make must be a callable that returns a key, not {make!r}")
        self.make = make

    def key_for(self, request: Any) -> str | None:
        """Return the key of a request; None for a request that gets none. Internal."""
        if request.method not in self.methods or request.headers.get(self.header) or not self.hosts.match(request.url):
            return None
        key, first = request.extensions.get(MADE, (None, id(request)))
        if key is None or first == id(request):  # otherwise it is that of the request before a redirect
            key = self._new_key()
            request.extensions[MADE] = key, first
        found: str = key
        return found

    def _new_key(self) -> str:
        key: Any = self.make()
        if not isinstance(key, str) or not _VISIBLE.fullmatch(key):
            given = f"a {type(key).__name__}" if not isinstance(key, str) else "other text" if key else "an empty one"
            raise TypeError(
                "make of an IdempotencyKey must return a string of visible ASCII characters, as str(uuid.uuid4()) is, "
                f"not {given}"
            )
        return key

    def __repr__(self) -> str:
        return f"IdempotencyKey({self.hosts!r}, header={self.header!r})"
