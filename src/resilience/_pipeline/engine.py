"""The inside of a pipeline: the composed chains, what is in flight, and how to drain it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn
from weakref import WeakSet

from resilience._call.budget import RetryBudget
from resilience._call.call import Binding, Call, Site, name_of
from resilience._call.caller import Passage
from resilience._drivers import async_, sync
from resilience._drivers.hooks import announce
from resilience._outcome.allowlist import Allowlist
from resilience._pipeline import blocks
from resilience._pipeline.compose import Composer, Weaving, weaker
from resilience._policies.base import Policy
from resilience._policies.shapes import Gate
from resilience._runtime import whoami
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
        engine.rewire()


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
        super().__init__(policies, Site(name, failures, budget, Bus(self.rewire)))
        self._changed = changed
        self._named = named
        self._lock = new_lock()
        self.run: Callable[[Call], Any] = sync.invoke
        self.arun: Callable[[Call], Awaitable[Any]] = async_.invoke
        for policy in policies:
            policy.attach(self)
        engines.add(self)
        self.site.bus.open()

    def rewire(self) -> None:
        """Compose the chains anew; calls in flight finish in the old ones."""
        with self._lock:
            self.forget_lists()
            self.site.patience = self.patience()
            if self.draining:
                self.run = self.metered(sync, CallEnded, self.refuse)
                self.arun = self.metered(async_, CallEnded, self._refuse_async)
            else:
                allowlists = self.result_lists()
                self.run = self._chain(sync, allowlists)
                self.arun = self._chain(async_, allowlists)
        self._changed()

    def adopt(self, function: Callable[..., Any]) -> None:
        """Take the name of the first function decorated, if there is none yet."""
        if not self.site.name:
            self.site.name = name_of(function)
            self._named(self.site.name)

    def _chain(self, drive: Any, allowlists: tuple[Allowlist, ...]) -> Any:
        bounded = self.bounded() and switch.mode is Mode.ENFORCE
        step = drive.runtime.in_time if bounded else drive.invoke  # what `invoke` does where there is a deadline
        if not allowlists:
            return self.compose(Weaving(drive, results=False), step, switch.mode)
        return self.compose(Weaving(drive, results=True), drive.judge(step, allowlists), switch.mode)

    def whoami(self) -> object:
        """Return the running task, or else the thread."""
        return whoami()

    def let_in(self, gate: Gate[Any], binding: Binding) -> Passage:
        """Pass a gate by hand; a thread may have to wait."""
        return blocks.let_in(self, gate, binding, weaker(gate.mode, switch.mode))

    async def let_in_async(self, gate: Gate[Any], binding: Binding) -> Passage:
        """Pass a gate by hand; a task may have to wait."""
        return await blocks.let_in_async(self, gate, binding, weaker(gate.mode, switch.mode))

    def refuse(self, call: Call) -> NoReturn:
        """Refuse a call because of a drain."""
        error = RejectedError(
            f"{self.site.name or 'the pipeline'} is being drained and takes no new calls",
            pipeline=self.site.name,
            reason=RejectReason.DRAINING,
        )
        announce(self, call, error, Mode.ENFORCE)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    async def _refuse_async(self, call: Call) -> Any:
        self.refuse(call)

    def reset(self) -> None:
        """Forget the state of all policies and of the budget, and take calls again."""
        for policy in self.policies:
            policy.reset()
        if self.site.budget is not None:
            self.site.budget.reset()
        self.resume()


def _forget_calls_in_child() -> None:
    """The threads that made them do not exist in a forked child."""
    for engine in members(engines):
        engine.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_calls_in_child)
