"""A network backend for the pools of plain clients, which bounds every step by the deadline of the attempt.

httpx has timeouts for single reads and writes only: a server that sends its head byte by byte, or informational
responses without end, is never too slow for them. And httpcore waits without any timeout for the answers of a SOCKS
proxy. This module wraps the network backend of a pool of httpcore, so that each connect, read and write gets at most
the time left. There is no public way to do that later on; see `_privates`.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

from resilience._util.clock import clock
from resilience.httpx._deadline import LONGEST, SHORTEST, Timeouts
from resilience.httpx._privates import backend_of, connections_in, network_stream_of, set_backend

attempt_timeouts: ContextVar[Timeouts | None] = ContextVar("resilience_httpx_timeouts", default=None)
"""The timeouts of the attempt that the network works for in this context.

It is set by hand, since that is done for each request, and in plain code for each chunk of a body. And it is set back
to what it was: `reset` of a variable that had no value in the context removes it, which takes several times as long.
"""


_HANDSHAKES: Final = (b"CONNECT ", b"\x05", b"\x01")
"""What the messages to a proxy begin with that open a tunnel: HTTP, SOCKS 5 (RFC 1928), and its passwords (RFC 1929).
No request begins so."""


def wrap_network(pool: Any, wrapper: Any, *, http2: bool) -> bool:
    """Wrap the network backend of a pool, so that the connections that it makes from now on work for attempts.

    Args:
        pool: the pool.
        wrapper: the class of the wrapper: `DeadlineBackend`, or for async clients `AsyncObservingBackend`.
        http2: whether the connections may be shared by several requests.

    Returns:
        Whether all connections of the pool are wrapped; those are not that were open before.
    """
    backend = backend_of(pool)
    if backend is None:
        return False
    if not isinstance(backend, wrapper):
        core = importlib.import_module(type(pool).__module__.partition(".")[0])  # httpcore or httpcore2
        is_complete = not getattr(pool, "connections", True)
        backend = wrapper(backend, core, http2=http2, is_complete=is_complete)
        set_backend(pool, backend)
    wrapped: bool = backend.is_complete
    return wrapped


def note_connecting() -> None:
    """Note that the attempt has left the queue of the pool."""
    timeouts = attempt_timeouts.get()
    if timeouts is not None:
        timeouts.has_connection = True


def note_made(stream: Any, instead_of: Any = None) -> Any:
    """Note on the attempt that a connection was made for it, such as one with TLS of another one, and return that."""
    timeouts = attempt_timeouts.get()
    if timeouts is not None:
        timeouts.made = (*(one for one in timeouts.made if one is not instead_of), stream)
    return stream


def unowned(pool: Any, timeouts: Timeouts) -> list[Any]:
    """Return the connections that were made for a failed attempt, and that the pool does not know.

    httpcore forgets to close that to a SOCKS proxy whose handshake fails.
    """
    if not timeouts.made or timeouts.has_sent:
        return []
    known = [network_stream_of(connection) for connection in connections_in(pool)]
    return [stream for stream in timeouts.made if not any(stream is one for one in known)]


def close_unowned(pool: Any, timeouts: Timeouts) -> None:
    """Close what `unowned` returns."""
    for stream in unowned(pool, timeouts):
        with contextlib.suppress(Exception):
            stream.close()


def note_writing(timeouts: Timeouts, buffer: bytes) -> None:
    """Note that the attempt sends something, unless it is for a proxy that is to open a tunnel."""
    timeouts.has_connection = True
    timeouts.has_sent = not buffer.startswith(_HANDSHAKES)


def _left(timeouts: Timeouts | None, timeout: float | None, error: type[Exception], when: str = "") -> float | None:
    """Return the timeout of one step: the time left, or the given one if that is less.

    Args:
        timeouts: those of the attempt; None if there is no attempt.
        timeout: the given timeout, in seconds; None for none.
        error: what is raised if no time is left.
        when: the end of its message.
    """
    left = LONGEST if timeouts is None else timeouts.deadline - clock.monotonic()
    if left >= LONGEST:
        return timeout
    if left <= 0:
        raise error(f"the deadline passed{when}")
    if left < SHORTEST:
        left = SHORTEST
    return left if timeout is None or left < timeout else timeout


class DeadlineBackend:
    """A network backend whose connections obey the deadline of the attempt.

    Args:
        backend: the network backend that does the work.
        core: httpcore or httpcore2, whose errors are raised.
        http2: whether a connection may be shared, so that a write says nothing about a single attempt.
        is_complete: whether all connections of the pool are of this backend.
    """

    def __init__(self, backend: Any, core: Any, *, http2: bool, is_complete: bool) -> None:
        self._backend = backend
        self._core = core
        self._notes = not http2
        self.is_complete = is_complete

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        """Return a connection to a host."""
        timeout = _left(attempt_timeouts.get(), timeout, self._core.ConnectTimeout)
        stream = self._backend.connect_tcp(
            host, port, timeout=timeout, local_address=local_address, socket_options=socket_options
        )
        return note_made(DeadlineStream(stream, self._core, notes=self._notes))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> Any:
        """Return a connection to a socket in the file system."""
        timeout = _left(attempt_timeouts.get(), timeout, self._core.ConnectTimeout)
        stream = self._backend.connect_unix_socket(path, timeout=timeout, socket_options=socket_options)
        return note_made(DeadlineStream(stream, self._core, notes=self._notes))

    def sleep(self, seconds: float) -> None:
        """Wait before `HTTPTransport(retries=)` connects again; raise the error of before if no time is left then."""
        timeouts, error = attempt_timeouts.get(), sys.exception()
        if timeouts is not None and timeouts.left <= seconds and error is not None:
            raise error
        self._backend.sleep(seconds)


class DeadlineStream:
    """A connection that obeys the deadline of the attempt.

    Args:
        stream: the connection of httpcore.
        core: httpcore or httpcore2, whose errors are raised.
        notes: whether writes are noted on the attempt.
    """

    def __init__(self, stream: Any, core: Any, *, notes: bool) -> None:
        self._stream = stream
        self._core = core
        self._notes = notes
        self.get_extra_info = stream.get_extra_info
        """Returns a fact about the connection, such as its socket."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has arrived, at most so many bytes; nothing if the other side has closed the connection."""
        found: bytes = self._stream.read(
            max_bytes, timeout=_left(attempt_timeouts.get(), timeout, self._core.ReadTimeout)
        )
        return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes."""
        if not buffer:
            return
        timeouts = attempt_timeouts.get()
        if timeouts is None or timeouts.has_sent or not self._notes:
            timeout = _left(timeouts, timeout, self._core.WriteTimeout)
        else:
            timeout = _left(timeouts, timeout, self._core.ConnectTimeout, " before the request was sent")
            note_writing(timeouts, buffer)
        try:
            self._stream.write(buffer, timeout=timeout)
        except Exception:
            raise
        except BaseException:
            self._stream.close()  # Ctrl-C: what follows on an HTTP/2 connection would be misread, see _async_network
            raise

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
        """Return this connection with TLS."""
        timeout = _left(attempt_timeouts.get(), timeout, self._core.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return note_made(DeadlineStream(stream, self._core, notes=self._notes), instead_of=self)
