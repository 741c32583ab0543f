"""What observes the calls and attempts of a chain: the gates of events, those of metrics, and those of tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from resilience._call.call import PipelineInfo
from resilience._call.running_call import RunningCall
from resilience._drivers.context_gate import ContextGate as ContextGate
from resilience._drivers.drivers import Drivers, Step
from resilience._drivers.event_gate import EventGate
from resilience._drivers.meter_gate import MOST_PENDING as MOST_PENDING
from resilience._drivers.meter_gate import MeterGate as MeterGate
from resilience._util.finalizers import pending, run_pending
from resilience._util.locks import members, state_lock
from resilience.events._bus import everywhere
from resilience.events._types import AttemptEnded, Event


class Awaited(Protocol):
    """What is not there yet: until it is, calls pass by the gates that need it.

    Attributes:
        is_missing: whether it was not there when it was looked for the last time.
    """

    is_missing: bool

    def look(self) -> bool:
        """Return whether it is there; asked once for each call while it is missing."""
        ...


class Meters(NamedTuple):
    """The gates that count the calls and the attempts of one pipeline; `needs` is None if they need nothing."""

    calls: MeterGate
    attempts: MeterGate
    needs: Awaited | None = None


class Metrics(Protocol):
    """What measures pipelines."""

    def meters_of(self, info: PipelineInfo) -> Meters | None:
        """Return the meters of a pipeline, the same for each chain; None if it is not measured."""
        ...


class Contexts(NamedTuple):
    """The gates that make the calls and attempts of one pipeline in contexts; `needs` is None if they need nothing."""

    calls: ContextGate
    attempts: ContextGate
    needs: Awaited | None = None


class Tracing(Protocol):
    """What follows calls through contexts."""

    def contexts_of(self, info: PipelineInfo) -> Contexts | None:
        """Return the contexts of a pipeline; None if its calls are not followed."""
        ...


class _Installed:
    """The metrics and the tracing that are in force."""

    all: tuple[Metrics, ...] = ()
    tracing: tuple[Tracing, ...] = ()


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
    recompose_all()


def install_tracing(tracing: Tracing) -> None:
    """Follow the calls of all pipelines, also of those that are made later."""
    installed.tracing = (*installed.tracing, tracing)
    recompose_all()


def uninstall_tracing(tracing: Tracing) -> None:
    """End what `install_tracing` has begun; calls in flight are followed to their end."""
    installed.tracing = tuple(one for one in installed.tracing if one is not tracing)
    recompose_all()


def recompose_all() -> None:
    """Have the chains of all pipelines composed again."""
    for bus in members(everywhere.buses):
        bus.owner.recompose()


def observed(info: PipelineInfo, drivers: Drivers, event: type[Event], step: Step) -> Step:
    """Return a step, wrapped in what observes how it ends. Events are published and counted inside of the contexts.

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
            step = _once_there(meters.needs, event, step, drivers.meter_attempts(meters.attempts, step))
        else:
            step = _once_there(meters.needs, event, step, drivers.meter_calls(meters.calls, step))
    for tracing in installed.tracing:
        contexts = tracing.contexts_of(info)
        if contexts is not None:
            gate = contexts.attempts if event is AttemptEnded else contexts.calls
            step = _once_there(contexts.needs, event, step, drivers.in_context(gate, step))
    return step


def _once_there(needs: Awaited | None, event: type[Event], without: Step, step: Step) -> Step:
    """Return a step, or one that takes it once what it needs is there, and another one until then.

    That serves both families of drivers: it returns what the step returns, which may be an awaitable.

    Args:
        needs: what the step needs; None for nothing.
        event: AttemptEnded or CallEnded. The attempts of a call look for nothing again.
        without: the step without the gate.
        step: the step with the gate.
    """
    if needs is None or not needs.is_missing:
        return step

    def either_call(call: RunningCall) -> Any:
        return (without if needs.is_missing and not needs.look() else step)(call)

    def either_attempt(call: RunningCall) -> Any:
        return (without if needs.is_missing else step)(call)

    return either_attempt if event is AttemptEnded else either_call
