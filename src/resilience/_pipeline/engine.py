"""The inside of a pipeline: the composed chains, what is in flight, and how to drain it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn
from weakref import WeakSet

from resilience._call.budget import RetryBudget
from resilience._call.call import Call, CallOptions, PipelineInfo, name_of
from resilience._call.caller import BlockEntry
from resilience._drivers import async_, sync
from resilience._drivers.hooks import publish_rejection
from resilience._outcome.allowlist import Allowlist
from resilience._pipeline import blocks
from resilience._pipeline.compose import ChainBuild, Composer, more_lenient
from resilience._policies.base import Policy
from resilience._policies.shapes import Gate
from resilience._runtime import current_owner
from resilience._util import validation
from resilience._util.locks import members, new_lock
from resilience.errors import RejectedError, RejectReason
from resilience.events._bus import Bus
from resilience.events._types import CallEnded, Mode

engines: WeakSet[Engine] = WeakSet()
"""All engines that live, for the process-wide switch."""


class Switch:
    """The process-wide mode."""

    mode = Mode.ENFORCE


switch = Switch()


def set_mode(mode: str) -> None:
    """Set the process-wide mode: no policy does more than it allows.

    Args:
        mode: "enforce": each policy's own mode counts. "shadow": all only watch. "off": all calls go straight through.
    """
    switch.mode = validation.choice("mode", mode, Mode)
    for engine in members(engines):
        engine.recompose()


class Engine(Composer):
    """The inside of one pipeline: has its chains composed, counts calls in and out, and drains.

    Args:
        policies: outermost first.
        name: of the pipeline.
        failures: of the pipeline.
        budget: of the pipeline.
        changed: called after the chains were composed anew.
        named: called with the name once there is one.
    """

    def __init__(
        self,
        policies: tuple[Policy[Any], ...],
        name: str,
        failures: Allowlist | None,
        budget: RetryBudget | None,
        changed: Callable[[], object],
        named: Callable[[str], object],
    ) -> None:
        super().__init__(policies, PipelineInfo(name, failures, budget, Bus(self.recompose)))
        self._changed = changed
        self._named = named
        self._lock = new_lock()
        self.execute: Callable[[Call], Any] = sync.invoke
        self.aexecute: Callable[[Call], Awaitable[Any]] = async_.invoke
        for policy in policies:
            policy._attach(self)
        engines.add(self)
        self.info.bus.open()

    def recompose(self) -> None:
        """Compose the chains anew; calls in flight finish in the old ones."""
        with self._lock:
            self.forget_result_lists()
            self.info.shortest_timeout = self.shortest_timeout()
            if self.draining:
                self.execute = self.metered(sync, CallEnded, self.reject)
                self.aexecute = self.metered(async_, CallEnded, self._reject_async)
            else:
                allowlists = self.result_lists()
                self.execute = self._chain(sync, allowlists)
                self.aexecute = self._chain(async_, allowlists)
        self._changed()

    def name_after(self, function: Callable[..., Any]) -> None:
        """Take the name of the first function decorated, if there is none yet."""
        if not self.info.name:
            self.info.name = name_of(function)
            self._named(self.info.name)

    def _chain(self, drive: Any, allowlists: tuple[Allowlist, ...]) -> Any:
        bounded = self.bounded() and switch.mode is Mode.ENFORCE
        step = (
            drive.runtime.call_with_deadline if bounded else drive.invoke
        )  # what `invoke` does where there is a deadline
        if not allowlists:
            return self.compose(ChainBuild(drive, results=False), step, switch.mode)
        return self.compose(ChainBuild(drive, results=True), drive.raise_bad_results(step, allowlists), switch.mode)

    def current_owner(self) -> object:
        """Return the running task, or else the thread."""
        return current_owner()

    def enter_block(self, gate: Gate[Any], binding: CallOptions) -> BlockEntry:
        """Pass a gate by hand; a thread may have to wait."""
        return blocks.enter_block(self, gate, binding, more_lenient(gate.mode, switch.mode))

    async def aenter_block(self, gate: Gate[Any], binding: CallOptions) -> BlockEntry:
        """Pass a gate by hand; a task may have to wait."""
        return await blocks.aenter_block(self, gate, binding, more_lenient(gate.mode, switch.mode))

    def reject(self, call: Call) -> NoReturn:
        """Refuse a call because of a drain."""
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

    async def _reject_async(self, call: Call) -> Any:
        self.reject(call)

    def reset(self) -> None:
        """Forget the state of all policies and of the budget, and take calls again."""
        for policy in self.policies:
            policy.reset()
        if self.info.budget is not None:
            self.info.budget.reset()
        self.resume()


def _forget_calls_in_child() -> None:
    """The threads that made them do not exist in a forked child."""
    for engine in members(engines):
        engine.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_calls_in_child)
