"""One run of the demo: the services go through their day under load, and everything is noted."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from resilience import Pipeline
from resilience._demo.arms import Client, Target, Timeouts, client_of, pipeline_of
from resilience._demo.load import arrivals, drive
from resilience._demo.records import BreakerRecord, CallRecord, Records
from resilience._demo.remote import Remote, services
from resilience._demo.script import ATTEMPT_TIMEOUT, ORDER_SHARE, RATE, Arm, Phase, ServiceName, Span, spans
from resilience._util.clock import clock
from resilience.events import BreakerChanged

SETTLE = 0.3
"""The seconds between the start of the services and that of the load."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run.

    Attributes:
        day: the phases.
        seed: of all random numbers.
        rate: the calls per second that each arm makes of each service.
        arms: the arms.
        timeouts: the timeouts of all arms.
        own: services of the user, in place of those of the demo.
    """

    day: Sequence[Span]
    seed: int = 1
    rate: float = RATE
    arms: Sequence[Arm] = tuple(Arm)
    timeouts: Timeouts = field(default_factory=partial(Timeouts, ATTEMPT_TIMEOUT))
    own: Sequence[Target] = ()

    @property
    def seconds(self) -> float:
        """How long the load lasts."""
        return self.day[-1].end

    @property
    def services(self) -> Sequence[ServiceName]:
        """The services that are called."""
        return [target.service for target in self.own] or list(ServiceName)


def own_day(seconds: float) -> list[Span]:
    """Return the phases for a service of the user, of which there is only one."""
    return spans([Phase(name="your service", seconds=seconds, sick=False, note="as it is")])


@dataclass
class Result:
    """What a run has brought.

    Attributes:
        plan: what was run.
        records: what the clients noted.
        seen: what each service saw, by arm; empty for services of the user, which do not tell.
    """

    plan: Plan
    records: Records = field(default_factory=Records)
    seen: dict[ServiceName, dict[str, Any]] = field(default_factory=dict[ServiceName, dict[str, Any]])


class View(Protocol):
    """What shows a run while it lasts."""

    def begin(self, result: Result, pipelines: Sequence[Pipeline[Any]]) -> None:
        """The load begins; the pipelines are those of `standard`."""

    def entered(self, span: Span) -> None:
        """The services have entered a phase."""

    def ended(self, record: CallRecord) -> None:
        """A call has ended."""

    def changed(self, record: BreakerRecord, why: str) -> None:
        """A breaker has changed its state, and if that opened it, why."""


async def run(plan: Plan, view: View) -> Result:
    """Run the demo once.

    Raises:
        ServiceError: a service did not start, or has gone.
    """
    result = Result(plan)
    try:
        async with AsyncExitStack() as stack:
            remotes: list[Remote] = []
            targets = {arm: list(plan.own) for arm in plan.arms}
            if not plan.own:
                remotes = await stack.enter_async_context(services(plan.seed))
                targets = {arm: [target_of(remote, arm) for remote in remotes] for arm in plan.arms}
            await _load(result, remotes, targets, view, stack)
            for remote in remotes:
                result.seen[remote.name] = await remote.report()
    finally:
        gc.collect()  # the pipelines, whose names the next run in this process has again
    return result


def target_of(remote: Remote, arm: Arm) -> Target:
    """Return what an arm calls of a service of the demo."""
    address = remote.addresses[arm]
    return Target(remote.name, f"http://{address}" if remote.name is ServiceName.HTTP else address)


async def _load(
    result: Result,
    remotes: Sequence[Remote],
    targets: dict[Arm, list[Target]],
    view: View,
    stack: AsyncExitStack,
) -> None:
    plan, records = result.plan, result.records
    pipelines = {service: pipeline_of(service, plan.timeouts) for service in plan.services}
    clients: dict[ServiceName, dict[Arm, Client]] = {service: {} for service in plan.services}
    for arm in plan.arms:
        for target in targets[arm]:
            service = target.service
            client = client_of(
                arm, target, plan.timeouts, pipelines[service], partial(records.note_attempt, service, arm)
            )
            stack.push_async_callback(client.close)
            clients[service][arm] = client
    for service, pipeline in pipelines.items():
        _watch(service, pipeline, records, view)
    records.began = clock.monotonic() + SETTLE
    view.begin(result, list(pipelines.values()))
    await asyncio.gather(*(remote.begin() for remote in remotes))
    share = 0.0 if plan.own else ORDER_SHARE
    async with asyncio.TaskGroup() as tasks:
        for service in plan.services:
            calls = arrivals(f"{service} {plan.seed}", plan.rate, plan.seconds, order_share=share)
            tasks.create_task(drive(service, clients[service], calls, plan.day, records, view.ended))
        tasks.create_task(_lead(plan.day, remotes, records.began, view))


def _watch(service: ServiceName, pipeline: Pipeline[Any], records: Records, view: View) -> None:
    """Note when the breaker of a pipeline changes its state."""

    def changed(event: BreakerChanged) -> None:
        record = BreakerRecord(service, max(0.0, event.at - records.began), str(event.state))
        records.breakers.append(record)
        view.changed(record, event.why)

    pipeline.subscribe(changed, events=(BreakerChanged,))


async def _lead(day: Sequence[Span], remotes: Sequence[Remote], began: float, view: View) -> None:
    """Lead the services through the day."""
    for span in day:
        wait = began + span.start - clock.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        await asyncio.gather(*(remote.enter(span.phase) for remote in remotes))
        view.entered(span)
    wait = began + day[-1].end - clock.monotonic()
    if wait > 0:
        await asyncio.sleep(wait)
