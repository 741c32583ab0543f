"""Calls of `grpc.aio` that are cancelled at any moment: they are done, and give back their permits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, Pipeline, Retry, Timeout, backoff
from tests.grpc.aio.clean import requests_of, run_clean, use
from tests.grpc.helpers import Code, until
from tests.grpc.streaming import ARITIES, Rpc, method_of, shop

pytestmark = pytest.mark.slow

TURNS = 60


def answer(rpc: Rpc, request: Any) -> bytes:
    if not isinstance(request, bytes):
        list(request)
    if ("x-envoy-attempt-count", "1") in rpc.metadata:
        rpc.fail()
    return b"0"


def answers(rpc: Rpc, request: Any) -> Iterator[bytes]:
    yield answer(rpc, request)
    yield b"1"


async def turns(number: int) -> None:
    """Let the loop turn so many times; the later ones take time, since the server has to answer."""
    for _ in range(number):
        await asyncio.sleep(0)
    if number > TURNS // 2:
        await asyncio.sleep((number - TURNS // 2) * 0.0005)


@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("what", ["task", "call"])
def test_a_call_may_be_cancelled_at_any_moment(arity: str, what: str) -> None:
    bulkhead = Bulkhead(5)
    pipeline = Pipeline(Timeout(20.0), Retry(5, wait=backoff.fixed(0.001), budget=None), bulkhead)
    ends: Counter[str] = Counter()

    async def body(channel: Any) -> None:
        for number in range(1, TURNS + 1):
            call = method_of(channel, arity)(requests_of(arity))
            using = asyncio.create_task(use(call, arity))
            await turns(number)
            (using if what == "task" else call).cancel()
            try:
                assert await using == ([b"0", b"1"] if arity.endswith("stream") else [b"0"])
                ends["ok"] += 1
            except asyncio.CancelledError:
                ends["cancelled"] += 1
            except grpc.aio.AioRpcError as error:
                # gRPC has swallowed the cancellation, since the attempt had just failed. It is not repeated then.
                ends[error.code().name] += 1
            # A task that is cancelled before it has got the call of gRPC's interceptors does not cancel it.
            call.cancel()
            async with asyncio.timeout(5.0):
                assert await call.code() in (Code.OK, Code.CANCELLED, Code.UNAVAILABLE)
            assert call.done()
        assert await until(lambda: bulkhead.in_flight == 0)

    with shop({arity: answers if arity.endswith("stream") else answer}) as server:

        def make(target: str) -> grpc.aio.Channel:
            return resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True, propagate=True)

        run_clean(make, server, body)
        assert all(rpc.ended.wait(5.0) for rpc in server.rpcs)
    assert ends["cancelled"] > ends["UNAVAILABLE"]
    assert ends.keys() <= {"ok", "cancelled", "UNAVAILABLE"}
    assert ends.total() == TURNS
