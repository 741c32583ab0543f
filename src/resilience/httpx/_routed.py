"""Transports of clients that were made after `install`: requests pass through the pipeline of their route."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resilience._util.extras import import_first
from resilience.httpx._lifetime import AsyncLifetime, Lifetime
from resilience.httpx._modules import MODULES

if TYPE_CHECKING:
    from httpx import AsyncBaseTransport, BaseTransport
else:
    _module = import_first(*MODULES)
    BaseTransport, AsyncBaseTransport = _module.BaseTransport, _module.AsyncBaseTransport


class Routed:
    """A transport that passes requests of some URLs through pipelines, and all others to the inner transport.

    Args:
        inner: the inner transport.
        routes: patterns of URLs and the transports with a pipeline for them, the most specific pattern first. These
            have the same inner transport.
    """

    def __init__(self, inner: Any, routes: Sequence[tuple[Any, Any]]) -> None:
        self._transport = inner
        self._routes = routes

    @property
    def inner(self) -> Any:
        """The inner transport."""
        return self._transport

    def note_closing(self) -> None:
        """Have calls that wait for another attempt rejected, as the inner transport is being closed."""
        for _, transport in self._routes:
            transport.note_closing()

    def _transport_for(self, request: Any) -> Any:
        return next((transport for pattern, transport in self._routes if pattern.matches(request.url)), self._transport)


class RoutedTransport(Routed, Lifetime, BaseTransport):
    """A routed transport of a plain client."""

    def handle_request(self, request: Any) -> Any:
        """Send a request, through the pipeline of its route if there is one."""
        return self._transport_for(request).handle_request(request)


class AsyncRoutedTransport(Routed, AsyncLifetime, AsyncBaseTransport):
    """A routed transport of an async client."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, through the pipeline of its route if there is one."""
        return await self._transport_for(request).handle_async_request(request)
