"""Three tiers over gRPC: a client calls service A, which calls service B; deadlines and attempts travel along.

    python docs/examples/grpc_tiers.py      needs the extra grpc; takes about two seconds

B is unavailable at first. Client and A have a Retry of three attempts each, and one sees how many calls reach B: nine
where the tiers know nothing of one another, five where the client tells A which attempt a call is, so that A does not
retry what is a retry already, and three where A also says that it has tried. Then B is well, and one sees how much time
each tier has left of the two seconds that the client gives; and last, what becomes of a call whose time is up.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # otherwise it logs each connection that ends

import grpc

import resilience.grpc
from resilience import Pipeline, Retry, Timeout, backoff, remaining

GET = "/tiers.Service/Get"
Handler: TypeAlias = "Callable[[bytes, grpc.ServicerContext], bytes]"
Get: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"
calls: Counter[str] = Counter()


def retries(name: str) -> Pipeline:
    """Return a pipeline with three attempts."""
    return Pipeline(Timeout(10.0), Retry(3, wait=backoff.none(), budget=None), name=name)


@contextmanager
def serving(handler: Handler) -> Generator[str]:
    """Run a server; yields its address."""
    pool = futures.ThreadPoolExecutor(8)
    server = grpc.server(pool, interceptors=[resilience.grpc.server_interceptor(trust=True)])
    get: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tiers.Service", {"Get": get}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
        pool.shutdown()


class ServiceB:
    """The last tier."""

    available = False
    seconds = 0.0

    def get(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer how much time is left, or that the service is not available."""
        calls["B"] += 1
        if not self.available:
            context.abort(grpc.StatusCode.UNAVAILABLE, "B is not available")
        left = remaining()
        time.sleep(self.seconds)
        return f"B has {left:.1f} s left".encode() if left is not None else b"B has no deadline"


class ServiceA:
    """The tier in the middle: it calls B."""

    tells_that_it_tried = False
    seconds = 0.0

    def __init__(self, channel: grpc.Channel) -> None:
        self.get_from_b: Get = channel.unary_unary(GET)

    def get(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Ask B, through a pipeline with retries."""
        calls["A"] += 1
        left = remaining(default=float("inf"))
        time.sleep(self.seconds)
        try:
            answer = self.get_from_b(request)
        except grpc.RpcError as error:
            if self.tells_that_it_tried:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", "-1"),))
            context.abort(error.code(), f"A has no answer: {error.details()}")
        return f"A has {left:.1f} s left, ".encode() + answer


def ask(get: Get, title: str, timeout: float = 10.0) -> None:
    """Call A, and print what comes of it."""
    calls.clear()
    begun = time.monotonic()
    try:
        outcome = get(b"", timeout=timeout).decode()
    except grpc.RpcError as error:
        outcome = error.code().name
    elapsed = time.monotonic() - begun
    print(f"{title:44} A {calls['A']}, B {calls['B']} calls, {elapsed:3.1f} s: {outcome}", flush=True)


def main() -> None:
    """Run the tiers, and make the calls."""
    b = ServiceB()
    with ExitStack() as stack:
        b_address = stack.enter_context(serving(b.get))

        def channel(address: str, name: str, *, tell: bool) -> grpc.Channel:
            made = resilience.grpc.insecure_channel(address, retries(name), idempotent=True, propagate=tell)
            return stack.enter_context(made)

        a = ServiceA(channel(b_address, "A to B", tell=True))
        a_address = stack.enter_context(serving(a.get))
        silent: Get = channel(a_address, "silent client to A", tell=False).unary_unary(GET)
        get: Get = channel(a_address, "client to A", tell=True).unary_unary(GET)

        ask(silent, "B is down; the client tells nothing:")
        ask(get, "the client tells its attempts:")
        a.tells_that_it_tried = True
        ask(get, "A says that it has tried:")
        b.available = True
        a.seconds = 0.2
        ask(get, "B is well; the client gives 2 s:", timeout=2.0)
        b.seconds = 0.6
        ask(get, "B takes 0.6 s; the client gives 0.4 s:", timeout=0.4)


if __name__ == "__main__":
    main()
