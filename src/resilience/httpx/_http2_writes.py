"""Writes of HTTP/2 connections that are not interrupted half-way, for async clients.

Several requests share an HTTP/2 connection. httpcore takes the frames of a request from the HTTP/2 state and writes
them, and where that is cancelled, they are lost, or sent in part. What follows on the connection is misread then: the
server's table of header fields (HPACK, RFC 7541) is not that of the client any more, so that a later request may arrive
with the path or the headers of another one. httpcore does not notice, and uses the connection again.

So the writes of the connections of a pool that uses HTTP/2 are shielded from cancellation, for a bounded time; and a
connection with a write that was interrupted all the same, as `Task.cancel` can, is closed. There is no public way to do
that, so this module uses the private attributes that `_network` and `_http2_repair` use, too.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from typing import Any, Final

from resilience import _runtime
from resilience.httpx._http2_repair import http2_connections
from resilience.httpx._network import BACKEND

GRACE: Final = 0.25
"""For how many seconds after a cancellation or a deadline a write goes on, and for how many a connection is closed."""


def protect_writes(pool: Any) -> None:
    """Have the writes of connections that a pool of an async client makes from now on end, or end the connection."""
    backend = getattr(pool, BACKEND, None)
    if backend is not None and not isinstance(backend, ShieldingBackend):
        core = importlib.import_module(type(pool).__module__.partition(".")[0])
        setattr(pool, BACKEND, ShieldingBackend(backend, core))


async def close_broken(pool: Any) -> None:
    """Close the connections of a pool of which a write was interrupted, so that no request uses them again."""
    for connection in list(pool._connections):
        for http2 in http2_connections(connection):
            if getattr(http2._network_stream, "is_broken", False):
                with contextlib.suppress(Exception):
                    await _runtime.shielded(connection.aclose())


class ShieldingBackend:
    """A network backend whose connections are not left with a part of a write.

    Args:
        backend: the network backend that does the work.
        core: httpcore or httpcore2, whose errors are raised.
    """

    def __init__(self, backend: Any, core: Any) -> None:
        self._backend = backend
        self._core = core

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        """Return a connection to a host."""
        stream = await self._backend.connect_tcp(
            host, port, timeout=timeout, local_address=local_address, socket_options=socket_options
        )
        return ShieldingStream(stream, self._core)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        """Return a connection to a socket in the file system."""
        stream = await self._backend.connect_unix_socket(path, timeout=timeout, socket_options=socket_options)
        return ShieldingStream(stream, self._core)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._backend.sleep(seconds)


class ShieldingStream:
    """A connection whose writes end, or end the connection.

    Attributes:
        is_broken: whether a write was interrupted.
    """

    def __init__(self, stream: Any, core: Any) -> None:
        self._stream = stream
        self._core = core
        self.is_broken = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has arrived, at most so many bytes; nothing if the other side has closed the connection."""
        found: bytes = await self._stream.read(max_bytes, timeout=timeout)
        return found

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes. Without a timeout, which would bound it, the write is not shielded."""
        if self.is_broken:
            raise self._core.WriteError("an earlier write of this connection was interrupted")
        ended = False
        try:
            sending = self._stream.write(buffer, timeout=timeout)
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
        return ShieldingStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._core)

    def get_extra_info(self, info: str) -> Any:
        """Return a fact about the connection, such as its socket."""
        return self._stream.get_extra_info(info)
