"""The drivers for plain functions: one per shape. `async_` is the same with awaits, and a test holds it to that.

A driver is a closure around the next one, built once per pipeline; the call travels through them. The language's
own nesting brings permits back, whatever is raised where.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from resilience._call import callables, deadline_errors
from resilience._call.call import Call, DeadlineSource, PipelineInfo
from resilience._call.callables import PLAIN_TYPES
from resilience._call.retry_marks import mark_counter
from resilience._call.settlement import DeferredSettlement
from resilience._drivers import hooks
from resilience._outcome.allowlist import Allowlist, is_bad
from resilience._outcome.ending import OK, Ending
from resilience._policies.shapes import Loop, OnSuccess, RetryState, Scope, Substitute
from resilience._runtime import threads as runtime
from resilience._util.clock import FOREVER, clock
from resilience._util.log_once import hook_failed
from resilience.errors import BadResult
from resilience.events._types import Mode, TimeoutScope

Step: TypeAlias = "Callable[[Call], Any]"


def invoke(call: Call) -> Any:
    """Call the user's function."""
    if call.deadline != FOREVER:
        return runtime.call_with_deadline(call)
    call.calls_made += 1
    named = call.kwargs  # an empty mapping would be copied
    result = call.function(*call.args, **named) if named else call.function(*call.args)
    if result.__class__ not in PLAIN_TYPES and callables.is_awaitable(result, call.function):
        raise callables.unawaited(result, call.function)
    return result


def loop(policy: Loop, inner: Step, reward: OnSuccess | None, around: DeadlineSource | None = None) -> Step:
    """Drive a Loop: call again as long as it says so. `around`: that of a Scope right around it, driven with it."""
    now = clock
    granted = FOREVER if around is None or around.seconds is None else around.seconds
    whole = around is not None and around.scope is TimeoutScope.CALL

    def attempts(call: Call) -> Any:
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
                    result = inner(call)
                except Exception as error:
                    if series is None:
                        series = RetryState(started, runtime.effective_deadline)
                    elif last is not None and hooks.is_rejected_attempt(call, error, made):
                        hooks.attempt_rejected(policy, call, Ending(None, error, call.failures), last, series)
                        break
                    series.last_mark = stamp
                    wait = hooks.decide_delay(policy, call, Ending(None, error, call.failures), series)
                    if wait.__class__ is not float and hasattr(wait.__class__, "__await__"):
                        wait = await_delay(wait, policy, call)
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
                    call.release_attempt()
                if wait > 0:
                    runtime.sleep(call, clock.monotonic() + wait)
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


def await_delay(wait: Any, policy: Loop, call: Call) -> float | None:
    """Refuse a decision that a plain call cannot await."""
    del call
    raise callables.undecided(wait, policy.name)


def shadow_loop(policy: Loop, inner: Step, reward: OnSuccess | None) -> Step:
    """Drive a Loop that only says what it would do."""

    def watched(call: Call) -> Any:
        series = RetryState(clock.monotonic(), runtime.effective_deadline, shadow=True)
        series.last_mark = mark_counter.latest
        try:
            result = inner(call)
        except Exception as error:
            wait = hooks.decide_delay(policy, call, Ending(None, error, call.failures), series)
            if hasattr(wait.__class__, "__await__"):
                await_delay(wait, policy, call)
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

    def bounded(call: Call) -> Any:
        outer, whose = call.deadline, call.deadline_source
        deadline = policy.deadline(call, now.monotonic()) if seconds is None else now.monotonic() + seconds
        if deadline >= outer:
            return inner(call)
        call.deadline = deadline
        call.deadline_source = limit
        if whole:
            call.total_deadline = deadline
            call.total_deadline_source = limit
        try:
            return inner(call)
        finally:
            call.deadline = outer
            call.deadline_source = whose

    return bounded


def shadow_scope(policy: Scope, inner: Step, limit: DeadlineSource) -> Step:
    """Drive a Scope that only says when it would have cut."""

    def watched(call: Call) -> Any:
        deadline = policy.deadline(call, clock.monotonic())
        dropped = False
        try:
            return inner(call)
        except GeneratorExit:
            dropped = True  # the interpreter finalises the coroutine: no time to call listeners
            raise
        finally:
            if not dropped and clock.monotonic() >= deadline:
                deadline_errors.publish(call, limit, mode=Mode.SHADOW)

    return watched


def substitute(policy: Substitute[Any], inner: Step, site: PipelineInfo) -> Step:
    """Drive a Substitute: put something in the place of an ending that it covers."""

    def replacing(call: Call) -> Any:
        try:
            return inner(call)
        except Exception as error:
            value = hooks.substitution(policy, call, Ending(None, error, call.failures))
            if value is hooks.PASS:
                raise
        if hasattr(value.__class__, "__await__"):
            value = await_replacement(value, call, policy.name)
        call.deferred = hooks.settlement_of_replacement(call.deferred)
        hooks.publish_replacement(policy, call, site, Mode.ENFORCE)
        return value

    return replacing


def await_replacement(value: Any, call: Call, policy: str) -> Any:
    """Refuse an awaitable substitute for a plain call."""
    del call
    raise callables.unawaited_stand_in(value, policy)


def shadow_substitute(policy: Substitute[Any], inner: Step, site: PipelineInfo) -> Step:
    """Drive a Substitute that only says when it would stand in."""

    def watched(call: Call) -> Any:
        try:
            return inner(call)
        except Exception as error:
            if hooks.should_handle(policy, call, Ending(None, error, call.failures)):
                hooks.publish_replacement(policy, call, site, Mode.SHADOW)
            raise

    return watched


def raise_bad_results(inner: Step, allowlists: tuple[Allowlist, ...]) -> Step:
    """Turn returned values that are failures into exceptions, so that policies deal with one thing only."""

    def judged(call: Call) -> Any:
        result = inner(call)
        if is_bad(result, allowlists):
            raise BadResult(result)
        return result

    return judged


def track_given_up_results(inner: Step) -> Step:
    """Keep a ledger of the bad results that are given up on further in."""

    def remembering(call: Call) -> Any:
        token = hooks.start_given_up_results()
        try:
            return inner(call)
        finally:
            hooks.end_given_up_results(token)

    return remembering


def nested(
    inner: Step, site: PipelineInfo, enter: Callable[[object, Call], object], leave: Callable[[object, Call], object]
) -> Step:
    """Let a call pass through a pipeline that stands in another one."""

    def nested(call: Call) -> Any:
        guest = object()
        outer = call.pipeline
        call.pipeline = site
        try:
            enter(guest, call)
            return inner(call)
        finally:
            call.pipeline = outer
            leave(guest, call)

    return nested
