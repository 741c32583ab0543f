"""The day of the demo in virtual time: its workers and its load, and clients that are functions in this process.

`python3 -m tests.support.demo_day` prints what docs/demo.md says of it. There are no connections here: a reset or a
refusal takes no time.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from resilience import CircuitBreaker, Pipeline, ResilienceError, standard
from resilience._demo.arms import Client, Timeouts
from resilience._demo.load import arrivals, drive
from resilience._demo.records import Arrival, Records
from resilience._demo.script import DAY, RATE, Arm, Phase, ServiceName, Span, spans
from resilience._demo.workers import Workers
from resilience._util.clock import clock
from resilience.testing import seeded, virtual_time

NUMBERS = count()


@dataclass
class Simulated:
    """What came out for one arm: calls, those served by phase, requests to the sick service, and orders done twice."""

    calls: int = 0
    served: Counter[str] = field(default_factory=Counter[str])
    load: int = 0
    doubled: int = 0


class Service:
    """A service of the demo without its connections."""

    def __init__(self, seed: int) -> None:
        self.workers = Workers("http", seed, clock.monotonic)
        self.phase = DAY[0]
        self._work: set[asyncio.Future[None]] = set()

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        self.workers.enter(phase)
        if not phase.alive:
            for work in self._work:
                if not work.done():
                    work.set_exception(ConnectionResetError("died"))

    async def ask(self, arm: Arm, arrival: Arrival) -> None:
        """Answer, or raise what the client of a service that does so would raise."""
        if not self.phase.alive:
            self.workers.count(arm)
            raise ConnectionResetError("dead")
        verdict = self.workers.arrive(arm, arrival.number)
        if verdict.refused:
            raise ConnectionError("503")
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def finish() -> None:  # also if the client has gone
            done = self.workers.finish(arm, arrival.number, verdict, order=arrival.order)
            if done and not answer.done():
                answer.set_exception(ConnectionResetError("reset")) if verdict.reset else answer.set_result(None)

        asyncio.get_running_loop().call_later(verdict.wait, finish)
        self._work.add(answer)
        try:
            await answer
        finally:
            self._work.discard(answer)


class SimulatedClient(Client):
    """A client in one of the three ways."""

    def __init__(self, arm: Arm, timeouts: Timeouts, service: Service, pipeline: Pipeline[Any]) -> None:
        super().__init__(arm, timeouts)
        self._attempt_timeout = timeouts.attempt
        self._service = service
        self._guarded: dict[bool, Callable[..., Any]] = {
            order: pipeline.bind(idempotent=not order)(service.ask) for order in (False, True)
        }

    async def _ask(self, arrival: Arrival) -> None:
        try:
            if self.arm is Arm.STANDARD:
                await self._guarded[arrival.order](self.arm, arrival)
            else:
                async with asyncio.timeout(self._attempt_timeout):
                    await self._service.ask(self.arm, arrival)
        except (ConnectionError, ResilienceError) as error:
            raise TimeoutError from error  # one of the errors of clients that the demo expects

    async def close(self) -> None:
        """Nothing is open."""


def simulate(day: Sequence[Span], seed: int, attempt: float = 1.0, **breaker: Any) -> dict[Arm, Simulated]:
    """Run the day once for each arm, with one service.

    Args:
        day: the phases.
        seed: as that of the demo.
        attempt: the timeout of an attempt, in seconds.
        breaker: settings of the breaker of `standard` that are changed.
    """
    return {arm: _simulated(day, seed, Timeouts(attempt), arm, breaker) for arm in Arm}


def _simulated(day: Sequence[Span], seed: int, timeouts: Timeouts, arm: Arm, breaker: dict[str, Any]) -> Simulated:
    pipeline = standard(f"simulated {next(NUMBERS)}", timeout=timeouts.call, attempt_timeout=timeouts.attempt)
    if breaker:
        pipeline.get(CircuitBreaker).update(**breaker)
    found = Simulated()

    async def run() -> None:
        service = Service(seed)
        records = Records(began=clock.monotonic())
        for span in day:
            asyncio.get_running_loop().call_later(span.start, service.enter, span.phase)
        calls = arrivals(f"http {seed}", RATE, day[-1].end)
        client = SimulatedClient(arm, timeouts, service, pipeline)
        await drive(ServiceName.HTTP, {arm: client}, calls, day, records, lambda _: None)
        report = service.workers.report()[arm]
        sick = {span.phase.name for span in day if span.phase.sick}
        found.calls = len(records.calls)
        found.served.update(call.phase for call in records.calls if call.served)
        found.load = sum(number for phase, number in report["phases"].items() if phase in sick)
        found.doubled = report["doubled"]

    with virtual_time(), seeded(seed):
        asyncio.run(run())
    gc.collect()
    return found


def only(name: str, seconds: float) -> list[Span]:
    """Return a day with one sick phase, and five healthy seconds before and after it."""
    phase = next(phase for phase in DAY if phase.name == name)
    return spans([replace(DAY[0], seconds=5.0), replace(phase, seconds=seconds), replace(DAY[-1], seconds=5.0)])


def shortened(seconds: float) -> list[Span]:
    """Return the day with a brownout of another length."""
    return spans([replace(phase, seconds=seconds) if phase.name == "brownout" else phase for phase in DAY])


def show(words: str, day: Sequence[Span], seeds: Sequence[int], **breaker: Any) -> None:
    """Print the sums over several seeds."""
    sums = {arm: [0, 0, 0] for arm in Arm}
    for seed in seeds:
        for arm, one in simulate(day, seed, **breaker).items():
            for at, number in enumerate((one.calls, sum(one.served.values()), one.load)):
                sums[arm][at] += number
    print(
        f"{words}: {'; '.join(f'{arm} served {s} of {calls}, load {load}' for arm, (calls, s, load) in sums.items())}"
    )


if __name__ == "__main__":
    SEEDS = range(1, 6)
    show("the day", spans(DAY), SEEDS)
    for length in (4.0, 6.0, 8.0):
        show(f"with a brownout of {length:g} s", shortened(length), SEEDS)
    for phase_name in ("503s", "brownout"):
        show(f"15 s of {phase_name}", only(phase_name, 15.0), SEEDS)
        show(f"15 s of {phase_name}, consecutive_failures=10", only(phase_name, 15.0), SEEDS, consecutive_failures=10)
