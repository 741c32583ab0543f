"""`install`: guard the clients that are made later, by the route of their requests."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from resilience._call.caller import Caller
from resilience._util.locks import new_lock
from resilience.httpx._attach import replace_transports
from resilience.httpx._modules import MODULES, load_httpx_module
from resilience.httpx._routed import AsyncRoutedTransport, RoutedTransport
from resilience.httpx._transport import AsyncResilientTransport, ResilientTransport

_lock = new_lock()
_originals: dict[type[Any], Any] = {}
"""The classes of clients that are patched now, with their own `__init__`; empty if nothing is installed."""
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
    without a route are sent as ever, and clients that exist already are not touched. `attach` to a client that was made
    later replaces what was installed. `uninstall` ends it for clients that are made after that.
    """
    given: Any = pipelines
    if not isinstance(given, Mapping):
        raise TypeError(
            f'pipelines must be a mapping such as {{"https://api.example.com": pipeline}}, not {pipelines!r}'
        )
    if not given:
        raise ValueError("pipelines must have at least one URL pattern")
    items: list[tuple[Any, Any]] = list(pipelines.items())
    for pattern, pipeline in items:
        if not isinstance(pattern, str) or not isinstance(pipeline, Caller):
            raise TypeError(
                f"pipelines must map URL patterns to pipelines or policies, not {pattern!r} to {pipeline!r}"
            )
        if "://" not in pattern:
            raise ValueError(f'a URL pattern must be one of a mount, such as "all://example.com", not {pattern!r}')
    modules = [load_httpx_module(name).module for name in MODULES if find_spec(name) is not None]
    routes = [(module, _sorted_patterns(module, pipelines)) for module in modules]
    with _lock:
        if _originals:
            raise ValueError("pipelines are installed already; call uninstall() first")
        for module, patterns in routes:
            for name, (guarded, routed) in _KINDS.items():
                _patch(getattr(module, name), patterns, guarded, routed)


def uninstall() -> None:
    """End what `install` has begun, for clients that are made from now on. Clients that exist keep their pipelines."""
    with _lock:
        for kind, original in _originals.items():
            kind.__init__ = original
        _originals.clear()


def _sorted_patterns(module: Any, pipelines: Mapping[str, Caller[Any]]) -> list[tuple[Any, Caller[Any]]]:
    """Return the patterns as objects of the module, the most specific one first, with their pipelines."""
    found: list[tuple[Any, Caller[Any]]] = []
    for pattern, pipeline in pipelines.items():
        try:
            found.append((module._utils.URLPattern(pattern), pipeline))
        except (ValueError, module.InvalidURL) as error:
            raise ValueError(f"{pattern!r} is no URL pattern of a mount: {error}") from None
    return sorted(found, key=lambda pair: pair[0])


def _patch(kind: Any, routes: list[tuple[Any, Caller[Any]]], guarded: Any, routed: Any) -> None:
    """Replace the `__init__` of a class of clients."""
    original = kind.__init__

    @functools.wraps(original)
    def initialize(client: Any, *args: Any, **kwargs: Any) -> None:
        original(client, *args, **kwargs)

        def with_routes(inner: Any) -> Any:
            return routed(inner, [(pattern, guarded(pipeline, inner)) for pattern, pipeline in routes])

        replace_transports(client, with_routes)

    _originals[kind] = original
    kind.__init__ = initialize
