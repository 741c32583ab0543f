"""A FastAPI gateway with an HTTP and a gRPC service behind it; one deadline holds through all three.

    python docs/examples/gateway.py      needs fastapi, uvicorn, and the extras httpx and grpc; takes a few seconds

The gateway answers for a product by asking both services at once: stock over HTTP, the price over gRPC. A caller says
how long it waits, in the header that Envoy uses. One sees how much of that each tier has left; that a caller with
little time has its answer, a 504, when that time is up, although the price takes longer; and that it has one at once,
a 503, while the circuit to the prices is open.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator
from concurrent import futures
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # otherwise it logs each connection that ends

import grpc
import httpx
import uvicorn
from fastapi import FastAPI

import resilience.grpc
import resilience.httpx
from resilience import CircuitBreaker, Pipeline, Retry, Timeout, remaining
from resilience.asgi import ResilienceMiddleware

GET = "/prices.Prices/Get"
BUDGET = "x-envoy-expected-rq-timeout-ms"
"""The milliseconds that a caller will wait: the gateway believes it, since it is not open to everyone (trust=True)."""

# The service behind, over HTTP. It learns the deadline from the header that the client of the gateway sends.

stock_service = FastAPI()
stock_service.add_middleware(ResilienceMiddleware, trust=True)


@stock_service.get("/stock/{product}")
async def stock(product: str) -> float | None:
    """Tell how much time is left; a real one would know the stock."""
    return remaining()


def price(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Do the same over gRPC, where the deadline travels by itself. For a rare product, it takes long."""
    left = remaining(default=0.0)
    if request == b"rare":
        time.sleep(1.0)
    return f"{left}".encode()


# The gateway.

breaker = CircuitBreaker()
prices = Pipeline(Timeout(10.0), Retry(3), breaker, name="prices")
stocks = Pipeline(Timeout(10.0), Retry(3), CircuitBreaker(), name="stocks")


def gateway(stock_url: str, price_address: str) -> FastAPI:
    """Return the gateway in front of the two services."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        host = stock_url.removeprefix("http://")
        own = httpx.AsyncClient(base_url=stock_url, timeout=None)
        async with (
            resilience.httpx.attach(own, stocks, propagate_to=[host]) as app.state.stock,
            resilience.grpc.aio.insecure_channel(price_address, prices, idempotent=True, propagate=True) as channel,
        ):
            app.state.get_price = channel.unary_unary(GET)
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(ResilienceMiddleware, trust=True)

    @app.get("/products/{product}")
    async def product(product: str) -> dict[str, Any]:
        async def get_price() -> bytes:
            found: bytes = await app.state.get_price(product.encode())
            return found

        left = remaining()
        found, price_left = await asyncio.gather(app.state.stock.get(f"/stock/{product}"), get_price())
        return {"gateway": left, "stock": found.json(), "price": float(price_left)}

    return app


@contextmanager
def http_server(app: FastAPI) -> Generator[str]:
    """Run an app on a thread; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def grpc_server() -> Generator[str]:
    """Run the gRPC service; yields its address."""
    server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[resilience.grpc.server_interceptor(trust=True)])
    get: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(price)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("prices.Prices", {"Get": get}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def ask(url: str, product: str, seconds: float) -> None:
    """Ask the gateway as a caller that waits so many seconds, and print what comes of it."""
    headers = {BUDGET: f"{seconds * 1000:.0f}"}
    begun = time.monotonic()
    answer = httpx.get(f"{url}/products/{product}", headers=headers, timeout=10.0, trust_env=False)
    elapsed = time.monotonic() - begun
    outcome = answer.text.strip()
    if answer.status_code == 200:
        outcome = ", ".join(f"{tier} has {left:.1f} s left" for tier, left in answer.json().items())
    print(f"{product:6} with {seconds:.1f} s: {answer.status_code} after {elapsed:.1f} s: {outcome}", flush=True)


def main() -> None:
    """Run the three services, and ask the gateway."""
    with ExitStack() as stack:
        stock_url = stack.enter_context(http_server(stock_service))
        url = stack.enter_context(http_server(gateway(stock_url, stack.enter_context(grpc_server()))))
        ask(url, "common", 5.0)
        ask(url, "rare", 0.4)
        breaker.isolate()
        ask(url, "common", 5.0)


if __name__ == "__main__":
    main()
