"""The engine of a pipeline: its composed chains and its calls in flight; and the process-wide mode."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NoReturn, TypeVar
from weakref import ref

from resilience._call.call import AnyBudget, CallOptions, PipelineInfo
from resilience._call.callables import is_async_generator_function, is_retried_by_tenacity, name_of
from resilience._call.entry import Admit, BlockEntry
from resilience._call.running_call import RunningCall
from resilience._drivers.drivers import ASYNC, SYNC, Drivers, Step
from resilience._drivers.hooks import publish_rejection
from resilience._outcome.allowlist import Allowlist
from resilience._pipeline import blocks
from resilience._pipeline.compose import Composer, has_kind
from resilience._pipeline.generators import guard_async_generator, guard_generator
from resilience._pipeline.in_flight import InFlight
from resilience._pipeline.links import more_lenient
from resilience._pipeline.retry_block import RetryBlock
from resilience._policies.base import Policy, forget_calls
from resilience._policies.cooldown.cooldown import Cooldown
from resilience._policies.shapes import Gate, Loop
from resilience._util import validation
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state, members, state_lock
from resilience._util.log_once import warn
from resilience.errors import RejectedError, RejectReason
from resilience.events._bus import Bus, everywhere
from resilience.events._types import CallEnded, Mode, ModeName

PipelineT = TypeVar("PipelineT", bound=Policy[Any])


class ProcessMode:
    """Holds the process-wide mode."""

    mode = Mode.ENFORCE


process = ProcessMode()


def set_mode(mode: ModeName) -> None:
    """Set the process-wide mode. Of it and the modes of pipeline and policy, the most lenient applies.

    Args:
        mode: "enforce": the modes of pipelines and policies apply. "shadow": all policies only decide and report.
            "off": all calls pass through without any policy.

    Raises:
        TypeError: `mode` is not a string.
        ValueError: `mode` is not one of the three modes.

    The environment variable RESILIENCE_MODE sets the mode at import.
    """
    process.mode = validation.choice("mode", mode, Mode)
    for engine in engines():
        engine.recompose()


class Engine(Generic[PipelineT]):
    """The engine of one pipeline: composes its chains, counts its calls in flight, and drains it.

    Args:
        policies: the policies, outermost first.
        name: the name of the pipeline; empty until it has one.
        failures: the allowlist of the pipeline; None if it was given none.
        budget: the retry budget of the pipeline, or one for each key; None for no limit.
        pipeline: a weak reference to the pipeline.
        recomposed: called with the pipeline after each `recompose`.
        named: called with the name and the pipeline when the pipeline is named after a function.
    """

    def __init__(
        self,
        policies: tuple[Policy[Any], ...],
        name: str,
        failures: Allowlist | None,
        budget: AnyBudget,
        pipeline: ref[PipelineT],
        recomposed: Callable[[PipelineT | None], object],
        named: Callable[[str, PipelineT | None], object],
    ) -> None:
        self.info = PipelineInfo(name, failures, budget, Bus(self))
        self.composer = Composer(policies, self.info)
        self.info.reads_hints = has_kind(Cooldown, policies)
        self.in_flight = InFlight(self)
        self._pipeline = pipeline
        self._recomposed = recomposed
        self._named = named
        self.chain: Step = self._first_call
        self.achain: Callable[[RunningCall], Awaitable[Any]] = self._first_acall
        self._version = object()
        self._result_lists: tuple[Allowlist, tuple[Allowlist, ...]] | None = None

    def open(self) -> None:
        """Take part in the subscriptions to all pipelines, and in what is set for all of them."""
        self.info.bus.open()

    # Composing calls hooks of policies, and may be interrupted by a collection or by a signal handler that changes
    # pipelines. So no lock is held meanwhile. A chain is kept only if nothing has changed since it was begun, and
    # nothing is created while the lock for that is held.

    def recompose(self) -> None:
        """Let the next call of each family compose its chain again; calls in flight finish in the old chains."""
        if inside_state():
            put_off(self.recompose)
            return
        self.composer.forget_result_lists()
        version = object()
        first, afirst = self._first_call, self._first_acall
        with state_lock:
            self._version = version
            self._result_lists = None
            self.chain = first
            self.achain = afirst
        if pending:
            run_pending()
        self._recomposed(self._pipeline())

    def _first_call(self, call: RunningCall) -> Any:
        """Compose the chain for plain functions, and pass the call through it."""
        version = self._version
        ignores_results = self.composer.ignores_results()
        shortest_timeout, chain = self.composer.shortest_timeout(self._mode()), self._chain(SYNC, self.reject)
        with state_lock:
            if self._version is version:
                self.chain = chain
                self.info.shortest_timeout = shortest_timeout
                self.info.ignores_results = ignores_results
        if pending:
            run_pending()
        return chain(call)

    async def _first_acall(self, call: RunningCall) -> Any:
        """Compose the chain for coroutine functions, and pass the call through it."""
        version = self._version
        ignores_results = self.composer.ignores_results()
        shortest_timeout, chain = self.composer.shortest_timeout(self._mode()), self._chain(ASYNC, self._areject)
        with state_lock:
            if self._version is version:
                self.achain = chain
                self.info.shortest_timeout = shortest_timeout
                self.info.ignores_results = ignores_results
        if pending:
            run_pending()
        return await chain(call)

    def _chain(self, drivers: Drivers, reject: Step) -> Step:
        """Return a new chain; during a drain, one that rejects all calls."""
        if self.in_flight.draining:
            return self.composer.with_events(drivers, CallEnded, reject)
        return self.composer.chain(drivers, self._mode())

    def _mode(self) -> Mode:
        """Return the more lenient of the modes of the pipeline and of the process."""
        pipeline = self._pipeline()
        return process.mode if pipeline is None else more_lenient(pipeline.mode, process.mode)

    def effective_mode(self, policy: Policy[Any]) -> Mode:
        """Return the mode of a policy in calls of this pipeline, those aside that come from one around it."""
        return more_lenient(policy.mode, self._mode())

    def prepare_for(self, function: Callable[..., Any]) -> None:
        """Name the pipeline after the decorated function, if it has no name yet; warn of a function with retries."""
        if not self.info.name:
            self.info.name = name_of(function)
            self._named(self.info.name, self._pipeline())
            self.recompose()  # the chains of a pipeline without a name are not measured
        if self.composer.has_loop(Mode.ENFORCE) and is_retried_by_tenacity(function):
            warn(
                f"in pipeline {self.info.name!r}: tenacity retries {name_of(function)}, too, so that its attempts and "
                "those of the Retry multiply; remove one of the two"
            )

    def result_lists(self, default: Allowlist) -> tuple[Allowlist, ...]:
        """Return the allowlists that classify returned values; `default` is that of pipelines without one."""
        known = self._result_lists
        if known is not None and known[0] is default:
            return known[1]
        version = self._version
        found = self.composer.result_lists(self._mode(), default)
        with state_lock:
            if self._version is version:
                self._result_lists = default, found
        if pending:
            run_pending()
        return found

    def enter_block(self, gate: Gate[Any], options: CallOptions, admit: Admit | None = None) -> BlockEntry:
        """Admit a block through a gate; a thread may wait."""
        return blocks.enter_block(self.in_flight, gate, options, more_lenient(gate.mode, process.mode), admit)

    async def aenter_block(self, gate: Gate[Any], options: CallOptions, admit: Admit | None = None) -> BlockEntry:
        """Admit a block through a gate; a task may wait."""
        return await blocks.aenter_block(self.in_flight, gate, options, more_lenient(gate.mode, process.mode), admit)

    def guard_generator(self, options: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a generator function, or an async one, that calls `function` through the pipeline."""
        is_async = is_async_generator_function(function)
        return (guard_async_generator if is_async else guard_generator)(self, options, function)

    def retry_block(self, loop: Loop, options: CallOptions) -> RetryBlock:
        """Return the attempts of a block of code that a Loop repeats."""
        return RetryBlock(self.in_flight, loop, options, more_lenient(loop.mode, self._mode()))

    def reject(self, call: RunningCall) -> NoReturn:
        """Raise the rejection of a call that arrives during a drain, and publish it."""
        error = RejectedError(
            f"{self.info.name or 'the pipeline'} is being drained and takes no new calls",
            pipeline=self.info.name,
            reason=RejectReason.DRAINING,
        )
        publish_rejection(self, call, error, Mode.ENFORCE)
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    async def _areject(self, call: RunningCall) -> Any:
        """Do what `reject` does, for the family of coroutine functions."""
        self.reject(call)

    def reset(self) -> None:
        """Reset all policies and the budget, and accept calls again after a drain."""
        for policy in self.composer.policies:
            policy.reset()
        if self.info.budget is not None:
            self.info.budget.reset()
        self.in_flight.set_draining(False)


def engines() -> list[Engine[Any]]:
    """Return the engines of all live pipelines."""
    owners = [bus.owner for bus in members(everywhere.buses)]
    return [owner for owner in owners if isinstance(owner, Engine)]


def _forget_calls_in_child() -> None:
    """Forget the calls in flight in a forked child, where the threads that made them do not exist."""
    policies: dict[Policy[Any], None] = {}
    for engine in engines():
        engine.in_flight.forget()
        policies |= dict.fromkeys(engine.composer.policies)
        policies |= dict.fromkeys(engine.composer.budget_partitions())
    for policy in policies:
        forget_calls(policy)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_calls_in_child)
