"""Repairs the connection pools of httpcore and httpcore2, which lose slots when connections fail half-made.

In both, a connection through a CONNECT proxy whose TLS fails or is cut is neither closed nor of any request. In
httpcore 1.0 this also happens to requests that time out or are cancelled, see encode/httpcore #1093: after the pool has
assigned a new connection to a request, and before the request has begun to use it, that is at the end of its wait for
a connection, and, where it can be cancelled, between connecting and sending. On asyncio, `Task.cancel` also interrupts
the clean-up of httpcore in spite of its shields. On threads, another thread may assign the connection between the
PoolTimeout of a request and the removal of that request from the list. The pool then keeps a connection that no request
has and that no request can get, so that one of its `max_connections` is lost for good.

A connection is lost if it is neither closed nor ready for another request, and no request in the list of the pool has
it. There is no public way to remove one, and no release of httpcore that does it; see `_privates`.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from resilience.httpx._modules import is_a
from resilience.httpx._privates import (
    connections_in,
    is_repairable,
    lock_of,
    pool_of,
    pool_request_of,
    requests_in,
    set_connections,
)

REPAIRED: Final = ("HTTPTransport", "AsyncHTTPTransport")


def repairable_pool_of(transport: Any) -> Any:
    """Return the pool of a transport of httpx or httpx2; None for any other transport or an unknown pool."""
    if not any(is_a(transport, name) for name in REPAIRED):
        return None
    pool = pool_of(transport)
    return pool if is_repairable(pool) else None


def is_first_generation(pool: Any) -> bool:
    """Return whether a pool is one of httpcore, not of httpcore2."""
    return type(pool).__module__.partition(".")[0] == "httpcore"


def remove_lost(pool: Any) -> list[Any]:
    """Remove the lost connections from a pool, assign their slots to waiting requests, and return what is to be closed.

    The lock of the pool is held meanwhile. Under it, a request that has been given a connection is in the list of
    requests, and stays there until its connection is idle or closed: what no request has is lost.
    """
    with lock_of(pool):
        used = {id(request.connection) for request in requests_in(pool)}
        connections = connections_in(pool)
        lost = [connection for connection in connections if id(connection) not in used and not _is_free(connection)]
        if not lost:
            return []
        closing = set_connections(pool, [connection for connection in connections if connection not in lost])
    return lost + closing


def repair(pool: Any) -> None:
    """Release the slots that a pool of threads has lost, after an exception that httpcore has raised."""
    for connection in remove_lost(pool):
        with contextlib.suppress(Exception):
            connection.close()


class PoolSlot:
    """The slot of a request in a pool, for async clients.

    Args:
        pool: the pool.
        stream: the body of the response, whose clean-up releases the slot unless it is interrupted; None before there
            is a response.
    """

    __slots__ = ("_pool", "_stream")

    def __init__(self, pool: Any, stream: Any) -> None:
        self._pool = pool
        self._stream = stream

    async def repair(self, error: BaseException) -> None:
        """Release the slots that are lost, after an exception that httpcore has raised, and close their connections.

        No other task runs before the first await.
        """
        pool = self._pool
        # The clean-up of httpcore2 is not interrupted, and fails if the request is not in the list any more.
        request = pool_request_of(self._stream) if is_first_generation(pool) else None
        if request is not None and request in requests_in(pool):
            requests_in(pool).remove(request)
        closing = remove_lost(pool)
        if not isinstance(error, GeneratorExit):  # a dropped coroutine cannot wait for anything
            for connection in closing:
                with contextlib.suppress(Exception):
                    await connection.aclose()


def _is_free(connection: Any) -> bool:
    """Return whether a connection is idle or closed, so that the pool reuses or drops it by itself.

    `is_available` is not enough: it is True for a connection that is not established yet and may become HTTP/2. Nor is
    `is_idle`: an HTTP/2 connection that has failed is idle and not available, and httpcore2 waits for it to expire.
    """
    return bool(connection.is_closed() or (connection.is_idle() and connection.is_available()))
