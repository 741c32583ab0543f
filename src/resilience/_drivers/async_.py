"""The drivers for coroutine functions: `sync` with awaits. A test holds the two to be mirror images."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, TypeAlias

from resilience import _runtime as runtime
from resilience._call import callables, deadline_errors
from resilience._call.call import Call, DeadlineSource, PipelineInfo
from resilience._call.callables import PLAIN_TYPES
from resilience._call.retry_marks import mark_counter
from resilience._call.settlement import DeferredSettlement
from resilience._drivers import hooks
from resilience._outcome.allowlist import Allowlist, is_bad
from resilience._outcome.ending import OK, Ending
from resilience._policies.shapes import Loop, OnSuccess, RetryState, Scope, Substitute
from resilience._util.clock import FOREVER, clock
from resilience._util.log_once import hook_failed
from resilience.errors import BadResult, DeadlineExceededError
from resilience.events._types import Mode, TimeoutScope

Step: TypeAlias = "Callable[[Call], Awaitable[Any]]"


async def invoke(call: Call) -> Any:
    """Call the user's function, and await what it returns if that is to be awaited."""
    if call.deadline != FOREVER:
        return await runtime.call_with_deadline(call)
    call.calls_made += 1
    named = call.kwargs  # an empty mapping would be copied
    result = call.function(*call.args, **named) if named else call.function(*call.args)
    if result.__class__ is CoroutineType:
        return await result
    if result.__class__ not in PLAIN_TYPES and callables.is_awaitable(result, call.function):
        return await result
    return result


def loop(policy: Loop, inner: Step, reward: OnSuccess | None, around: DeadlineSource | None = None) -> Step:
    """Drive a Loop: call again as long as it says so. `around`: that of a Scope right around it, driven with it."""
    now = clock
    granted = FOREVER if around is None or around.seconds is None else around.seconds
    whole = around is not None and around.scope is TimeoutScope.CALL

    async def attempts(call: Call) -> Any:
        started = now.monotonic()
        series: RetryState | None = None
        last: Exception | None = None
        working: DeferredSettlement | None = None
        outer, whose = call.deadline, call.deadline_source
        if around is not None and started + granted < outer:
            call.deadline = started + granted
            call.deadline_source = around
            if whole:
                call.total_deadline = call.deadline
                call.total_deadline_source = around
        try:
            while True:
                stamp, made = mark_counter.latest, call.calls_made
                try:
                    result = await inner(call)
                except Exception as error:
                    if series is None:
                        series = RetryState(started, runtime.effective_deadline)
                    elif last is not None and hooks.is_rejected_attempt(call, error, made):
                        hooks.attempt_rejected(policy, call, Ending(None, error, call.failures), last, series)
                        break
                    series.last_mark = stamp
                    wait = hooks.decide_delay(policy, call, Ending(None, error, call.failures), series)
                    if wait.__class__ is not float and hasattr(wait.__class__, "__await__"):
                        wait = await await_delay(wait, policy, call)
                    if wait is None:
                        raise
                    last = error
                    if call.deferred is not None:
                        working = call.deferred.join(working)
                else:
                    if reward is not None:
                        try:
                            reward()
                        except Exception as error:
                            hook_failed("reward of a policy", policy, error)
                    return result
                if call.release_attempt is not None:
                    await call.release_attempt()
                if wait > 0:
                    await runtime.sleep(call, clock.monotonic() + wait)
                    if call.retries_stopped:
                        hooks.attempt_rejected(policy, call, OK, last, series)
                        break
                call.next_attempt()
            raise last
        finally:
            last = None  # its traceback holds this frame
            if around is not None:
                call.deadline = outer
                call.deadline_source = whose
            if working is not None:
                call.deferred = working.join(call.deferred)

    return attempts


async def await_delay(wait: Any, policy: Loop, call: Call) -> float | None:
    """Await a decision that takes its time; if it is not there by the deadline, there is no other attempt."""
    try:
        return hooks.validated_delay(
            await (wait if call.deadline == FOREVER else runtime.call_with_deadline(call, wait))
        )
    except DeadlineExceededError:
        return None
    except Exception as error:
        hook_failed("delay of a policy", policy, error)
        return None


def shadow_loop(policy: Loop, inner: Step, reward: OnSuccess | None) -> Step:
    """Drive a Loop that only says what it would do."""

    async def watched(call: Call) -> Any:
        series = RetryState(clock.monotonic(), runtime.effective_deadline, shadow=True)
        series.last_mark = mark_counter.latest
        try:
            result = await inner(call)
        except Exception as error:
            wait = hooks.decide_delay(policy, call, Ending(None, error, call.failures), series)
            if hasattr(wait.__class__, "__await__"):
                await await_delay(wait, policy, call)
            raise
        if reward is not None:
            try:
                reward()
            except Exception as error:
                hook_failed("reward of a policy", policy, error)
        return result

    return watched


def scope(policy: Scope, inner: Step, limit: DeadlineSource) -> Step:
    """Drive a Scope: what is inside has its deadline, or an earlier one that is in force. `invoke` sees to it."""
    now = clock
    whole = limit.scope is TimeoutScope.CALL
    seconds = limit.seconds

    async def bounded(call: Call) -> Any:
        outer, whose = call.deadline, call.deadline_source
        deadline = policy.deadline(call, now.monotonic()) if seconds is None else now.monotonic() + seconds
        if deadline >= outer:
            return await inner(call)
        call.deadline = deadline
        call.deadline_source = limit
        if whole:
            call.total_deadline = deadline
            call.total_deadline_source = limit
        try:
            return await inner(call)
        finally:
            call.deadline = outer
            call.deadline_source = whose

    return bounded


def shadow_scope(policy: Scope, inner: Step, limit: DeadlineSource) -> Step:
    """Drive a Scope that only says when it would have cut."""

    async def watched(call: Call) -> Any:
        deadline = policy.deadline(call, clock.monotonic())
        dropped = False
        try:
            return await inner(call)
        except GeneratorExit:
            dropped = True  # the interpreter finalises the coroutine: no time to call listeners
            raise
        finally:
            if not dropped and clock.monotonic() >= deadline:
                deadline_errors.publish(call, limit, mode=Mode.SHADOW)

    return watched


def substitute(policy: Substitute[Any], inner: Step, site: PipelineInfo) -> Step:
    """Drive a Substitute: put something in the place of an ending that it covers."""

    async def replacing(call: Call) -> Any:
        try:
            return await inner(call)
        except Exception as error:
            value = hooks.substitution(policy, call, Ending(None, error, call.failures))
            if value is hooks.PASS:
                raise
        if hasattr(value.__class__, "__await__"):
            value = await await_replacement(value, call, policy.name)
        call.deferred = hooks.settlement_of_replacement(call.deferred)
        hooks.publish_replacement(policy, call, site, Mode.ENFORCE)
        return value

    return replacing


async def await_replacement(value: Any, call: Call, policy: str) -> Any:
    """Await a substitute, within the deadline that is in force around it."""
    del policy
    return await (value if call.deadline == FOREVER else runtime.call_with_deadline(call, value))


def shadow_substitute(policy: Substitute[Any], inner: Step, site: PipelineInfo) -> Step:
    """Drive a Substitute that only says when it would stand in."""

    async def watched(call: Call) -> Any:
        try:
            return await inner(call)
        except Exception as error:
            if hooks.should_handle(policy, call, Ending(None, error, call.failures)):
                hooks.publish_replacement(policy, call, site, Mode.SHADOW)
            raise

    return watched


def raise_bad_results(inner: Step, allowlists: tuple[Allowlist, ...]) -> Step:
    """Turn returned values that are failures into exceptions, so that policies deal with one thing only."""

    async def judged(call: Call) -> Any:
        result = await inner(call)
        if is_bad(result, allowlists):
            raise BadResult(result)
        return result

    return judged


def track_given_up_results(inner: Step) -> Step:
    """Keep a ledger of the bad results that are given up on further in."""

    async def remembering(call: Call) -> Any:
        token = hooks.start_given_up_results()
        try:
            return await inner(call)
        finally:
            hooks.end_given_up_results(token)

    return remembering


def nested(
    inner: Step, site: PipelineInfo, enter: Callable[[object, Call], object], leave: Callable[[object, Call], object]
) -> Step:
    """Let a call pass through a pipeline that stands in another one."""

    async def nested(call: Call) -> Any:
        guest = object()
        outer = call.pipeline
        call.pipeline = site
        try:
            enter(guest, call)
            return await inner(call)
        finally:
            call.pipeline = outer
            leave(guest, call)

    return nested
