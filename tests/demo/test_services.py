"""The two services, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import grpc
import httpx
import pytest

from resilience._demo.arms import GRPC_OPTIONS
from resilience._demo.gate import HOST
from resilience._demo.script import DAY, GRPC_SERVICE, ORDER, QUOTE, Arm, Phase
from resilience._demo.services import GrpcService, HttpService, Service

pytestmark = pytest.mark.slow

Ask = Callable[[str, bool], Coroutine[Any, Any, str]]
"""Calls a service with the name of a call, and whether it is an order; returns the answer, or why there is none."""


async def http_client(port: int, stack: AsyncExitStack) -> Ask:
    client = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{HOST}:{port}"))

    async def ask(call: str, order: bool) -> str:
        headers = {"x-demo-call": call}
        try:
            response = await (
                client.post("/order", headers=headers) if order else client.get("/quote", headers=headers)
            )
        except httpx.TransportError:
            return "broken"
        return response.text if response.is_success else str(response.status_code)

    return ask


async def grpc_client(port: int, stack: AsyncExitStack) -> Ask:
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"{HOST}:{port}", options=GRPC_OPTIONS))

    async def ask(call: str, order: bool) -> str:
        method: Any = channel.unary_unary(f"/{GRPC_SERVICE}/{ORDER if order else QUOTE}")
        try:
            answer: bytes = await method(call.encode(), timeout=5.0)
        except grpc.aio.AioRpcError as error:
            refused = (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "no worker is free")
            return "503" if refused else "broken"
        return answer.decode() + "\n"

    return ask


CLIENTS: dict[type[Service], Callable[[int, AsyncExitStack], Awaitable[Ask]]] = {
    HttpService: http_client,
    GrpcService: grpc_client,
}


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_service_through_its_day(kind: type[Service]) -> None:
    async def run() -> None:
        service = kind(seed=3)
        ports = await service.start()
        try:
            async with AsyncExitStack() as stack:
                await day(service, await CLIENTS[kind](ports[Arm.BARE], stack))
        finally:
            await service.stop()

    asyncio.run(run())


async def day(service: Service, ask: Ask) -> None:
    assert service.command(["begin"]) == "done"
    assert await ask("bare/1", True) == "101.5\n"

    service.command(["enter", "3"])
    answers = [await ask(f"bare/{number}", True) for number in range(10, 30)]
    assert set(answers) == {"101.5\n", "broken"}

    service.command(["enter", "4"])
    assert [await ask(f"bare/{number}", True) for number in (40, 41)] == ["broken", "broken"]

    service.workers.enter(Phase(name="full", seconds=1.0, workers=1, work=(0.2, 0.2), queue=0))
    service.gate.revive()
    async with asyncio.timeout(5.0):  # a channel takes a moment to connect again
        found = ["broken"]
        for pair in count(50):
            found = [*await asyncio.gather(ask(f"bare/{pair}", False), ask(f"bare/{pair}", False))]
            if found != ["broken", "broken"]:
                break
            await asyncio.sleep(0.05)
    assert sorted(found) == ["101.5\n", "503"]

    dying: asyncio.Task[str] = asyncio.create_task(ask("bare/60", True))
    await asyncio.sleep(0.1)
    service.command(["enter", "4"])
    assert await dying == "broken"

    report = service.command(["report"])[Arm.BARE]
    assert report["orders"] == 21  # also those whose answers were lost
    assert report["doubled"] == 0
    assert report["phases"][DAY[3].name] == 20
    assert report["phases"]["dead"] >= 1


def test_an_unknown_command_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not know the command"):
        HttpService(seed=1).command(["sleep"])
