"""The drivers of a Race for coroutine functions. The first attempt runs in the task of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilience import _runtime as runtime
from resilience._call.running_call import RunningCall
from resilience._drivers.async_ import Step
from resilience._drivers.contest import Attempt, Contest, begin, begin_shadow, call_on_success, result_of
from resilience._policies.base import Policy, fixed
from resilience._policies.shapes import OnSuccess, Race


def race(policy: Race, inner: Step, on_success: OnSuccess | None, inside: tuple[Policy[Any], ...]) -> Step:
    """Drive a Race: start attempts as the policy says, use the outcome of the winner, cancel and await the others."""
    decide = fixed(policy)

    async def racing(call: RunningCall) -> Any:
        state, now = begin(decide, call, inside)
        if state is None:
            result = await inner(call)
        else:
            contest = AsyncContest(policy, state, call, now, inner)
            attempt = contest.start_next(copied=False)
            if attempt is None:
                result = await inner(call)
            else:
                try:
                    await runtime.race(contest, attempt, via_anyio=call.respects_shields)
                except BaseException as error:
                    if not isinstance(error, GeneratorExit):  # after which nothing can be awaited
                        await runtime.shielded(contest.dispose(contest.attempts))
                    raise
                if len(contest.attempts) > 1:
                    await contest.dispose(contest.losers())
                result = contest.finish()
        call_on_success(policy, on_success)
        return result

    return racing


def shadow_race(policy: Race, inner: Step, on_success: OnSuccess | None, inside: tuple[Policy[Any], ...]) -> Step:
    """Drive a Race in shadow mode: the call is made once; a further attempt that was due is reported at its end."""
    decide = fixed(policy)

    async def watched(call: RunningCall) -> Any:
        shadow = begin_shadow(policy, decide, call, inside)
        try:
            result = await inner(call)
        except Exception as error:
            if shadow is not None:
                shadow.ended(call.ending_of(error))
            raise
        if shadow is not None:
            shadow.ended(call.good)
        call_on_success(policy, on_success)
        return result

    return watched


class AsyncContest(Contest):
    """One call of a Race in tasks: the runtimes start the attempts, and this makes them."""

    __slots__ = ("_inner",)

    def __init__(self, policy: Race, state: Any, call: RunningCall, begun: float, inner: Step) -> None:
        super().__init__(policy, state, call, begun)
        self._inner = inner

    async def dispose(self, attempts: Sequence[Attempt]) -> None:
        """Close the results of these attempts, which are not used."""
        for one in attempts:
            unused = result_of(one.error, one.result)
            if unused is not None:
                await one.call.adispose(unused)

    def lost(self, attempt: Attempt) -> None:
        """Take note that an attempt was cancelled; if that was before the function was called, it was not made."""
        if attempt.call.calls_made == attempt.calls_before:
            self.cancelled(attempt)
        else:
            super().lost(attempt)

    async def make(self, attempt: Attempt) -> None:
        """Make an attempt, and take note of how it ended. Only a cancellation is raised, or a GeneratorExit."""
        try:
            attempt.result = await self._inner(attempt.call)
        except BaseException as error:
            if isinstance(error, GeneratorExit) or runtime.is_cancellation(error):
                raise
            attempt.error = error
        self.ended(attempt)
