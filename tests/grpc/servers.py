"""Real gRPC servers on loopback that do what they are told. Requests and responses are plain bytes."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

OPTIONS = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
"""For clients that are to find a restarted server soon.

Not `grpc.min_reconnect_backoff_ms`: that is also the time in which a connection has to be made, and on a busy machine
50 ms may pass before the server's first bytes are there. The call then fails with UNAVAILABLE, and never arrives.
"""


@dataclass
class Seen:
    """A call that arrived."""

    method: str
    request: bytes
    metadata: dict[str, Any]
    time_remaining: float
    did: str = ""
    pairs: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    """The metadata with what it has twice."""


@dataclass
class Abort:
    """An answer that is an error."""

    code: grpc.StatusCode
    details: str = "on purpose"
    pushback: str | None = None
    after: float = 0.0


Behaviour = Callable[[Seen], Any]
"""What a call is answered with: bytes, an `Abort`, or something callable that takes the context and returns either."""


class Service:
    """A server in threads of this process.

    `script` gives the answers to a method, in order, the last of them for ever; a method without any echoes.
    """

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.seen: list[Seen] = []
        self.cancelled: list[Seen] = []
        self._scripts: dict[str, list[Any]] = {}
        self._behaviour = behaviour or self._by_script
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self.port = 0
        self.released = threading.Event()

    @property
    def target(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.port}"

    def script(self, method: str, *answers: Any) -> None:
        """Say what a method answers."""
        self._scripts[method] = list(answers)

    def count(self, method: str) -> int:
        """How many calls of a method arrived."""
        return sum(seen.method == method for seen in self.seen)

    def start(self) -> None:
        """Listen, at the same port as before."""
        server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        handlers: Any = (self,)  # the stubs make a generic class of its base, which it is not
        server.add_generic_rpc_handlers(handlers)
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._server = server

    def stop(self) -> None:
        """End all calls, and refuse connections."""
        server, self._server = self._server, None
        if server is not None:
            server.stop(0).wait()

    def service(self, handler_call_details: Any) -> Any:
        """Return what handles a method; grpc calls it."""
        method = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._handle(method, request, context))

    def _handle(self, method: str, request: bytes, context: Any) -> bytes:
        name = method.rpartition("/")[2]
        pairs = [(key, value) for key, value in context.invocation_metadata()]
        seen = Seen(name, request, dict(pairs), context.time_remaining(), pairs=pairs)
        with self._lock:
            self.seen.append(seen)
        behaviour: Any = self._behaviour(seen)
        answer: Any = behaviour(context) if callable(behaviour) else behaviour
        if isinstance(answer, Abort):
            _abort(context, answer)
        response: bytes = answer
        return response

    def _by_script(self, seen: Seen) -> Any:
        with self._lock:
            answers = self._scripts.get(seen.method, [seen.request])
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def stall(self, seconds: float = 5.0) -> Callable[[Any], bytes]:
        """Answer after `seconds`, or when the call ends, or when `released` is set."""

        def stalled(context: Any) -> bytes:
            last = self.seen[-1]
            context.add_callback(lambda: self.cancelled.append(last))
            hold(context, seconds, self.released)
            return b"late"

        return stalled


def _abort(context: Any, answer: Abort) -> NoReturn:
    if answer.after:
        hold(context, answer.after)
    if answer.pushback is not None:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", answer.pushback),))
    context.abort(answer.code, answer.details)
    raise AssertionError("abort raises")


def hold(context: Any, seconds: float, released: threading.Event | None = None) -> None:
    """Wait, but not longer than the call goes on."""
    until = time.monotonic() + seconds
    while context.is_active() and time.monotonic() < until and not (released is not None and released.is_set()):
        time.sleep(0.005)


def stub_of(channel: Any, method: str) -> Any:
    """Return what calls a method of the server."""
    return channel.unary_unary(f"/shop.Shop/{method}")


def refused_by(port: int) -> str:
    """The words of gRPC for a server on loopback that refuses connections."""
    return f"failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:{port}: Connection refused"


@contextmanager
def serving(behaviour: Behaviour | None = None) -> Iterator[Service]:
    """A server for the length of a block."""
    service = Service(behaviour)
    service.start()
    try:
        yield service
    finally:
        service.released.set()
        service.stop()


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait for something to come true; returns whether it did."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(0.002)
    return True
