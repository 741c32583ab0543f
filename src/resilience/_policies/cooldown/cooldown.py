"""Cooldown: when the server asks one call to come back later, hold back all calls until then."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from resilience._call.call import Call
from resilience._call.wait_queue import Ticket, wake_all
from resilience._outcome.ending import OK, Ending
from resilience._policies.cooldown.pause import CooldownTicket, Pause
from resilience._policies.shapes import Gate
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state, state_lock
from resilience._util.values import Value
from resilience.errors import RateLimitedError, RejectReason
from resilience.events._policy_types import CooldownEnded, CooldownStarted
from resilience.events._types import Event, Mode, ModeName


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CooldownSettings(Value):
    """The settings of a Cooldown; `Cooldown` describes each."""

    spread: float
    max_wait: float | None
    longest: float
    proactive: bool

    def __post_init__(self) -> None:
        """Validate the settings; numbers become floats."""
        object.__setattr__(self, "spread", validation.number("spread", self.spread, high=1.0))
        if self.max_wait is not None:
            object.__setattr__(self, "max_wait", validation.number("max_wait", self.max_wait))
        object.__setattr__(self, "longest", validation.number("longest", self.longest, above=True))
        validation.flag("proactive", self.proactive)

    def pause_after(self, ending: Ending) -> float:
        """Return for how many seconds the server asks all calls to wait, at most `longest`; 0 if it does not ask."""
        hint, failure = ending.hint, ending.failure
        seconds = 0.0 if failure is None else failure.retry_after or 0.0
        if hint is not None and self.proactive and hint.remaining <= 0:
            seconds = max(seconds, hint.resets_in)
        return min(seconds, self.longest)

    def waits_until(self, now: float, deadline: float) -> float:
        """Return until when a call with this deadline waits in the queue, which its deadline may end earlier."""
        if self.max_wait is not None:
            return now + self.max_wait
        return now + self.longest * (1 + self.spread) if deadline == FOREVER else FOREVER


class Cooldown(Gate["CooldownTicket | None"]):
    """Hold all calls back when the server has asked one of them to come back later.

    Args:
        spread: the share of the pause, from 0 to 1, over which the calls that waited are spread after its end; with 0
            they all go at its end.
        max_wait: the longest wait of a call, in seconds, >= 0. None: its deadline alone bounds the wait; or if it has
            none, the longest pause with its spread, `longest * (1 + spread)`.
        longest: the longest pause in seconds, > 0. If the server asks for more, the pause is that long.
        proactive: whether a good response that says that no more requests are left until the quota is renewed begins a
            pause, too.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, a call that would have been rejected or had to wait is reported, and
            admitted at once.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    A pause begins when a call ends with a failure that has a `retry_after`, such as a Retry-After header or the
    pushback of gRPC, or with a good ending whose `hint` has nothing remaining. A later hint extends it if it would end
    later by that; otherwise it changes nothing. A success does not end a pause.

    A call that comes during a pause waits for its end, and is then admitted at a random time within `spread` times its
    length, in the order of arrival; while calls wait, later ones queue behind them. If the pause ends too late for the
    call, after its longest wait, or at its deadline or later, it raises `RateLimitedError` at once, with the reason
    "cooldown". So does a call whose longest wait passes in the queue; if its deadline passes there, it raises
    `DeadlineExceededError`. In all cases the dependency was not called.

    Put it inside a Retry, so that it sees the hint of each attempt. The call that has met the hint waits in its Retry,
    and then comes as any other. A pause is no failure: nothing is counted.

    Threads, asyncio tasks and trio tasks may share one Cooldown and its queue. `update()` works while calls are
    running, and does not change a pause that has begun.
    """

    kind = "cooldown"
    ticket_class = CooldownTicket
    settings: CooldownSettings

    # `_cooling` is set from the first hint until a call finds that the pause is over and no call waits any more. While
    # it is not set, a call looks at nothing else.

    def __init__(
        self,
        spread: float = 0.2,
        *,
        max_wait: float | None = None,
        longest: float = 60.0,
        proactive: bool = True,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        settings = CooldownSettings(spread=spread, max_wait=max_wait, longest=longest, proactive=proactive)
        super().__init__(settings, name=name, mode=mode)
        self._cooling = False
        self._pause = Pause()

    @property
    def active(self) -> bool:
        """Whether calls are held back: the pause lasts, or calls that waited for it have not gone yet."""
        return self._pause.holds(clock.monotonic())

    @property
    def queued(self) -> int:
        """The number of calls that wait."""
        return len(self._pause.queue)

    def admit(self, call: Call) -> CooldownTicket | None:
        """Admit the call, or return a ticket to wait on.

        Raises:
            RateLimitedError: the pause does not end in time for the call.
        """
        return self._hold(call) if self._cooling else None

    def _hold(self, call: Call) -> CooldownTicket | None:
        pause = self._pause
        if inside_state():  # a finalizer or a signal handler has interrupted a change of the state
            if pause.holds(clock.monotonic()):
                raise self.rejection(call)
            return None
        ticket: CooldownTicket | None = None
        held: float | None = None
        to_wake: list[Ticket] = []
        try:
            with state_lock:
                now = clock.monotonic()
                holds = pause.holds(now)
                if holds:
                    until = self.settings.waits_until(now, call.deadline)
                    if pause.ends <= until and pause.ends < call.deadline:
                        ticket = pause.join(now, until, to_wake)
                elif self._cooling:
                    held = self._finish()
        finally:
            wake_all(to_wake)
            if pending:
                run_pending()
        if held is not None:
            self._publish(CooldownEnded, seconds=held)
        if holds and ticket is None:
            raise self.rejection(call)
        return ticket

    def settle(self, token: CooldownTicket | None, ending: Ending) -> None:
        """Look for a hint of the server in the ending."""
        if ending is not OK:
            self._look_for_hint(ending)

    def _look_for_hint(self, ending: Ending) -> None:
        if inside_state():
            put_off(partial(self._look_for_hint, ending))
            return
        seconds = self.settings.pause_after(ending)  # it may call a predicate of the user, so it is asked without lock
        if seconds > 0.0:
            self._begin_pause(seconds)

    def _begin_pause(self, seconds: float) -> None:
        pause = self._pause
        held: float | None = None
        with state_lock:
            now = clock.monotonic()
            if self._cooling and not pause.holds(now):
                held = self._finish()
            extended = self._cooling
            changed = pause.extend(now, seconds, self.settings.spread)
            self._cooling = True
        if pending:
            run_pending()
        if held is not None:
            self._publish(CooldownEnded, seconds=held)
        if changed:
            self._publish(CooldownStarted, seconds=seconds, extended=extended)

    def rejection(self, call: Call) -> RateLimitedError:
        """Return the error for a call for which the pause ends too late."""
        info = call.pipeline
        left = self._seconds_left
        return RateLimitedError(
            f"{info.label(self, self.name)} holds calls back for {left:.3g} s more, since the server has asked for a "
            "pause: the dependency was not called; wait for `retry_after` seconds, or give calls a later deadline or a "
            "longer max_wait",
            policy=info.name_of(self) or self.name,
            pipeline=info.name,
            reason=RejectReason.COOLDOWN,
            retry_after=left,
        )

    @property
    def _seconds_left(self) -> float:
        """The seconds until the end of the pause, or after that until the last waiting call has gone."""
        now = clock.monotonic()
        pause = self._pause
        ends = pause.ends if pause.closed(now) or not pause.queue.waiting else pause.spread_end
        return max(0.0, ends - now)

    def _busy_until(self, now: float) -> float:
        return now + self._seconds_left

    def snapshot(self) -> dict[str, Any]:
        """Return the state as data.

        The keys are `active`; `seconds_left`, of the pause; `queued`; and `closed_share`, the share of the last minute
        in which a pause lasted, from 0 to 1.
        """
        with state_lock:
            now = clock.monotonic()
            pause = self._pause
            closed = pause.closed(now)
            state = {
                "active": pause.holds(now),
                "seconds_left": pause.ends - now if closed else 0.0,
                "queued": len(pause.queue),
                "closed_share": pause.closed_share(now),
            }
        if pending:
            run_pending()
        return state

    def reset(self) -> None:
        """End the pause, and forget that there was one. All waiting calls are admitted at once."""
        if inside_state():
            put_off(self.reset)
            return
        held: float | None = None
        to_wake: list[Ticket] = []
        try:
            with state_lock:
                if self._cooling:
                    held = self._finish()
                queue = self._pause.queue
                self._pause.clear()
                queue.grant_due(to_wake)
        finally:
            wake_all(to_wake)
            if pending:
                run_pending()
        if held is not None:
            self._publish(CooldownEnded, seconds=held)

    def _finish(self) -> float:
        """Note that no call is held back any more; return for how long calls were. Lock held."""
        self._cooling = False
        return self._pause.held_for(clock.monotonic())

    def _forget_calls(self) -> None:
        self._pause = self._pause.without_calls()

    def _publish(self, kind: type[Event], **facts: Any) -> None:
        """Publish an event in every pipeline that contains the policy. No lock is held: listeners may use it."""
        for pipeline in self._pipelines():
            info = pipeline.info
            name = info.name_of(self) or self.name
            mode = pipeline.effective_mode(self)
            info.bus.publish(kind, pipeline=info.name, policy=name, operation="", target=None, mode=mode, **facts)
