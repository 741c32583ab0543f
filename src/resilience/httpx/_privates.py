"""Everything that the package uses and that httpx, httpx2, httpcore, httpcore2 and h2 do not promise to keep.

No other module names their private attributes. Where one is missing, what needs it is not done: a transport without a
known pool is not repaired, for instance. A test holds for the installed versions that all of them are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

POOL: Final = ("_connections", "_requests", "_assign_requests_to_connections", "_optional_thread_lock")
"""The attributes of a pool that are needed to repair it."""
_NOTHING: Final[Mapping[str, Any]] = {}
_SECOND: Final = itemgetter(1)
_DEPTH: Final = 3
"""How many objects are between a connection of a pool and that of its protocol at most: proxies wrap it."""


# Clients of httpx


def transports_of(client: Any) -> tuple[Any, dict[Any, Any]]:
    """Return the transport of a client, and those of its mounts; None among them for that of the client."""
    return client._transport, client._mounts


def set_transports(client: Any, transport: Any, mounts: dict[Any, Any]) -> None:
    """Replace the transport of a client, and its mounts."""
    client._transport, client._mounts = transport, mounts


def url_pattern(module: Any, pattern: str) -> Any:
    """Return a pattern of a mount, as an object that can be sorted and matches URLs. Raises ValueError."""
    return module._utils.URLPattern(pattern)


# Requests, responses and errors of httpx


def request_content_of(stream: Any) -> Any:
    """Return what the caller gave as the body of a request; None if that is not known."""
    return getattr(stream, "__dict__", _NOTHING).get("_stream")


def was_read(stream: Any) -> bool | None:
    """Return whether a body that wraps an iterable or a file was read; None for bodies of another kind."""
    found: bool | None = getattr(stream, "__dict__", _NOTHING).get("_is_stream_consumed")
    return found


def names_of(headers: Any) -> Iterable[bytes]:
    """Return the names of the headers of a message, in lower case."""
    found = getattr(headers, "_list", None)
    return [name.lower() for name, _ in headers.raw] if found is None else map(_SECOND, found)


def request_of(error: BaseException) -> Any:
    """Return the request of an error of httpx; None if it has none yet."""
    return vars(error).get("_request")


def set_request(attributes: dict[str, Any], request: Any) -> dict[str, Any]:
    """Set the request in the `__dict__` of an error of httpx, and return that."""
    attributes["_request"] = request
    return attributes


# Pools of httpcore


def pool_of(transport: Any) -> Any:
    """Return the pool of a transport of httpx; None if it has none."""
    return getattr(transport, "_pool", None)


def is_repairable(pool: Any) -> bool:
    """Return whether a pool has all that is needed to repair it."""
    return all(hasattr(pool, name) for name in POOL)


def may_use_http2(pool: Any) -> bool:
    """Return whether a pool makes HTTP/2 connections."""
    return getattr(pool, "_http2", False) is True and hasattr(pool, "_connections")


def backend_of(pool: Any) -> Any:
    """Return the network backend of a pool; None if it has none."""
    return getattr(pool, "_network_backend", None)


def set_backend(pool: Any, backend: Any) -> None:
    """Replace the network backend of a pool."""
    pool._network_backend = backend


def connections_in(pool: Any) -> list[Any]:
    """Return the connections of a pool. The public property waits for a lock in plain code."""
    return list(pool._connections)


def set_connections(pool: Any, connections: list[Any]) -> list[Any]:
    """Replace the connections of a pool, give free slots to waiting requests, and return what is to be closed."""
    pool._connections = connections
    closing: list[Any] = pool._assign_requests_to_connections()
    return closing


def requests_in(pool: Any) -> list[Any]:
    """Return the list of the requests of a pool, which may be changed."""
    requests: list[Any] = pool._requests
    return requests


def lock_of(pool: Any) -> Any:
    """Return the lock of a pool; that of an async one does nothing."""
    return pool._optional_thread_lock


def pool_request_of(stream: Any) -> Any:
    """Return the request of a pool to which the body of a response belongs; None if that is not known."""
    return getattr(getattr(stream, "_httpcore_stream", None), "_pool_request", None)


def has_arrived(stream: Any) -> bool:
    """Return whether the body of a response over HTTP/1 is in memory as a whole, so that to read it waits for nothing.

    It has come together with its head then, or there is none. Its length must be known, by Content-Length or since
    there is no body; False for any other body, and for one that is not read by h11.
    """
    try:
        state = stream._httpcore_stream._stream._connection._h11_state
        left: int = state._reader._remaining
        return left <= len(state._receive_buffer)
    except AttributeError:
        return False


# Connections of httpcore, and the HTTP/2 state of h2


def network_stream_of(connection: Any) -> Any:
    """Return the network stream of an established connection of a pool; None for others."""
    for _ in range(_DEPTH):
        connection = getattr(connection, "_connection", None)
        if hasattr(connection, "_network_stream"):
            return connection._network_stream
    return None


def http2_connections(connection: Any) -> Iterator[Any]:
    """Yield the HTTP/2 connection that is inside a connection of a pool; nothing if there is none."""
    for _ in range(_DEPTH):
        if connection is None:
            return
        if hasattr(connection, "_h2_state") and hasattr(connection, "_events"):
            yield connection
            return
        connection = getattr(connection, "_connection", None)


def http2_state_of(connection: Any) -> tuple[Any, dict[int, list[Any]], Any]:
    """Return the state of an HTTP/2 connection, its unread events by stream, and its network stream."""
    return connection._h2_state, connection._events, connection._network_stream


def unacknowledged(state: Any) -> int:
    """Return how many bytes an HTTP/2 connection has received and not given back."""
    window = state._inbound_flow_control_window_manager
    count: int = window.max_window_size - window.current_window_size - window._bytes_processed
    return count
