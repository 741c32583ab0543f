"""What is left of calls of `grpc.aio` when they have ended: no cycles, no tasks, and no errors that are told later."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import resilience.grpc
from resilience import Bulkhead, Pipeline, Retry, Timeout
from tests.grpc.aio.clean import requests_of, run_clean, use
from tests.grpc.aio.test_calls import HANGS
from tests.grpc.streaming import ARITIES, Rpc, Shop, method_of, shop
from tests.grpc.test_stream_ends import ANSWERS, garbage_of_ours
from tests.support.garbage import no_collection

pytestmark = pytest.mark.slow
arities = pytest.mark.parametrize("arity", ARITIES)


def channel_of(target: str) -> Any:
    pipeline = Pipeline(Timeout(20.0, idle=5.0), Retry(), Bulkhead(5), Timeout(5.0))
    return resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True)


@arities
def test_an_rpc_that_has_ended_leaves_no_cycle(arity: str) -> None:
    async def body(channel: Any) -> None:
        await use(method_of(channel, arity)(requests_of(arity)), arity)
        with no_collection():
            for _ in range(20):
                await use(method_of(channel, arity)(requests_of(arity)), arity)
            await asyncio.sleep(0.05)
            assert garbage_of_ours() == []

    with shop(ANSWERS) as server:
        run_clean(channel_of, server, body)


@arities
@pytest.mark.parametrize("phase", ["not begun", "begun"])
def test_a_loop_may_end_while_rpcs_run(arity: str, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    async def main(server: Shop) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        channel = channel_of(server.target)  # grpc closes a channel that is dropped
        call = method_of(channel, arity)(requests_of(arity))
        if phase == "begun":
            await asyncio.to_thread(server.seen)
        assert not call.done()

    with shop(HANGS) as server:
        asyncio.run(main(server))
        gc.collect()
    assert told == []


@arities
def test_a_failed_rpc_that_is_never_awaited_tells_nobody(arity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    def fail(rpc: Rpc, request: Any) -> Any:
        rpc.fail()

    def failing(rpc: Rpc, request: Any) -> Iterator[bytes]:
        yield fail(rpc, request)

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)(requests_of(arity))
        await call.code()
        assert call.done()

    with shop({arity: failing if arity.endswith("stream") else fail}) as server:
        run_clean(channel_of, server, body)
        gc.collect()
    assert told == []
