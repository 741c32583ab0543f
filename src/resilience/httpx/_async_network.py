"""A network backend for the pools of async clients: it notes how far an attempt has come, and protects HTTP/2.

An attempt that is cut says whether anything was sent for it, and whether it still waited for a connection of the pool.
Over HTTP/1 the network notes that; httpcore's `trace` extension would tell, for the price of ten calls per request. For
HTTP/2 see `_http2_trace`.

Several requests share an HTTP/2 connection. httpcore takes the frames of a request from the HTTP/2 state and writes
them, and where that is cancelled, they are lost, or sent in part. What follows on the connection is misread then: the
server's table of header fields (HPACK, RFC 7541) is not that of the client any more, so that a later request may arrive
with the path or the headers of another one. httpcore does not notice, and uses the connection again. So the writes of
HTTP/2 connections are shielded from cancellation, for a bounded time; and a connection with a write that was
interrupted all the same, as `Task.cancel` can, is closed.

There is no public way to do that later on; see `_privates`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from resilience import _runtime
from resilience.httpx._deadline import Timeouts
from resilience.httpx._network import (
    attempt_timeouts,
    note_connecting,
    note_made,
    note_writing,
    unowned,
)
from resilience.httpx._privates import connections_in, http2_connections, http2_state_of

GRACE: Final = 0.25
"""For how many seconds after a cancellation or a deadline a write goes on, and for how many a connection is closed."""


async def aclose_unowned(pool: Any, timeouts: Timeouts) -> None:
    """Close what `unowned` returns."""
    for stream in unowned(pool, timeouts):
        with contextlib.suppress(Exception):
            await _runtime.outlasting(GRACE, stream.aclose())


async def close_broken(pool: Any) -> None:
    """Close the connections of a pool of which a write was interrupted, so that no request uses them again."""
    for connection in connections_in(pool):
        for http2 in http2_connections(connection):
            if getattr(http2_state_of(http2)[2], "is_broken", False):
                with contextlib.suppress(Exception):
                    await _runtime.shielded(connection.aclose())


class AsyncObservingBackend:
    """A network backend whose connections note how far attempts come.

    Args:
        backend: the network backend that does the work.
        core: httpcore or httpcore2, whose errors are raised.
        http2: whether a connection may be shared, so that its writes are shielded from cancellation.
        is_complete: whether all connections of the pool are of this backend.
    """

    def __init__(self, backend: Any, core: Any, *, http2: bool, is_complete: bool) -> None:
        self._backend = backend
        self._core = core
        self._shields = http2
        self.is_complete = is_complete

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        """Return a connection to a host."""
        note_connecting()
        stream = await self._backend.connect_tcp(
            host, port, timeout=timeout, local_address=local_address, socket_options=socket_options
        )
        return note_made(AsyncObservingStream(stream, self._core, shields=self._shields))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        """Return a connection to a socket in the file system."""
        note_connecting()
        stream = await self._backend.connect_unix_socket(path, timeout=timeout, socket_options=socket_options)
        return note_made(AsyncObservingStream(stream, self._core, shields=self._shields))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._backend.sleep(seconds)


class AsyncObservingStream:
    """A connection that notes how far attempts come, and whose shielded writes end, or end the connection.

    Args:
        stream: the connection of httpcore.
        core: httpcore or httpcore2, whose errors are raised.
        shields: whether writes are shielded from cancellation.

    Attributes:
        is_broken: whether a shielded write was interrupted.
    """

    def __init__(self, stream: Any, core: Any, *, shields: bool) -> None:
        self._stream = stream
        self._core = core
        self._shields = shields
        self.read = stream.read
        """Returns what has arrived, at most so many bytes; nothing if the other side has closed the connection."""
        self.get_extra_info = stream.get_extra_info
        """Returns a fact about the connection, such as its socket."""
        self.is_broken = False

    def write(self, buffer: bytes, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Return a coroutine that sends bytes."""
        if buffer and self._shields:  # it may be of other requests, too, so that it says nothing about this attempt
            return self._write_all(buffer, timeout)
        timeouts = attempt_timeouts.get()
        if buffer and timeouts is not None and not timeouts.has_sent:
            note_writing(timeouts, buffer)
        writing: Coroutine[Any, Any, None] = self._stream.write(buffer, timeout)
        return writing

    async def _write_all(self, buffer: bytes, timeout: float | None) -> None:
        """Send bytes, also after a cancellation. Without a timeout, which would bound it, nothing is shielded."""
        if self.is_broken:
            raise self._core.WriteError("an earlier write of this connection was interrupted")
        ended = False
        try:
            sending = self._stream.write(buffer, timeout)
            if timeout is None:
                await sending
                ended = True
            else:
                ended = await _runtime.outlasting(GRACE, sending)
        except Exception:
            ended = True  # httpcore does not use the connection any more
            raise
        except GeneratorExit:  # a dropped coroutine cannot wait for anything
            self.is_broken = ended = True
            raise
        finally:
            if not ended:
                self.is_broken = True
                with contextlib.suppress(Exception):
                    await _runtime.outlasting(GRACE, self._stream.aclose())
        if not ended:
            await _runtime.checkpoint()  # raises the cancellation
            raise self._core.WriteTimeout("the write was interrupted at its deadline")

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Return this connection with TLS."""
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return note_made(AsyncObservingStream(stream, self._core, shields=self._shields), instead_of=self)
