"""Transports of clients that were made after `install`: requests pass through the pipeline of their route."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from resilience._util.extras import import_first
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
        self.inner = inner
        self._routes = routes

    def _transport_for(self, request: Any) -> Any:
        return next((transport for pattern, transport in self._routes if pattern.matches(request.url)), self.inner)


class RoutedTransport(Routed, BaseTransport):
    """A routed transport of a plain client."""

    def handle_request(self, request: Any) -> Any:
        """Send a request, through the pipeline of its route if there is one."""
        return self._transport_for(request).handle_request(request)

    def close(self) -> None:
        """Close the inner transport. Calls that wait for another attempt are rejected."""
        for _, transport in self._routes:
            transport.close()
        self.inner.close()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.inner.__exit__(exc_type, exc_value, traceback)


class AsyncRoutedTransport(Routed, AsyncBaseTransport):
    """A routed transport of an async client."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, through the pipeline of its route if there is one."""
        return await self._transport_for(request).handle_async_request(request)

    async def aclose(self) -> None:
        """Close the inner transport. Calls that wait for another attempt are rejected."""
        for _, transport in self._routes:
            await transport.aclose()
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.inner.__aexit__(exc_type, exc_value, traceback)
