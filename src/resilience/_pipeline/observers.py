"""What observes the calls and attempts of a chain: the gates of events, and those of metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from resilience._call.call import PipelineInfo
from resilience._drivers.drivers import Drivers, Step
from resilience._drivers.event_gate import EventGate
from resilience._drivers.meter_gate import MOST_PENDING as MOST_PENDING
from resilience._drivers.meter_gate import MeterGate as MeterGate
from resilience._util.finalizers import pending, run_pending
from resilience._util.locks import members, state_lock
from resilience.events._bus import everywhere
from resilience.events._types import AttemptEnded, Event


class Meters(NamedTuple):
    """The gates that count the calls and the attempts of one pipeline."""

    calls: MeterGate
    attempts: MeterGate


class Metrics(Protocol):
    """What measures pipelines."""

    def meters_of(self, info: PipelineInfo) -> Meters | None:
        """Return the meters of a pipeline, the same for each chain; None if it is not measured."""
        ...


class _Installed:
    """The metrics that are in force."""

    all: tuple[Metrics, ...] = ()


installed = _Installed()


def install(metrics: Metrics) -> None:
    """Measure all pipelines, also those that are made later."""
    _change(lambda before: (*before, metrics))


def uninstall(metrics: Metrics) -> None:
    """End what `install` has begun."""
    _change(lambda before: tuple(one for one in before if one is not metrics))


def _change(change: Callable[[tuple[Metrics, ...]], tuple[Metrics, ...]]) -> None:
    """Change the metrics that are in force, and have all chains composed again. No lock is held while it is made."""
    changed = False
    while not changed:
        before = installed.all
        after = change(before)
        with state_lock:
            if installed.all is before:
                installed.all = after
                changed = True
        if pending:
            run_pending()
    for bus in members(everywhere.buses):
        bus.owner.recompose()


def observed(info: PipelineInfo, drivers: Drivers, event: type[Event], step: Step) -> Step:
    """Return a step, wrapped in what observes how it ends.

    Args:
        info: the pipeline.
        drivers: the family of drivers of the chain.
        event: AttemptEnded or CallEnded.
        step: the step.
    """
    if info.bus.wants(event):
        step = drivers.gate(EventGate(info, event), step)
    for metrics in installed.all:
        meters = metrics.meters_of(info)
        if meters is None:
            continue
        if event is AttemptEnded:
            step = drivers.meter_attempts(meters.attempts, step)
        else:
            step = drivers.meter_calls(meters.calls, step)
    return step
