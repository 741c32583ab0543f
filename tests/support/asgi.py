"""ASGI apps, and the server's side of a request, made by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel

from resilience.asgi import ResilienceMiddleware

App: TypeAlias = "Callable[[Any, Any, Any], Awaitable[None]]"
TIME = "x-envoy-expected-rq-timeout-ms"
COUNT = "x-envoy-attempt-count"


class Exchange:
    """One request, and the response that the server was given to send.

    Args:
        headers: those of the request.
        body: the parts of its body.
    """

    def __init__(self, *headers: tuple[str, str], body: tuple[bytes, ...] = (b"",)) -> None:
        self.scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers]}
        self.incoming: list[Any] = [{"type": "http.request", "body": part, "more_body": True} for part in body]
        self.incoming[-1]["more_body"] = False
        self.taken = 0
        self.gone = anyio.Event()
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        """Return the parts of the body, and a disconnect once the client has gone or the response is complete."""
        await anyio.lowlevel.checkpoint()
        if self.taken < len(self.incoming):
            self.taken += 1
            return self.incoming[self.taken - 1]
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.gone.set()

    async def through(self, app: App, **settings: Any) -> Exchange:
        """Pass the request to an app within the middleware."""
        await ResilienceMiddleware(app, **settings)(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


async def answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


def answering(handler: Callable[[], Any]) -> App:
    """Return an app that calls a handler, plain or async, and then answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        result = handler()
        if hasattr(result, "__await__"):
            await result
        await answer(send)

    return app


def raising(error: BaseException) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    return app
