"""The HTTP service: a plain ASGI application under uvicorn."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any

import uvicorn

from docs.examples.bad_minute.process import Service

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # for SO_LINGER


class HttpService(Service):
    """Serves from a thread with an event loop; the main thread obeys the demo."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self._serving: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def listen(self) -> None:
        self._within_loop(self._listen())

    def die(self) -> None:
        self._within_loop(self._die())

    def _within_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        if self._serving is not None:
            await self._serving  # it takes its time to end
        config = uvicorn.Config(
            self._app, interface="asgi3", http="h11", ws="none", lifespan="off", log_level="critical", access_log=False
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self.port.listener()]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.01)

    async def _die(self) -> None:
        for listener in self._server.servers:
            listener.close()
        for connection in list(self._server.server_state.connections):
            _reset(connection.transport)
        self._server.should_exit = self._server.force_exit = True

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        attempt = dict(scope["headers"])[b"x-attempt"].decode()
        verdict = self.desk.arrive(attempt)
        if verdict.busy:
            await _answer(send, 503, b"no worker is free\n")
            return
        server = self._server
        await asyncio.sleep(verdict.wait)
        if server.should_exit:
            return  # died meanwhile
        self.desk.done(attempt)
        if verdict.reset:
            for connection in server.server_state.connections:
                if getattr(connection, "client", None) == scope["client"]:
                    _reset(connection.transport)
                    break
        else:
            await _answer(send, 200, b"101.5\n")


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _reset(transport: asyncio.BaseTransport) -> None:
    """Close a connection with a TCP reset."""
    assert isinstance(transport, asyncio.Transport)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    transport.abort()


if __name__ == "__main__":
    HttpService().run()
