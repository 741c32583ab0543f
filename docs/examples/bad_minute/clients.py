"""The clients of both services: one guarded by a pipeline, one with the retry loop that everybody writes first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
import httpx

import resilience.grpc
import resilience.httpx
from docs.examples.bad_minute.ledger import CURRENT, Call, Fate, Outcome
from docs.examples.bad_minute.script import (
    ATTEMPT_TIMEOUT,
    ATTEMPTS,
    CALL_TIMEOUT,
    GET,
    GRPC_SERVICE,
    ORDER,
)
from resilience import (
    Bulkhead,
    CircuitBreaker,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
)

PLACES, QUEUE = 30, 10
NAIVE_WAIT = 0.1
GRPC_OPTIONS = (
    # After a refused connection, a channel does not even try for a second or more, and fails what is called meanwhile.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),  # or else both clients' channels might share a connection
)
UnaryCall: TypeAlias = "Callable[..., bytes]"


POLICIES = (
    f"Timeout({CALL_TIMEOUT}), Retry({ATTEMPTS}), Bulkhead({PLACES}, queue={QUEUE}),"
    f" CircuitBreaker(), Timeout({ATTEMPT_TIMEOUT})"
)


def pipeline(name: str) -> Pipeline[Any]:
    """Return what guards the calls to one service."""
    return Pipeline(
        Timeout(CALL_TIMEOUT),
        Retry(ATTEMPTS),
        Bulkhead(PLACES, queue=QUEUE),
        CircuitBreaker(),
        Timeout(ATTEMPT_TIMEOUT),
        name=name,
    )


class Wire(httpx.AsyncHTTPTransport):
    """The innermost transport: notes each attempt that goes out, gives it a name, and notes what became of it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        attempt = CURRENT.get().send()
        request.headers["x-attempt"] = attempt.name
        try:
            response = await super().handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            attempt.settle(Fate.REFUSED)
            raise
        except (httpx.TimeoutException, asyncio.CancelledError):
            attempt.settle(Fate.CUT)
            raise
        except BaseException:
            attempt.settle(Fate.BROKEN)
            raise
        attempt.settle(Fate.ANSWERED)
        return response


class HttpClients:
    """The HTTP clients, on asyncio."""

    def __init__(self, address: str, guard: Pipeline[Any]) -> None:
        url = f"http://{address}"
        self._guarded = resilience.httpx.attach(httpx.AsyncClient(base_url=url, transport=Wire()), guard)
        self._naive = httpx.AsyncClient(base_url=url, transport=Wire(), timeout=ATTEMPT_TIMEOUT)

    async def guarded(self, call: Call) -> None:
        """Call once, through the pipeline."""
        try:
            response = await self._request(self._guarded, call)
        except RejectedError:
            call.end(Outcome.REJECTED if not call.attempts else Outcome.FAILED)
        except httpx.HTTPError:
            call.end(Outcome.FAILED)
        else:
            call.end(Outcome.OK if response.is_success else Outcome.FAILED)

    async def naive(self, call: Call) -> None:
        """Call until it works, three times at most."""
        for left in reversed(range(ATTEMPTS)):
            try:
                response = await self._request(self._naive, call)
            except httpx.HTTPError:
                pass
            else:
                if response.is_success:
                    return call.end(Outcome.OK)
            if left:
                await asyncio.sleep(NAIVE_WAIT)
        return call.end(Outcome.FAILED)

    @staticmethod
    async def _request(client: httpx.AsyncClient, call: Call) -> httpx.Response:
        return await (client.get("/quote") if call.safe else client.post("/order", content=b"buy"))

    async def close(self) -> None:
        """Close both."""
        await self._guarded.aclose()
        await self._naive.aclose()


class GrpcClients:
    """The gRPC clients, for threads."""

    def __init__(self, address: str, guard: Pipeline[Any]) -> None:
        get = f"/{GRPC_SERVICE}/{GET}"
        self._channels = (
            resilience.grpc.insecure_channel(address, guard, idempotent=[get], options=GRPC_OPTIONS),
            grpc.insecure_channel(address, options=GRPC_OPTIONS),
        )
        (self._guarded, self._naive) = (
            {safe: self._method(channel, method) for safe, method in ((True, GET), (False, ORDER))}
            for channel in self._channels
        )

    @staticmethod
    def _method(channel: grpc.Channel, method: str) -> UnaryCall:
        # The request is serialised once for each attempt: that is where it gets its name.
        call: UnaryCall = channel.unary_unary(
            f"/{GRPC_SERVICE}/{method}", request_serializer=_name_of_attempt, response_deserializer=bytes
        )
        return call

    def guarded(self, call: Call) -> None:
        """Call once, through the pipeline."""
        try:
            self._guarded[call.safe](call)
        except RejectedError:
            call.end(Outcome.REJECTED if not call.attempts else Outcome.FAILED)
        except grpc.RpcError as error:
            call.settle(_fate(error))
            call.end(Outcome.FAILED)
        else:
            call.settle(Fate.ANSWERED)
            call.end(Outcome.OK)

    def naive(self, call: Call) -> None:
        """Call until it works, three times at most."""
        for left in reversed(range(ATTEMPTS)):
            try:
                self._naive[call.safe](call, timeout=ATTEMPT_TIMEOUT)
            except grpc.RpcError as error:
                call.settle(_fate(error))
            else:
                call.settle(Fate.ANSWERED)
                return call.end(Outcome.OK)
            if left:
                time.sleep(NAIVE_WAIT)
        return call.end(Outcome.FAILED)

    def close(self) -> None:
        """Close both; calls that are under way are cancelled."""
        for channel in self._channels:
            channel.close()


def _name_of_attempt(call: Call) -> bytes:
    return call.send().name.encode()


def _fate(error: grpc.RpcError) -> Fate:
    if isinstance(error, DeadlineExceededError):
        return Fate.CUT
    assert isinstance(error, grpc.Call)
    details = error.details() or ""
    if details.startswith("service: "):
        return Fate.ANSWERED
    if "failed to connect to all addresses" in details.lower():
        return Fate.REFUSED
    return Fate.CUT if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else Fate.BROKEN
