"""A network backend for the pools of plain clients, which bounds every step by the deadline of the attempt.

httpx has timeouts for single reads and writes only: a server that sends its head byte by byte, or informational
responses without end, is never too slow for them. And httpcore waits without any timeout for the answers of a SOCKS
proxy. This module wraps the network backend of a pool of httpcore, which has no public way to do that later on, so that
each connect, read and write gets at most the time left. It does nothing where the pool is of another kind, and a test
fails when that happens.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

from resilience.httpx._deadline import LONGEST, SHORTEST, Timeouts
from resilience.httpx._modules import is_own

BACKEND: Final = "_network_backend"
"""The private attribute of a pool that has its network backend."""
attempt_timeouts: ContextVar[Timeouts | None] = ContextVar("resilience_httpx_timeouts", default=None)
"""The timeouts of the attempt that the network works for in this context. Set and reset by hand: it is done for each
request and each chunk of a body."""


def bound_network(transport: Any) -> None:
    """Have every connection that a transport of a plain client makes from now on obey the deadline of the attempt."""
    pool = getattr(transport, "_pool", None) if is_own(transport) else None
    backend = getattr(pool, BACKEND, None)
    if backend is not None and not isinstance(backend, DeadlineBackend):
        core = importlib.import_module(type(pool).__module__.partition(".")[0])
        setattr(pool, BACKEND, DeadlineBackend(backend, core))


def _left(timeout: float | None, error: type[Exception]) -> float | None:
    """Return the timeout of one step: the time left, or the given one if that is less.

    Args:
        timeout: the given timeout, in seconds; None for none.
        error: what is raised if no time is left.
    """
    timeouts = attempt_timeouts.get()
    if timeouts is None or timeouts.left > LONGEST:
        return timeout
    left = timeouts.left
    if left <= 0:
        raise error("the deadline passed")
    left = max(left, SHORTEST)
    return left if timeout is None else min(left, timeout)


class DeadlineBackend:
    """A network backend whose connections obey the deadline of the attempt.

    Args:
        backend: the network backend that does the work.
        core: httpcore or httpcore2, whose errors are raised.
    """

    def __init__(self, backend: Any, core: Any) -> None:
        self._backend = backend
        self._core = core

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        """Return a connection to a host."""
        timeout = _left(timeout, self._core.ConnectTimeout)
        stream = self._backend.connect_tcp(
            host, port, timeout=timeout, local_address=local_address, socket_options=socket_options
        )
        return DeadlineStream(stream, self._core)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> Any:
        """Return a connection to a socket in the file system."""
        timeout = _left(timeout, self._core.ConnectTimeout)
        stream = self._backend.connect_unix_socket(path, timeout=timeout, socket_options=socket_options)
        return DeadlineStream(stream, self._core)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._backend.sleep(seconds)


class DeadlineStream:
    """A connection that obeys the deadline of the attempt."""

    def __init__(self, stream: Any, core: Any) -> None:
        self._stream = stream
        self._core = core

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has arrived, at most so many bytes; nothing if the other side has closed the connection."""
        found: bytes = self._stream.read(max_bytes, timeout=_left(timeout, self._core.ReadTimeout))
        return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes."""
        try:
            self._stream.write(buffer, timeout=_left(timeout, self._core.WriteTimeout))
        except Exception:
            raise
        except BaseException:
            self._stream.close()  # Ctrl-C: what follows on an HTTP/2 connection would be misread, see _http2_writes
            raise

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
        """Return this connection with TLS."""
        timeout = _left(timeout, self._core.ConnectTimeout)
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._core)

    def get_extra_info(self, info: str) -> Any:
        """Return a fact about the connection, such as its socket."""
        return self._stream.get_extra_info(info)
