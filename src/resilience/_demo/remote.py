"""A service as the demo sees it: its process, its addresses, and the pipes to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from resilience._demo.gate import HOST
from resilience._demo.script import PHASES, Arm, Phase, ServiceName

COMMAND = (sys.executable, "-m", "resilience._demo.child")
START_TIMEOUT = 30.0
ANSWER_TIMEOUT = 10.0
END_TIMEOUT = 2.0


class ServiceError(Exception):
    """A service process did not start, or has gone."""


class Remote:
    """A running service.

    Attributes:
        name: its name.
        addresses: its address for each arm, as "127.0.0.1:50051".
    """

    def __init__(self, name: ServiceName, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.addresses: dict[Arm, str] = {}
        self._process = process

    async def started(self) -> None:
        """Wait until it accepts connections.

        Raises:
            ServiceError: it has ended, or does not answer.
        """
        ports = await self._answer(START_TIMEOUT)
        self.addresses = {Arm(arm): f"{HOST}:{port}" for arm, port in ports.items()}

    async def begin(self) -> None:
        """Have it count from this moment on."""
        await self._ask("begin")

    async def enter(self, phase: Phase) -> None:
        """Have it enter a phase; returns when it has."""
        await self._ask(f"enter {PHASES.index(phase)}")

    async def report(self) -> dict[str, Any]:
        """Ask what it has seen and done, by arm."""
        report: dict[str, Any] = await self._ask("report")
        return report

    async def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{command}\n".encode())
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):
            raise ServiceError(f"the {self.name} service has gone") from None
        return await self._answer(ANSWER_TIMEOUT)

    async def _answer(self, timeout: float) -> Any:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
                if not line:
                    raise ServiceError(f"the {self.name} service has ended, exit code {await self._process.wait()}")
        except TimeoutError:
            raise ServiceError(f"the {self.name} service did not answer within {timeout:.0f} s") from None
        return json.loads(line)

    async def end(self) -> None:
        """End the process, and wait for that."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def services(seed: int, command: Sequence[str] | None = None) -> AsyncGenerator[list[Remote]]:
    """Start both services, and end them at the end of the block.

    Args:
        seed: of their random numbers.
        command: what starts the process of a service; its name and the seed follow.

    Raises:
        ServiceError: one did not start.
    """
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "NONE")}
    running: list[Remote] = []
    try:
        for name in ServiceName:
            words = (*(command or COMMAND), name, str(seed))
            process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=environment)
            running.append(Remote(name, process))
        for remote in running:
            await remote.started()
        yield running
    finally:
        await asyncio.gather(*(remote.end() for remote in running))
