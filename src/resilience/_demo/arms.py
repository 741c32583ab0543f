"""The three ways to call a service: bare, with the retry decorator that most programs have, and with `standard`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import tenacity

import resilience.grpc
import resilience.httpx
from resilience import Pipeline, ResilienceError, standard
from resilience._demo.records import Arrival
from resilience._demo.script import (
    ATTEMPTS,
    CALL_TIMEOUTS,
    GRPC_SERVICE,
    ORDER,
    QUOTE,
    Arm,
    ServiceName,
)

GRPC_OPTIONS = (
    # After a lost connection a channel fails calls at once, without trying, for a second and more. All arms get less.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),  # or else the channels of the arms might share a connection
)
Sent = Callable[[], object]
"""Is called for each attempt that is sent."""


@dataclass(frozen=True)
class Timeouts:
    """The timeouts, which are the same in each arm.

    Attributes:
        attempt: the seconds for one attempt.
    """

    attempt: float

    @property
    def call(self) -> float:
        """The seconds for a call with all its attempts."""
        return CALL_TIMEOUTS * self.attempt

    def words(self, arm: Arm) -> str:
        """Return in a line what an arm does."""
        if arm is Arm.BARE:
            return f"one attempt of at most {self.attempt:g} s"
        if arm is Arm.TENACITY:
            decorator = f"@retry(stop=stop_after_attempt({ATTEMPTS}), wait=wait_exponential(multiplier=0.1))"
            return f"{decorator}, each attempt at most {self.attempt:g} s"
        return f"standard(..., timeout={self.call:g}, attempt_timeout={self.attempt:g})"


@dataclass(frozen=True)
class Target:
    """What is called.

    Attributes:
        service: the kind of the service.
        address: its URL or its target.
        method: of a gRPC service of the user: its full method; empty for that of the demo.
        own: whether it is the service of the user.
    """

    service: ServiceName
    address: str
    method: str = ""
    own: bool = False


class Client(ABC):
    """A client of one service, in one of the three ways."""

    def __init__(self, arm: Arm, timeouts: Timeouts) -> None:
        self.arm = arm
        self._call_timeout = timeouts.call
        self._retrying: Callable[[Arrival], Awaitable[Any]] = tenacity.retry(
            stop=tenacity.stop_after_attempt(ATTEMPTS), wait=tenacity.wait_exponential(multiplier=0.1), reraise=True
        )(self._ask)

    async def call(self, arrival: Arrival) -> bool:
        """Call the service; returns whether it answered."""
        try:
            async with asyncio.timeout(self._call_timeout):
                await (self._retrying(arrival) if self.arm is Arm.TENACITY else self._ask(arrival))
        except (httpx.HTTPError, grpc.aio.AioRpcError, ResilienceError, TimeoutError):
            return False
        return True

    @abstractmethod
    async def _ask(self, arrival: Arrival) -> Any:
        """Call once; the pipeline of `standard` makes that one or more attempts."""

    @abstractmethod
    async def close(self) -> None:
        """Close the client."""


class CountedTransport(httpx.AsyncHTTPTransport):
    """The transport of httpx, which counts the attempts that are sent."""

    def __init__(self, sent: Sent) -> None:
        super().__init__()
        self._sent = sent

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Count, and send."""
        self._sent()
        return await super().handle_async_request(request)


class HttpClient(Client):
    """A client of httpx."""

    def __init__(self, arm: Arm, target: Target, timeouts: Timeouts, pipeline: Pipeline[Any], sent: Sent) -> None:
        super().__init__(arm, timeouts)
        self._target = target
        self._client = httpx.AsyncClient(transport=CountedTransport(sent), timeout=timeouts.attempt)
        if arm is Arm.STANDARD:
            resilience.httpx.attach(self._client, pipeline)

    async def _ask(self, arrival: Arrival) -> None:
        if self._target.own:
            response = await self._client.get(self._target.address)
        else:
            headers = {"x-demo-call": f"{self.arm}/{arrival.number}"}
            if arrival.order:
                response = await self._client.post(f"{self._target.address}/order", headers=headers, content=b"buy")
            else:
                response = await self._client.get(f"{self._target.address}/quote", headers=headers)
        response.raise_for_status()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class GrpcClient(Client):
    """A channel of grpc.aio."""

    def __init__(self, arm: Arm, target: Target, timeouts: Timeouts, pipeline: Pipeline[Any], sent: Sent) -> None:
        super().__init__(arm, timeouts)
        self._sent = sent
        self._own = target.own
        quote, order = target.method or f"/{GRPC_SERVICE}/{QUOTE}", f"/{GRPC_SERVICE}/{ORDER}"
        if arm is Arm.STANDARD:
            self._channel = resilience.grpc.aio.insecure_channel(
                target.address, pipeline, idempotent=[quote], unguarded=(), options=GRPC_OPTIONS
            )
        else:
            self._channel = grpc.aio.insecure_channel(target.address, options=GRPC_OPTIONS)
        self._quote: grpc.aio.UnaryUnaryMultiCallable[bytes, Any] = self._channel.unary_unary(
            quote, request_serializer=self._serialized
        )
        self._order: grpc.aio.UnaryUnaryMultiCallable[bytes, Any] = self._channel.unary_unary(
            order, request_serializer=self._serialized
        )
        # `standard` bounds each attempt itself; as a timeout of gRPC this would be that of the whole call.
        self._timeout = None if arm is Arm.STANDARD else timeouts.attempt

    def _serialized(self, request: bytes) -> bytes:
        self._sent()  # the request is serialized once for each attempt
        return request

    async def _ask(self, arrival: Arrival) -> None:
        method = self._order if arrival.order else self._quote
        request = b"" if self._own else f"{self.arm}/{arrival.number}".encode()
        await method(request, timeout=self._timeout)

    async def close(self) -> None:
        """Close the channel; calls that are under way are cancelled."""
        await self._channel.close()


def pipeline_of(service: ServiceName, timeouts: Timeouts) -> Pipeline[Any]:
    """Return the pipeline of the arm `standard`."""
    return standard(service, timeout=timeouts.call, attempt_timeout=timeouts.attempt)


def client_of(arm: Arm, target: Target, timeouts: Timeouts, pipeline: Pipeline[Any], sent: Sent) -> Client:
    """Return the client of an arm.

    Args:
        arm: the arm.
        target: what it calls.
        timeouts: the timeouts.
        pipeline: what the arm `standard` uses.
        sent: is called for each attempt.
    """
    return (HttpClient if target.service is ServiceName.HTTP else GrpcClient)(arm, target, timeouts, pipeline, sent)
