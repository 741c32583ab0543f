"""The drivers for coroutine functions: `sync` with awaits. A test holds the two to be mirror images."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, TypeAlias

from resilience import _runtime as runtime
from resilience._call import callables, deadline_errors
from resilience._call.call import Call, Limit, Site
from resilience._call.callables import PLAIN
from resilience._call.retry_marks import stamps
from resilience._call.settlement import Deferred
from resilience._drivers import hooks
from resilience._outcome.allowlist import Allowlist, is_bad
from resilience._outcome.ending import OK, Ending
from resilience._policies.shapes import Loop, Reward, Scope, Series, Substitute
from resilience._util.clock import FOREVER, ambient
from resilience._util.log_once import hook_failed
from resilience.errors import BadResult, DeadlineExceededError
from resilience.events._types import Mode, TimeoutScope

Step: TypeAlias = "Callable[[Call], Awaitable[Any]]"


async def invoke(call: Call) -> Any:
    """Call the user's function, and await what it returns if that is to be awaited."""
    if call.deadline != FOREVER:
        return await runtime.in_time(call)
    call.made += 1
    named = call.kwargs  # an empty mapping would be copied
    result = call.function(*call.args, **named) if named else call.function(*call.args)
    if result.__class__ is CoroutineType:
        return await result
    if result.__class__ not in PLAIN and callables.is_awaitable(result, call.function):
        return await result
    return result


def loop(policy: Loop, inner: Step, reward: Reward | None, around: Limit | None = None) -> Step:
    """Drive a Loop: call again as long as it says so. `around`: that of a Scope right around it, driven with it."""
    now = ambient
    granted = FOREVER if around is None or around.seconds is None else around.seconds
    whole = around is not None and around.word is TimeoutScope.CALL

    async def attempts(call: Call) -> Any:
        started = now.monotonic()
        series: Series | None = None
        last: Exception | None = None
        working: Deferred | None = None
        outer, whose = call.deadline, call.limit
        if around is not None and started + granted < outer:
            call.deadline = started + granted
            call.limit = around
            if whole:
                call.whole = call.deadline
                call.whose_whole = around
        try:
            while True:
                stamp, made = stamps.latest, call.made
                try:
                    result = await inner(call)
                except Exception as error:
                    if series is None:
                        series = Series(started, runtime.effective_deadline)
                    elif last is not None and hooks.refusal(call, error, made):
                        hooks.not_made(policy, call, Ending(None, error, call.failures), last, series)
                        break
                    series.stamp = stamp
                    wait = hooks.decide(policy, call, Ending(None, error, call.failures), series)
                    if wait.__class__ is not float and hasattr(wait.__class__, "__await__"):
                        wait = await ponder(wait, policy, call)
                    if wait is None:
                        raise
                    last = error
                    if call.deferred is not None:
                        working = call.deferred.joined(working)
                else:
                    if reward is not None:
                        try:
                            reward()
                        except Exception as error:
                            hook_failed("reward of a policy", policy, error)
                    return result
                if call.residue is not None:
                    await call.residue()
                if wait > 0:
                    await runtime.sleep(call, ambient.monotonic() + wait)
                    if call.interrupted:
                        hooks.not_made(policy, call, OK, last, series)
                        break
                call.renew()
            raise last
        finally:
            last = None  # its traceback holds this frame
            if around is not None:
                call.deadline = outer
                call.limit = whose
            if working is not None:
                call.deferred = working.joined(call.deferred)

    return attempts


async def ponder(wait: Any, policy: Loop, call: Call) -> float | None:
    """Await a decision that takes its time; if it is not there by the deadline, there is no other attempt."""
    try:
        return hooks.checked(await (wait if call.deadline == FOREVER else runtime.in_time(call, wait)))
    except DeadlineExceededError:
        return None
    except Exception as error:
        hook_failed("delay of a policy", policy, error)
        return None


def shadow_loop(policy: Loop, inner: Step, reward: Reward | None) -> Step:
    """Drive a Loop that only says what it would do."""

    async def watched(call: Call) -> Any:
        series = Series(ambient.monotonic(), runtime.effective_deadline, shadow=True)
        series.stamp = stamps.latest
        try:
            result = await inner(call)
        except Exception as error:
            wait = hooks.decide(policy, call, Ending(None, error, call.failures), series)
            if hasattr(wait.__class__, "__await__"):
                await ponder(wait, policy, call)
            raise
        if reward is not None:
            try:
                reward()
            except Exception as error:
                hook_failed("reward of a policy", policy, error)
        return result

    return watched


def scope(policy: Scope, inner: Step, limit: Limit) -> Step:
    """Drive a Scope: what is inside has its deadline, or an earlier one that is in force. `invoke` sees to it."""
    now = ambient
    whole = limit.word is TimeoutScope.CALL
    seconds = limit.seconds

    async def bounded(call: Call) -> Any:
        outer, whose = call.deadline, call.limit
        deadline = policy.deadline(call, now.monotonic()) if seconds is None else now.monotonic() + seconds
        if deadline >= outer:
            return await inner(call)
        call.deadline = deadline
        call.limit = limit
        if whole:
            call.whole = deadline
            call.whose_whole = limit
        try:
            return await inner(call)
        finally:
            call.deadline = outer
            call.limit = whose

    return bounded


def shadow_scope(policy: Scope, inner: Step, limit: Limit) -> Step:
    """Drive a Scope that only says when it would have cut."""

    async def watched(call: Call) -> Any:
        deadline = policy.deadline(call, ambient.monotonic())
        dropped = False
        try:
            return await inner(call)
        except GeneratorExit:
            dropped = True  # the interpreter finalises the coroutine: no time to call listeners
            raise
        finally:
            if not dropped and ambient.monotonic() >= deadline:
                deadline_errors.publish(call, limit, mode=Mode.SHADOW)

    return watched


def substitute(policy: Substitute[Any], inner: Step, site: Site) -> Step:
    """Drive a Substitute: put something in the place of an ending that it covers."""

    async def replacing(call: Call) -> Any:
        try:
            return await inner(call)
        except Exception as error:
            value = hooks.substitution(policy, call, Ending(None, error, call.failures))
            if value is hooks.PASS:
                raise
        if hasattr(value.__class__, "__await__"):
            value = await stand_in(value, call, policy.name)
        call.deferred = hooks.replacement(call.deferred)
        hooks.replaced(policy, call, site, Mode.ENFORCE)
        return value

    return replacing


async def stand_in(value: Any, call: Call, policy: str) -> Any:
    """Await a substitute, within the deadline that is in force around it."""
    del policy
    return await (value if call.deadline == FOREVER else runtime.in_time(call, value))


def shadow_substitute(policy: Substitute[Any], inner: Step, site: Site) -> Step:
    """Drive a Substitute that only says when it would stand in."""

    async def watched(call: Call) -> Any:
        try:
            return await inner(call)
        except Exception as error:
            if hooks.covers(policy, call, Ending(None, error, call.failures)):
                hooks.replaced(policy, call, site, Mode.SHADOW)
            raise

    return watched


def judge(inner: Step, allowlists: tuple[Allowlist, ...]) -> Step:
    """Turn returned values that are failures into exceptions, so that policies deal with one thing only."""

    async def judged(call: Call) -> Any:
        result = await inner(call)
        if is_bad(result, allowlists):
            raise BadResult(result)
        return result

    return judged


def remember(inner: Step) -> Step:
    """Keep a ledger of the bad results that are given up on further in."""

    async def remembering(call: Call) -> Any:
        token = hooks.open_ledger()
        try:
            return await inner(call)
        finally:
            hooks.close_ledger(token)

    return remembering


def within(
    inner: Step, site: Site, enter: Callable[[object, Call], object], leave: Callable[[object, Call], object]
) -> Step:
    """Let a call pass through a pipeline that stands in another one."""

    async def nested(call: Call) -> Any:
        guest = object()
        outer = call.site
        call.site = site
        try:
            enter(guest, call)
            return await inner(call)
        finally:
            call.site = outer
            leave(guest, call)

    return nested
