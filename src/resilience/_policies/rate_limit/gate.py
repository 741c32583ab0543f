"""The gate of one rate limit, or of several from which a call takes at once: admission, the queue, and settlement."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from resilience._call.call import Call
from resilience._call.timed_queue import TimedQueue
from resilience._call.wait_queue import Ticket, wake_all
from resilience._outcome.ending import OK, Ending, EndingKind
from resilience._policies.blocks import PermitGate, ResultGate
from resilience._policies.rate_limit.forecast import Charges, Forecast, ready_at
from resilience._policies.rate_limit.meter import LATE, Charge
from resilience._policies.rate_limit.source import Source, Waiting
from resilience._policies.rate_limit.tokens import SETTLED, Admitted, Corrections, RateTicket, Token, as_admitted
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state, members, state_lock
from resilience._util.log_once import hook_failed
from resilience.errors import RateLimitedError, RejectReason


class RateGate(PermitGate[Token], ResultGate[Token]):
    """What a RateLimit and a CombinedRateLimit have in common."""

    kind = "rate_limit"
    ticket_class: type[Ticket] = RateTicket

    def __init__(self, settings: Any, **options: Any) -> None:
        super().__init__(settings, **options)
        self._rejected = 0
        self._begin()

    def _begin(self) -> None:
        """Begin with an empty queue."""
        self._queue = TimedQueue(self)
        self._waiting = self._queue.waiting
        self._forecast: Forecast | None = None

    @property
    @abstractmethod
    def _sources(self) -> Sequence[Source]:
        """The rate limits from which a call takes."""

    @abstractmethod
    def amounts(self, parameter: str, given: Any) -> Mapping[Source, float]:
        """Return the units that were given for a reservation, by rate limit, validated."""

    @property
    def queued(self) -> int:
        """The number of calls that wait."""
        return len(self._waiting)

    def admit(self, call: Call) -> Token:
        """Take what the call costs, or return a ticket to wait on.

        Raises:
            RateLimitedError: the wait would be longer than the call may wait.
        """
        return self.admit_with(call, {}, track=self._settles_later)

    def admit_with(self, call: Call, estimates: Mapping[Source, float], *, track: bool) -> Token:
        """Do what `admit` does, with other costs than those of the settings.

        Args:
            call: the call.
            estimates: what it takes from rate limits, instead of their own costs.
            track: whether what it really took will be settled afterwards.
        """
        sources = self._sources
        charges = [(one.meter, Charge(estimates[one] if one in estimates else one.cost_of(call))) for one in sources]
        admitted = Admitted(call, charges)
        if not charges:
            return admitted
        if inside_state():  # a finalizer or a signal handler has interrupted a change of the state
            self._reject(call, None)
        longest_wait = min(source.settings.longest_wait for source in sources)
        ticket: RateTicket | None = None
        to_wake: list[Ticket] = []
        try:
            with state_lock:
                self._begin_change()
                if self._waiting:
                    self._queue.grant_due(to_wake)
                now = clock.monotonic()
                at = self._forecast_at(charges)
                wait = at - now
                if not self._waiting and wait <= min(meter.rounding for meter, _ in charges):
                    for meter, charge in charges:
                        meter.charge(charge, now, track=track)
                elif at <= now + longest_wait and at < call.deadline:
                    ticket = RateTicket(self._queue, now + longest_wait, now, at, admitted, track)
                    if self._forecast is not None:
                        self._forecast.joined(charges, at)
                    self._queue.join(ticket)
                else:
                    self._rejected += 1
                    admitted = SETTLED
                self._end_change()
        finally:
            wake_all(to_wake)
            if pending:
                run_pending()
        if admitted is SETTLED:
            self._reject(call, max(0.0, wait))
        return admitted if ticket is None else ticket

    def _begin_change(self) -> None:
        """Called before a change of a meter that takes more than one step. Lock held."""

    def _end_change(self) -> None:
        """Called after such a change. Lock held."""

    def _forecast_at(self, charges: Charges) -> float:
        """Return when a call will be admitted that joins the queue now. Lock held."""
        if not self._waiting:
            self._forecast = None
            return ready_at(charges)
        forecast = self._forecast
        if forecast is None or not forecast.holds(self._waiting):
            waiting: Any = self._waiting
            forecast = self._forecast = Forecast(ticket.charges for ticket in waiting)
        return forecast.ready_at(charges)

    def _wait_of_one(self) -> float:
        """Return the seconds that a call which comes now and costs 1 would wait. Lock held."""
        at = self._forecast_at([(source.meter, Charge(1.0)) for source in self._sources])
        return max(0.0, at - clock.monotonic())

    # The schedule of the queue. The lock is held.

    def ready_at(self, ticket: Any) -> float:
        """Return the time from which the first waiting call is admitted. Called by the queue."""
        return ready_at(ticket.charges)

    def take(self, ticket: Any, at: float) -> None:
        """Charge the first waiting call. Called by the queue.

        A call that is a little late is charged at the time at which it could have been admitted, so that timers which
        are late lose no slots. A later one is charged now: otherwise all that came due during a stall would go at once.
        """
        now = clock.monotonic()
        late = now - at > LATE
        forecast = self._forecast
        if forecast is not None and not forecast.holds(self._waiting):
            forecast = self._forecast = None
        for meter, charge in ticket.charges:
            if late and now > meter.full_at:
                forecast = self._forecast = None
            meter.charge(charge, now if late else at, track=ticket.track)
        if forecast is not None:
            forecast.admitted(ticket.charges)

    def give_back(self, ticket: Any) -> None:
        """Refund what a cancelled call was charged. Called by the queue, which then admits those behind it."""
        self._correct(ticket.admitted, [(meter, charge, 0.0) for meter, charge in ticket.charges], close=True)
        if any(gate.waits_since < FOREVER for gate in self._gates() if gate is not self):
            put_off(self._admit_due_everywhere)

    # Settlement

    settles_success = False

    @property
    def _settles_later(self) -> bool:
        """Whether one of the rate limits has an `actual`."""
        return any(source.settings.actual is not None for source in self._sources)

    @property
    def observes_results(self) -> bool:
        """Whether a chain is to call `on_result`."""
        return self._settles_later

    def on_result(self, token: Token, result: Any) -> None:
        """Ask each `actual` for what the call really took. If one fails, that is logged once, and the cost stays."""
        admitted = self.admitted_of(token)
        used: Corrections = []
        for source in self._sources:
            actual = source.settings.actual
            if actual is None:
                continue
            try:
                units = actual(result)
                if units is not None:
                    used += admitted.of(source.meter, validation.number("what actual returns", units))
            except Exception as error:
                hook_failed("actual of a policy", actual, error)
        self.correct(admitted, used, close=True)

    def on_response_head(self, token: Token) -> Token:
        """Keep nothing until the end: a call that got a response has taken what it has taken."""
        self.settle(token, OK)
        return SETTLED

    def settle(self, token: Token, ending: Ending) -> None:
        """Refund what the call took if its function was not called, such as after a rejection by an inner policy."""
        if token.__class__ is tuple and ending is OK:
            return
        admitted = self.admitted_of(token)
        unused = admitted.is_unused and (ending.error is not None or ending.kind is EndingKind.ABANDONED)
        used = [(*charge, 0.0) for charge in admitted.charges] if unused else []
        self.correct(admitted, used, close=True)

    def correct(self, admitted: Admitted, used: Corrections, *, close: bool) -> None:
        """Correct charges to what was really used; with `close`, do not track them any more."""
        if not used and not any(charge in meter.tracked for meter, charge in admitted.charges):
            return
        if inside_state():
            put_off(partial(self.correct, admitted, used, close=close))
            return
        with state_lock:
            self._correct(admitted, used, close=close)
        if pending:
            run_pending()
        if used:
            self._admit_due_everywhere()

    def admitted_of(self, token: Token) -> Admitted:
        """Return what was admitted with a token."""
        return token if isinstance(token, Admitted) else as_admitted(token, self._sources)

    def _correct(self, admitted: Admitted, used: Corrections, *, close: bool) -> None:
        """Do what `correct` does, with the lock held and without admitting calls after it."""
        self._begin_change()
        now = clock.monotonic()
        for meter, charge, units in used:
            meter.correct(charge, units, now)
        for meter, charge in admitted.charges if close else ():
            meter.tracked.pop(charge, None)
        self._end_change()

    @property
    def waits_since(self) -> float:
        """When the first waiting call has joined the queue; infinity if none waits. Internal."""
        return min((ticket.since for ticket in list(self._waiting)[:1]), default=FOREVER)

    def admit_due(self) -> None:
        """Admit the waiting calls that are due. Internal."""
        if self._waiting:
            self._queue.grant()

    def _gates(self) -> set[Waiting]:
        """Return the gates that take from these rate limits."""
        return {gate for source in self._sources for gate in members(source.gates)}

    def _admit_due_everywhere(self) -> None:
        """Admit the waiting calls that are due in all these gates, since a refund moves them forward."""
        for gate in sorted(self._gates(), key=lambda gate: gate.waits_since):
            gate.admit_due()

    # Rejection

    def rejection(self, call: Call) -> RateLimitedError:
        """Return the error for a call that was not admitted within its longest wait."""
        sources = () if inside_state() else self._sources
        charges = [(source.meter, Charge(source.cost_of(call))) for source in sources]
        return self.rejection_after_wait(charges, call, counts=False)

    def rejection_after_wait(self, charges: Charges, call: Call, *, counts: bool = True) -> RateLimitedError:
        """Return the error for a call that has waited for so much, and count it. Internal."""
        if inside_state():
            return self._error(call, None)
        with state_lock:
            self._rejected += counts
            wait = max(0.0, self._forecast_at(charges) - clock.monotonic())
        if pending:
            run_pending()
        return self._error(call, wait)

    def _reject(self, call: Call, wait: float | None) -> NoReturn:
        error = self._error(call, wait)
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    def _error(self, call: Call, wait: float | None) -> RateLimitedError:
        """Return the rejection of a call; `wait` is the seconds until it could be admitted, None if unknown."""
        info = call.pipeline
        when = "cannot be asked now" if wait is None else f"has its next slot for it in {wait:.3g} s"
        return RateLimitedError(
            f"{info.label(self, self.name)} {when}, and the call may not wait so long; the dependency was not called. "
            "Make fewer calls, or raise max_wait, or rate and burst if the dependency permits more",
            policy=info.name_of(self) or self.name,
            pipeline=info.name,
            reason=RejectReason.RATE,
            retry_after=wait,
        )

    def _forget_calls(self) -> None:
        super()._forget_calls()
        self._begin()
        for source in self._sources:
            source.meter.forget()
