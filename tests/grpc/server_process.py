"""A real gRPC server that follows scripts, as a program: `python -m tests.grpc.server_process sync|aio`.

What each call does is written in its metadata: `ID` names a logical call of the client, and `PLAN` lists what the first
attempt of it does, the second, and so on, the last for ever; see `Act`. Requests and responses are plain bytes. The
server reads all requests of a call, then sends its messages, "2.0" for the first message of the second attempt.

The program takes commands as lines of JSON on its standard input and answers each by one on its standard output, so
that it can be asked without a channel, whose threads would be taken for those of the channel under test. It exits when
its input ends, as it does when the process that started it dies, and in any case after `LIFETIME` seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Protocol

import grpc

ID = "table-id"
PLAN = "table-plan"
ATTEMPT = "table-attempt"
"""Initial metadata of each call: which attempt of its logical call it is, counted by the server."""
SERVICE = "/table.Table/"
LIFETIME = 600.0
LONGEST = 60.0
"""Seconds that an attempt hangs at most."""
ENDLESS = 1e9


@dataclass(frozen=True)
class Act:
    """What one attempt does.

    Args:
        send: how many messages it sends; None for all: one where the response is unary, otherwise three.
        code: the name of the status that it ends with.
        hang: whether it then waits until it is cancelled.
        every: seconds before each message but the first; before the response, where that is unary.
        pushback: the value of `grpc-retry-pushback-ms`.
        details: a google.rpc.Status, serialized and as hexadecimal digits, for `grpc-status-details-bin`.
    """

    send: int | None = None
    code: str = "OK"
    hang: bool = False
    every: float = 0.0
    pushback: str | None = None
    details: str | None = None


@dataclass
class Attempt:
    """A call that arrived, as the server saw it.

    `ended` is "ok" or "failed" where the server ended it, "cancelled" where it was cut short, None while it goes on.
    """

    number: int
    at: float
    method: str
    metadata: list[list[str]]
    requests: list[str] = field(default_factory=list[str])
    remaining: float | None = None
    ended: str | None = None


class Log:
    """The attempts of each logical call."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._attempts: dict[str, list[Attempt]] = {}
        self._before: dict[str, int] = {}

    def resume(self, before: dict[str, int]) -> None:
        """Go on counting where a server before this one has stopped."""
        with self._mutex:
            self._before.update(before)

    def arrive(self, method: str, metadata: Iterable[tuple[str, Any]]) -> tuple[Attempt, Act]:
        """Write down a call that arrives, and return what it does."""
        pairs = [[key, value] for key, value in metadata if isinstance(value, str)]
        known = dict(pairs)
        plan = json.loads(known[PLAN])
        with self._mutex:
            attempts = self._attempts.setdefault(known[ID], [])
            number = self._before.get(known[ID], 0) + len(attempts) + 1
            attempts.append(Attempt(number, monotonic(), method, pairs))
        return attempts[-1], Act(**plan[min(number, len(plan)) - 1])

    def attempts(self, name: str) -> list[dict[str, Any]]:
        """Return what has arrived."""
        with self._mutex:
            return [asdict(attempt) for attempt in self._attempts.get(name, [])]


class Handlers(grpc.GenericRpcHandler):
    """What handles all methods; the name of a method is that of its arity."""

    def __init__(self, log: Log, respond: Callable[..., Any], respond_once: Callable[..., Any]) -> None:
        self._log = log
        self._respond = respond
        self._respond_once = respond_once

    def service(self, handler_call_details: Any) -> Any:
        """Return what handles a call; grpc asks once for each call, when it arrives."""
        method = handler_call_details.method.removeprefix(SERVICE)
        attempt, act = self._log.arrive(method, handler_call_details.invocation_metadata)
        make: Any = getattr(grpc, f"{method}_rpc_method_handler")
        if method.endswith("stream"):
            return make(partial(self._respond, attempt, act, 3))
        return make(partial(self._respond_once, attempt, act, 1))


def _begin(attempt: Attempt, act: Act, context: Any) -> None:
    """Write down what the context says, and set the trailing metadata."""
    remaining = context.time_remaining()
    attempt.remaining = None if remaining is None or remaining > ENDLESS else remaining
    trailing: list[tuple[str, Any]] = []
    if act.pushback is not None:
        trailing.append(("grpc-retry-pushback-ms", act.pushback))
    if act.details is not None:
        trailing.append(("grpc-status-details-bin", bytes.fromhex(act.details)))
    context.set_trailing_metadata(tuple(trailing))


def _code(act: Act) -> Any:
    return grpc.StatusCode[act.code]


def respond(attempt: Attempt, act: Act, full: int, requests: Any, context: Any) -> Iterator[bytes]:
    """Respond to a call of the synchronous server with messages."""
    over = threading.Event()
    context.add_callback(over.set)
    ended = "cancelled"
    try:
        _begin(attempt, act, context)
        if act.send != 0:
            context.send_initial_metadata(((ATTEMPT, str(attempt.number)),))
        for request in [requests] if isinstance(requests, bytes) else requests:
            attempt.requests.append(request.decode())
        for index in range(full if act.send is None else act.send):
            if act.every and (index or full == 1) and over.wait(act.every):
                return
            yield f"{attempt.number}.{index}".encode()
        if act.hang:
            over.wait(LONGEST)
        elif act.code != "OK":
            ended = "failed"
            context.abort(_code(act), "on purpose")
        else:
            ended = "ok"
    finally:
        attempt.ended = ended


def respond_once(*args: Any) -> bytes:
    """Respond to a call of the synchronous server with one message."""
    return b"".join(respond(*args))


async def arespond(attempt: Attempt, act: Act, full: int, requests: Any, context: Any) -> AsyncIterator[bytes]:
    """Respond to a call of the server of `grpc.aio` with messages."""
    ended = "cancelled"
    try:
        _begin(attempt, act, context)
        if act.send != 0:
            await context.send_initial_metadata(((ATTEMPT, str(attempt.number)),))
        if isinstance(requests, bytes):
            attempt.requests.append(requests.decode())
        else:
            async for request in requests:
                attempt.requests.append(request.decode())
        for index in range(full if act.send is None else act.send):
            if act.every and (index or full == 1):
                await asyncio.sleep(act.every)
            yield f"{attempt.number}.{index}".encode()
        if act.hang:
            await asyncio.sleep(LONGEST)
        elif act.code != "OK":
            ended = "failed"
            await context.abort(_code(act), "on purpose")
        else:
            ended = "ok"
    finally:
        attempt.ended = ended


async def arespond_once(*args: Any) -> bytes:
    """Respond to a call of the server of `grpc.aio` with one message."""
    return b"".join([message async for message in arespond(*args)])


class Servers(Protocol):
    """Servers by port, all of one kind."""

    def listen(self, port: int) -> int:
        """Start a server on a port, 0 for any; returns the port."""
        ...

    def stop(self, port: int, grace: float | None) -> None:
        """Let a server refuse new calls, and cancel what is left after `grace` seconds; do not wait for it."""
        ...


OPTIONS = [("grpc.so_reuseport", 0)]


class SyncServers:
    """Servers of the synchronous API."""

    def __init__(self, log: Log) -> None:
        self._handlers: Any = (Handlers(log, respond, respond_once),)
        self._servers: dict[int, Any] = {}

    def listen(self, port: int) -> int:
        """Start a server."""
        server: Any = grpc.server(ThreadPoolExecutor(64), handlers=self._handlers, options=OPTIONS)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        self._servers[port] = server
        return port

    def stop(self, port: int, grace: float | None) -> None:
        """Stop a server."""
        self._servers.pop(port).stop(grace)


class AioServers:
    """Servers of `grpc.aio`, whose loop runs on a thread of its own."""

    def __init__(self, log: Log) -> None:
        self._handlers: Any = (Handlers(log, arespond, arespond_once),)
        self._servers: dict[int, Any] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def listen(self, port: int) -> int:
        """Start a server."""
        return asyncio.run_coroutine_threadsafe(self._listen(port), self._loop).result(10.0)

    async def _listen(self, port: int) -> int:
        server: Any = grpc.aio.server(handlers=self._handlers, options=OPTIONS)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        self._servers[port] = server
        return port

    def stop(self, port: int, grace: float | None) -> None:
        """Stop a server."""
        asyncio.run_coroutine_threadsafe(self._servers.pop(port).stop(grace), self._loop)


def answer(command: dict[str, Any], log: Log, servers: Servers) -> Any:
    """Follow a command."""
    match command:
        case {"do": "listen", "port": int(port), "before": before}:
            log.resume(before)
            return servers.listen(port)
        case {"do": "stop", "port": int(port), "grace": grace}:
            return servers.stop(port, grace)
        case {"do": "attempts", "id": str(name)}:
            return log.attempts(name)
        case _:
            raise ValueError(f"there is no command {command!r}")


def main(kind: str) -> None:
    """Follow commands until the input ends."""
    end = threading.Timer(LIFETIME, os._exit, (1,))
    end.daemon = True
    end.start()
    log = Log()
    servers: Servers = SyncServers(log) if kind == "sync" else AioServers(log)
    for line in sys.stdin:
        try:
            reply = {"reply": answer(json.loads(line), log, servers)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
