"""Mends the pool of httpcore 1.0, which loses places when requests are cancelled (encode/httpcore #1093).

A request may be cancelled, or time out, when it has been given a new connection and has not begun to use it: at the
end of its wait for one, and between connecting and sending. And on asyncio, `Task.cancel` goes through the shields of
its clean-up. The pool then keeps for ever a connection that nobody uses and nobody can get. httpcore2 has mended this
itself; httpcore has no public way to do it, and no release that would. So this looks into it, does nothing where it
looks other than expected, and a test tells when that is so.
"""

from __future__ import annotations

import contextlib
from typing import Any

from resilience.httpx._modules import is_a, module_name_of

EXPECTED = ("_connections", "_requests", "_assign_requests_to_connections")


def pool_of(transport: Any) -> Any:
    """Return the pool of httpcore 1.0 that an async transport has; None where it has none that is as expected."""
    if not (is_a(transport, "AsyncHTTPTransport") and module_name_of(transport) == "httpx"):
        return None
    pool: Any = getattr(transport, "_pool", None)
    return pool if all(hasattr(pool, name) for name in EXPECTED) else None


class PoolSlot:
    """The place in a pool that a request has, or may have lost.

    Args:
        pool: the pool.
    """

    __slots__ = ("_pool", "_request")

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._request: Any = None

    def taken(self, stream: Any) -> None:
        """Remember whose body it is; its clean-up gives the place back, unless it is torn."""
        self._request = getattr(getattr(stream, "_httpcore_stream", None), "_pool_request", None)

    async def repair(self, error: BaseException) -> None:
        """Give back what is lost, after an exception came out of httpcore, and close its connections.

        No other task runs before the first await: what no request has by then is lost, for those that have been given
        a connection still are in the list of requests.
        """
        pool = self._pool
        if self._request is not None and self._request in pool._requests:
            pool._requests.remove(self._request)
        used = {id(request.connection) for request in pool._requests}
        lost = [
            connection for connection in pool._connections if id(connection) not in used and not _is_free(connection)
        ]
        if not lost:
            return
        pool._connections = [connection for connection in pool._connections if connection not in lost]
        lost += pool._assign_requests_to_connections()
        if not isinstance(error, GeneratorExit):  # a dropped coroutine cannot wait for anything
            for connection in lost:
                with contextlib.suppress(Exception):
                    await connection.aclose()


def _is_free(connection: Any) -> bool:
    """Return whether the pool can use a connection again by itself.

    One that is being made, and may become one of HTTP/2, says that it is available: that proves nothing.
    """
    return bool(connection.is_idle() or connection.is_closed())
