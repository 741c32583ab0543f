"""The drivers of a Race for plain functions. Attempts run on threads of their own, so that they can be left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience._call.running_call import RunningCall
from resilience._drivers.contest import Attempt, Contest, begin, begin_shadow, call_on_success, joined
from resilience._drivers.sync import Step
from resilience._policies.base import Policy, fixed
from resilience._policies.shapes import OnSuccess, Race, RaceState
from resilience._runtime import threads as runtime
from resilience._runtime.threads import ThreadCall
from resilience._util.clock import FOREVER


def race(policy: Race, inner: Step, on_success: OnSuccess | None, inside: tuple[Policy[Any], ...]) -> Step:
    """Drive a Race: start attempts as the policy says, use the outcome of the winner, leave the others behind."""
    decide = fixed(policy)

    def racing(call: RunningCall) -> Any:
        state, now = begin(decide, call, inside)
        if state is None:
            result = inner(call)
        else:
            contest = ThreadContest(policy, state, call, now, inner)
            try:
                contest.run()
            finally:
                contest.leave_losers()
            result = contest.finish()
        call_on_success(policy, on_success)
        return result

    return racing


def shadow_race(policy: Race, inner: Step, on_success: OnSuccess | None, inside: tuple[Policy[Any], ...]) -> Step:
    """Drive a Race in shadow mode: the call is made once; a further attempt that was due is reported at its end."""
    decide = fixed(policy)

    def watched(call: RunningCall) -> Any:
        shadow = begin_shadow(policy, decide, call, inside)
        try:
            result = inner(call)
        except Exception as error:
            if shadow is not None:
                shadow.ended(call.ending_of(error))
            raise
        if shadow is not None:
            shadow.ended(call.good)
        call_on_success(policy, on_success)
        return result

    return watched


class ThreadContest(Contest):
    """One call of a Race in threads."""

    __slots__ = ("_inner", "_running")

    def __init__(self, policy: Race, state: RaceState, call: RunningCall, begun: float, inner: Step) -> None:
        super().__init__(policy, state, call, begun)
        self._inner = inner
        self._running: dict[Attempt, ThreadCall] = {}

    def run(self) -> None:
        """Make attempts until the outcome is known. One that no other can follow is made in this thread."""
        first = self.start_next()
        if first is None or self.next_at() == FOREVER:
            self._make_here(first or self.stand_in())
            return
        self._start(first)
        while not self.over:
            while (attempt := self.start_next()) is not None:
                self._start(attempt)
            if not self.over:
                runtime.park(self, self.next_at())
                self._collect()

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Register a callback for the end of any thread; return False if one has ended."""
        return all(thread.add_waker(wake) for thread in self._running.values())

    def leave_losers(self) -> None:
        """Leave the threads that still run to themselves: what they hold is released when they end."""
        left = list(self._running.items())
        self._running.clear()
        for attempt, thread in left:
            if thread.stop_waiting():
                self._take(attempt, thread)
            else:
                attempt.call.calls_made = thread.calls_made
                self.lost(attempt)
        for one in self.losers():
            if one.error is None and one.ended:
                one.call.dispose(one.result)
        if self.attempts and not self.over:  # this thread was interrupted
            self._call.deferred = joined(self.attempts)

    def _make_here(self, attempt: Attempt) -> None:
        try:
            attempt.result = self._inner(attempt.call)
        except Exception as error:
            attempt.error = error
        self.ended(attempt)

    def _start(self, attempt: Attempt) -> None:
        thread = ThreadCall(self._inner, attempt.call)
        self._running[attempt] = thread
        try:
            thread.start()
        except RuntimeError as error:  # the system cannot start another thread
            del self._running[attempt]
            if attempt.number > 1:
                self.cancelled(attempt)
            else:
                attempt.error = error
                self.ended(attempt)

    def _collect(self) -> None:
        """Take the outcomes of the threads that have ended."""
        for attempt, thread in list(self._running.items()):
            if thread.finished:
                del self._running[attempt]
                self._take(attempt, thread)

    def _take(self, attempt: Attempt, thread: ThreadCall) -> None:
        try:
            attempt.result = thread.outcome()
        except BaseException as error:
            attempt.error = error
        self.ended(attempt)
