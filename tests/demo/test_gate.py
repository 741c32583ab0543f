"""The door of a service, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from resilience._demo.gate import HOST, Gate
from resilience._demo.script import Arm

pytestmark = pytest.mark.slow


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that says the port from which it sees the client come, and then repeats what it reads."""
    with contextlib.suppress(ConnectionError):
        writer.write(f"{writer.get_extra_info('peername')[1]}\n".encode())
        while line := await reader.readline():
            if line == b"bye\n":
                break
            writer.write(line)
    writer.close()


class Door:
    """A gate before an echo server, with the arms of the connections that it has refused."""

    def __init__(self) -> None:
        self.refused: list[Arm] = []
        self.gate = Gate(self.refused.append)

    async def connect(self, arm: Arm = Arm.BARE) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self.gate.ports[arm])


@contextlib.asynccontextmanager
async def door() -> AsyncGenerator[Door]:
    server = await asyncio.start_server(echo, HOST, 0)
    made = Door()
    await made.gate.open(server.sockets[0].getsockname()[1])
    try:
        yield made
    finally:
        made.gate.close()
        server.close()
        await asyncio.sleep(0.02)  # the resets arrive


async def ends_with_a_reset(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(5.0):
            return await reader.read() == b"never"
    except ConnectionResetError:
        return True


def test_each_arm_has_a_port_and_is_relayed_both_ways() -> None:
    async def run() -> None:
        async with door() as made:
            assert len(set(made.gate.ports.values())) == len(Arm)
            reader, writer = await made.connect()
            writer.write(b"early\n")  # before the relay is connected
            await reader.readline()
            assert await reader.readline() == b"early\n"
            writer.write(b"later\n")
            assert await reader.readline() == b"later\n"
            writer.write(b"bye\n")
            assert await reader.read() == b""
            writer.close()

    asyncio.run(run())


def test_one_connection_is_reset_by_the_port_that_the_server_sees() -> None:
    async def run() -> None:
        async with door() as made:
            first, _ = await made.connect()
            second, writer = await made.connect()
            made.gate.reset(int(await first.readline()))
            assert await ends_with_a_reset(first)
            await second.readline()
            writer.write(b"still here\n")
            assert await second.readline() == b"still here\n"

    asyncio.run(run())


def test_a_dead_service_resets_and_counts_by_arm_until_it_is_revived() -> None:
    async def run() -> None:
        async with door() as made:
            reader, _ = await made.connect()
            await reader.readline()
            made.gate.die()
            assert await ends_with_a_reset(reader)
            for arm in (Arm.TENACITY, Arm.TENACITY, Arm.STANDARD):
                with contextlib.suppress(ConnectionError):
                    late, _ = await made.connect(arm)
                    assert await ends_with_a_reset(late)
            made.gate.revive()
            again, _ = await made.connect()
            assert (await again.readline()).strip().isdigit()
            assert made.refused == [Arm.TENACITY, Arm.TENACITY, Arm.STANDARD]

    asyncio.run(run())


def test_without_a_server_the_connection_is_reset() -> None:
    async def run() -> None:
        async with door() as made:
            gate = Gate(made.refused.append)
            listener = await asyncio.start_server(echo, HOST, 0)
            port = listener.sockets[0].getsockname()[1]
            listener.close()
            await listener.wait_closed()
            await gate.open(port)
            try:
                with contextlib.suppress(ConnectionError):
                    reader, _ = await asyncio.open_connection(HOST, gate.ports[Arm.BARE])
                    assert await ends_with_a_reset(reader)
            finally:
                gate.close()

    asyncio.run(run())
