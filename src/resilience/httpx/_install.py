"""`install`: guard the clients that are made later, by the route of their requests."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

from resilience._call.caller import Caller
from resilience._util.locks import new_lock
from resilience._util.redaction import redacted
from resilience.httpx._attach import replace_transports
from resilience.httpx._base import BaseResilientTransport
from resilience.httpx._hosts import MOST
from resilience.httpx._modules import MODULES, load_httpx_module
from resilience.httpx._privates import url_pattern
from resilience.httpx._routed import AsyncRoutedTransport, Routed, RoutedTransport
from resilience.httpx._transport import AsyncResilientTransport, ResilientTransport

_PATTERN: Final = re.compile(r"(?:all|https?)://(?:(?:\*\.?)?[^*/?#@\[\]:\s]*|\[[0-9a-fA-F:.]+\])(?::([0-9]{1,5}))?")
_lock = new_lock()
_installed: list[_Patch] = []
"""The patches of the classes of clients; empty if nothing is installed."""
_KINDS: Any = {
    "Client": (ResilientTransport, RoutedTransport),
    "AsyncClient": (AsyncResilientTransport, AsyncRoutedTransport),
}


def install(pipelines: Mapping[str, Caller[Any]]) -> None:
    """Guard every client of httpx and httpx2 that is made from now on, where its requests have one of these routes.

        resilience.httpx.install({"https://api.payments.example": payments, "all://*.search.internal": search})

    Args:
        pipelines: a pipeline, or policy, for each URL pattern. The patterns are those of the mounts of httpx, such as
            "https://", "all://api.example.com" or "all://*.example.com:8080"; the most specific one counts.

    Raises:
        TypeError: `pipelines` is not a mapping of patterns to pipelines.
        ValueError: a pattern is invalid, there is none, or something is installed already.

    Call it at start-up, before SDKs make their clients. It replaces the `__init__` of the classes of clients; requests
    without a route are sent as ever, and clients that exist already, or that have a pipeline, are not touched. `attach`
    to a client that was made later replaces what was installed, such as for settings that only it has. `uninstall` ends
    it for clients that are made after that.
    """
    given: Any = pipelines
    if not isinstance(given, Mapping):
        raise TypeError(
            f'pipelines must be a mapping such as {{"https://api.example.com": pipeline}}, not {redacted(pipelines)}'
        )
    if not given:
        raise ValueError("pipelines must have at least one URL pattern")
    items: list[tuple[Any, Any]] = list(pipelines.items())
    for pattern, pipeline in items:
        if not isinstance(pattern, str) or not isinstance(pipeline, Caller):
            raise TypeError(
                "pipelines must map URL patterns to pipelines or policies, "
                f"not {redacted(pattern)} to {redacted(pipeline)}"
            )
    modules = [load_httpx_module(name).module for name in MODULES if find_spec(name) is not None]
    routes = [(module, _sorted_patterns(module, pipelines)) for module in modules]
    with _lock:
        if _installed:
            raise ValueError("pipelines are installed already; call uninstall() first")
        for module, patterns in routes:
            for name, (guarded, routed) in _KINDS.items():
                _installed.append(_Patch(getattr(module, name), patterns, guarded, routed))


def uninstall() -> None:
    """End what `install` has begun, for clients that are made from now on. Clients that exist keep their pipelines."""
    with _lock:
        for patch in _installed:
            patch.undo()
        _installed.clear()


def _sorted_patterns(module: Any, pipelines: Mapping[str, Caller[Any]]) -> list[tuple[Any, Caller[Any]]]:
    """Return the patterns as objects of the module, the most specific one first, with their pipelines."""
    found: list[tuple[Any, Caller[Any]]] = []
    for pattern, pipeline in pipelines.items():
        parts = _PATTERN.fullmatch(pattern)
        if parts is None or int(parts[1] or 0) > MOST:
            raise ValueError(
                f'{redacted(pattern)} is no URL pattern of a mount; such are "https://", "all://example.com" and '
                '"http://*.example.com:8080", without a path'
            )
        try:
            found.append((url_pattern(module, pattern), pipeline))
        except (ValueError, module.InvalidURL) as error:
            raise ValueError(f"{redacted(pattern)} is no URL pattern of a mount: {error}") from None
    return sorted(found, key=lambda pair: pair[0])


class _Patch:
    """The patch of a class of clients, whose objects get transports with routes as they are made.

    Args:
        kind: the class, or a subclass that another library has put in its place.
        routes: the patterns and their pipelines.
        guarded: the class of transports with a pipeline.
        routed: the class of transports with routes.
    """

    def __init__(self, kind: Any, routes: list[tuple[Any, Caller[Any]]], guarded: Any, routed: Any) -> None:
        self._kind = next(one for one in kind.__mro__ if one.__module__ in MODULES and "__init__" in vars(one))
        self._original = original = self._kind.__init__
        self._active = True

        @functools.wraps(original)
        def initialize(client: Any, *args: Any, **kwargs: Any) -> None:
            original(client, *args, **kwargs)
            if self._active:
                replace_transports(client, with_routes)

        def with_routes(inner: Any) -> Any:
            if is_guarded(inner):
                return inner
            return routed(inner, [(pattern, guarded(pipeline, inner)) for pattern, pipeline in routes])

        self._replacement = self._kind.__init__ = initialize

    def undo(self) -> None:
        """End it. What others have put around the patch meanwhile stays, and calls it in vain."""
        self._active = False
        if self._kind.__init__ is self._replacement:
            self._kind.__init__ = self._original


def is_guarded(transport: object) -> bool:
    """Return whether a transport has a pipeline, or the routes, already."""
    return isinstance(transport, BaseResilientTransport | Routed)
