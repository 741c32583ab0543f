"""The drivers for coroutine functions, one for each shape: `sync` with awaits. A test compares the two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, TypeAlias

from resilience import _runtime as runtime
from resilience._call import callables, deadline_errors
from resilience._call.ambient import Ambient, ambient
from resilience._call.call import PipelineInfo
from resilience._call.callables import PLAIN_TYPES
from resilience._call.retry_state import RetryState
from resilience._call.running_call import DeadlineSource, RunningCall
from resilience._call.settlement import DeferredSettlement
from resilience._drivers import hooks
from resilience._drivers.hooks import CountCall
from resilience._outcome.allowlist import Allowlist, is_bad
from resilience._outcome.ending import OK
from resilience._policies.base import fixed
from resilience._policies.shapes import Loop, OnSuccess, Scope
from resilience._util.clock import FOREVER, clock
from resilience._util.log_once import hook_failed
from resilience.errors import BadResult, DeadlineExceededError
from resilience.events._types import Mode

Step: TypeAlias = "Callable[[RunningCall], Awaitable[Any]]"


async def invoke(call: RunningCall) -> Any:
    """Call the user's function, and await its result if that is awaitable."""
    if call.deadline != FOREVER:
        return await runtime.call_with_deadline(call)
    call.calls_made += 1
    kwargs = call.kwargs  # an empty mapping would be copied
    result = call.function(*call.args, **kwargs) if kwargs else call.function(*call.args)
    if result.__class__ is CoroutineType:
        return await result
    if result.__class__ not in PLAIN_TYPES and callables.is_awaitable(result, call.function):
        return await result
    return result


async def invoke_attempt(call: RunningCall) -> Any:
    """Call the user's function as `invoke` does, for calls with a Loop: the code inside can ask for its attempt."""
    if call.deadline != FOREVER:
        return await runtime.call_with_deadline(call)
    own = call.inside = Ambient.make(FOREVER, call.ambient)
    call.cancellations = runtime.cancellations()
    try:
        ambient.set(own)
        call.calls_made += 1
        kwargs = call.kwargs  # an empty mapping would be copied
        result = call.function(*call.args, **kwargs) if kwargs else call.function(*call.args)
        if result.__class__ is CoroutineType:
            return await result
        if result.__class__ not in PLAIN_TYPES and callables.is_awaitable(result, call.function):
            return await result
        return result
    finally:
        own.live = False


def loop(policy: Loop, inner: Step, on_success: OnSuccess | None, source: DeadlineSource | None) -> Step:
    """Drive a Loop: repeat the call while the policy returns a delay.

    `source` is that of the Scope directly around the Loop, which is driven by the same closure; None without one.
    """
    now = clock
    seconds = FOREVER if source is None or source.seconds is None else source.seconds
    bounds_call = source is not None and source.bounds_call
    settings = policy.settings

    async def attempts(call: RunningCall) -> Any:
        started = now.monotonic()
        outer, outer_source = call.deadline, call.deadline_source
        if source is not None and started + seconds < outer:
            call.deadline = started + seconds
            call.deadline_source = source
            if bounds_call:
                call.total_deadline = call.deadline
                call.total_deadline_source = source
        state: RetryState | None = None
        last: Exception | None = None
        running: DeferredSettlement | None = None
        try:
            while True:
                calls_made = call.calls_made
                try:
                    result = await inner(call)
                except Exception as error:
                    if state is None:
                        state = RetryState(started, runtime.effective_deadline, settings=settings)
                    if call.calls_made != calls_made and hooks.was_cancelled(call, state, runtime.cancellations()):
                        raise  # the function has turned a cancellation into an exception of its own
                    if last is not None and hooks.is_rejected_attempt(call, error, calls_made):
                        hooks.attempt_rejected(policy, call, call.ending_of(error), last, state)
                        break
                    wait = hooks.decide_delay(policy, call, call.ending_of(error), state)
                    if wait.__class__ is not float and hasattr(wait.__class__, "__await__"):
                        wait = await await_delay(wait, policy, call)
                    if wait is None:
                        raise
                    last = error
                    if call.deferred is not None:
                        running = call.deferred.join(running)
                else:
                    if on_success is not None:
                        try:
                            on_success()
                        except Exception as error:
                            hook_failed("on_success of a policy", policy, error)
                    return result
                if call.release_attempt is not None:
                    await call.release_attempt(call)
                if wait > 0:
                    await runtime.sleep(call, clock.monotonic() + wait)
                else:
                    await runtime.checkpoint()
                if call.retries_stopped:
                    hooks.attempt_rejected(policy, call, OK, last, state)
                    break
                call.attempt += 1
                call.deferred = None
                call.inside = None
                call.ending = None  # the same exception may mean something else next time
            raise last
        finally:
            last = None  # its traceback refers to this frame
            if call.inside is not None:
                call.inside.given_up = None
            if source is not None:
                call.deadline = outer
                call.deadline_source = outer_source
            if running is not None:
                call.deferred = running.join(call.deferred)

    return attempts


async def await_delay(wait: Any, policy: Loop, call: RunningCall) -> float | None:
    """Await a delay; None, for no other attempt, if the deadline passes first or the awaitable fails."""
    try:
        return hooks.validated_delay(
            await (wait if call.deadline == FOREVER else runtime.call_with_deadline(call, wait))
        )
    except DeadlineExceededError:
        return None
    except Exception as error:
        hook_failed("delay of a policy", policy, error)
        return None


def shadow_loop(policy: Loop, inner: Step, on_success: OnSuccess | None) -> Step:
    """Drive a Loop in shadow mode: it reports a retry, and the ending passes through."""
    settings = policy.settings

    async def watched(call: RunningCall) -> Any:
        state = RetryState(clock.monotonic(), runtime.effective_deadline, shadow=True, settings=settings)
        try:
            result = await inner(call)
        except Exception as error:
            wait = hooks.decide_delay(policy, call, call.ending_of(error), state)
            if hasattr(wait.__class__, "__await__"):
                await await_delay(wait, policy, call)
            raise
        finally:
            if call.inside is not None:
                call.inside.given_up = None
        if on_success is not None:
            try:
                on_success()
            except Exception as error:
                hook_failed("on_success of a policy", policy, error)
        return result

    return watched


def scope(policy: Scope, inner: Step, source: DeadlineSource) -> Step:
    """Drive a Scope: set its deadline for what is inside, unless an earlier one is in force. `invoke` enforces it."""
    now = clock
    seconds, bounds_call, decide = source.seconds, source.bounds_call, fixed(policy)

    async def bounded(call: RunningCall) -> Any:
        outer, outer_source = call.deadline, call.deadline_source
        deadline = decide.deadline(call, now.monotonic()) if seconds is None else now.monotonic() + seconds
        if deadline >= outer:
            return await inner(call)
        call.deadline = deadline
        call.deadline_source = source
        if bounds_call:
            call.total_deadline = deadline
            call.total_deadline_source = source
        try:
            return await inner(call)
        finally:
            call.deadline = outer
            call.deadline_source = outer_source

    return bounded


def shadow_scope(policy: Scope, inner: Step, source: DeadlineSource) -> Step:
    """Drive a Scope in shadow mode: it reports a passed deadline, and the ending passes through."""
    decide = fixed(policy)

    async def watched(call: RunningCall) -> Any:
        deadline = decide.deadline(call, clock.monotonic())
        finalizing = False
        try:
            return await inner(call)
        except GeneratorExit:
            finalizing = True  # the coroutine is being finalized: listeners must not be called
            raise
        finally:
            if not finalizing and clock.monotonic() >= deadline:
                deadline_errors.publish(call, source, mode=Mode.SHADOW)

    return watched


def raise_bad_results(inner: Step, allowlists: tuple[Allowlist, ...]) -> Step:
    """Raise returned values that are failures as BadResult, so that policies handle exceptions only."""

    async def raising(call: RunningCall) -> Any:
        result = await inner(call)
        if not call.is_judged and is_bad(result, allowlists):
            raise BadResult(result)
        return result

    return raising


def nested(inner: Step, info: PipelineInfo, enter: CountCall, leave: CountCall) -> Step:
    """Drive a pipeline that is nested in another one: count the call in and out, and set its pipeline."""

    async def passing(call: RunningCall) -> Any:
        key = object()
        outer = call.pipeline
        call.pipeline = info
        try:
            enter(key, call)
            return await inner(call)
        finally:
            call.leave_pipeline(outer)
            leave(key, call)

    return passing
