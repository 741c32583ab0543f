"""The inside of a pipeline: its composed chains, its calls in flight, the process-wide mode."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NoReturn, TypeVar
from weakref import ref

from resilience._call.budget import RetryBudget
from resilience._call.call import CallOptions, PipelineInfo
from resilience._call.callables import name_of
from resilience._call.entry import BlockEntry
from resilience._call.running_call import RunningCall
from resilience._drivers.drivers import ASYNC, SYNC, Drivers, Step
from resilience._drivers.hooks import publish_rejection
from resilience._outcome.allowlist import Allowlist
from resilience._pipeline import blocks
from resilience._pipeline.compose import Composer, more_lenient
from resilience._pipeline.in_flight import InFlight
from resilience._policies.base import Policy
from resilience._policies.shapes import Gate
from resilience._runtime import current_owner
from resilience._util import validation
from resilience._util.locks import members, new_lock
from resilience.errors import RejectedError, RejectReason
from resilience.events._bus import Bus, everywhere
from resilience.events._types import CallEnded, Mode, ModeName

PipelineT = TypeVar("PipelineT")
_composing = new_lock()


class ProcessMode:
    """The process-wide mode."""

    mode = Mode.ENFORCE


process = ProcessMode()


def set_mode(mode: ModeName) -> None:
    """Set the process-wide mode: no policy does more than it allows.

    Args:
        mode: "enforce": each policy's own mode counts. "shadow": all policies only decide and report. "off": all calls
            pass straight through.

    Raises:
        TypeError, ValueError: it is none of these.
    """
    process.mode = validation.choice("mode", mode, Mode)
    for engine in engines():
        engine.recompose()


class Engine(Generic[PipelineT]):
    """The inside of one pipeline: has its chains composed, counts its calls, and drains it.

    Args:
        policies: outermost first.
        name: the name of the pipeline; empty until it has one.
        failures: its allowlist, if it was given one.
        budget: its retry budget.
        pipeline: the pipeline.
        recomposed: called with the pipeline after the chains were composed anew.
        named: called with the name once there is one, and with the pipeline.
    """

    def __init__(
        self,
        policies: tuple[Policy[Any], ...],
        name: str,
        failures: Allowlist | None,
        budget: RetryBudget | None,
        pipeline: ref[PipelineT],
        recomposed: Callable[[PipelineT | None], object],
        named: Callable[[str, PipelineT | None], object],
    ) -> None:
        self.info = PipelineInfo(name, failures, budget, Bus(self))
        self.composer = Composer(policies, self.info)
        self.in_flight = InFlight(self)
        self._pipeline = pipeline
        self._recomposed = recomposed
        self._named = named
        self.chain: Step = self._first_call
        self.achain: Callable[[RunningCall], Awaitable[Any]] = self._first_acall
        self.info.bus.open()

    def recompose(self) -> None:
        """Compose the chains anew with the next call of each family; calls in flight finish in the old ones."""
        with _composing:
            self.composer.forget_result_lists()
            self.chain = self._first_call
            self.achain = self._first_acall
        self._recomposed(self._pipeline())

    def _first_call(self, call: RunningCall) -> Any:
        """Compose the chain for plain functions, and pass its first call."""
        with _composing:
            if self.chain == self._first_call:
                self.chain = self._chain(SYNC, self.reject)
            chain = self.chain
        return chain(call)

    async def _first_acall(self, call: RunningCall) -> Any:
        """Compose the chain for coroutine functions, and pass its first call."""
        with _composing:
            if self.achain == self._first_acall:
                self.achain = self._chain(ASYNC, self._areject)
            chain = self.achain
        return await chain(call)

    def _chain(self, drivers: Drivers, reject: Step) -> Step:
        if self.in_flight.draining:
            return self.composer.with_events(drivers, CallEnded, reject)
        return self.composer.chain(drivers, process.mode)

    def name_after(self, function: Callable[..., Any]) -> None:
        """Take the name of the first function that is decorated, if there is none yet."""
        if not self.info.name:
            self.info.name = name_of(function)
            self._named(self.info.name, self._pipeline())

    def result_lists(self, default: Allowlist) -> tuple[Allowlist, ...]:
        """Return the allowlists that list returned values; `default` is that of pipelines without one."""
        return self.composer.result_lists(default)

    def current_owner(self) -> object:
        """Return the running task, or else the thread."""
        return current_owner()

    def enter_block(self, gate: Gate[Any], options: CallOptions) -> BlockEntry:
        """Pass a gate by hand; a thread may have to wait."""
        return blocks.enter_block(self.in_flight, gate, options, more_lenient(gate.mode, process.mode))

    async def aenter_block(self, gate: Gate[Any], options: CallOptions) -> BlockEntry:
        """Pass a gate by hand; a task may have to wait."""
        return await blocks.aenter_block(self.in_flight, gate, options, more_lenient(gate.mode, process.mode))

    def reject(self, call: RunningCall) -> NoReturn:
        """Reject a call because of a drain."""
        error = RejectedError(
            f"{self.info.name or 'the pipeline'} is being drained and takes no new calls",
            pipeline=self.info.name,
            reason=RejectReason.DRAINING,
        )
        publish_rejection(self, call, error, Mode.ENFORCE)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    async def _areject(self, call: RunningCall) -> Any:
        self.reject(call)

    def reset(self) -> None:
        """Forget the state of all policies and of the budget, and take calls again."""
        for policy in self.composer.policies:
            policy.reset()
        if self.info.budget is not None:
            self.info.budget.reset()
        self.in_flight.set_draining(False)


def engines() -> list[Engine[Any]]:
    """Return the engines of all pipelines that are alive."""
    owners = [bus.owner for bus in members(everywhere.buses)]
    return [owner for owner in owners if isinstance(owner, Engine)]


def _forget_calls_in_child() -> None:
    """The threads that made them do not exist in a forked child."""
    for engine in engines():
        engine.in_flight.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_calls_in_child)
