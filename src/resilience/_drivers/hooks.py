"""What both families of drivers do around the hooks of a policy, without waiting for anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import Token
from typing import Any

from resilience._call import deadline_errors, retry_marks
from resilience._call.call import Call, Site
from resilience._call.caller import Caller
from resilience._call.settlement import REPLACED, Deferred, Settle, conclude, unwind
from resilience._call.wait_queue import Ticket
from resilience._outcome.ending import OK, Ending
from resilience._policies.shapes import Gate, Loop, Series, Substitute
from resilience._util import validation
from resilience._util.clock import FOREVER, ambient
from resilience._util.finalizers import run_pending
from resilience._util.log_once import hook_failed
from resilience.errors import DeadlineExceededError, LateResult, RejectedError
from resilience.events._types import FallbackUsed, Mode, Rejected

PASS = object()
"""A substitute does not cover this ending."""


def decide(loop: Loop, call: Call, ending: Ending, series: Series) -> Any:
    """Ask a Loop. If its hook fails, that is logged once and the ending comes out."""
    series.number += 1
    if ending.error.__class__ is LateResult:
        return None  # the caller gets the value, late as it is
    try:
        if call.interrupted and isinstance(ending.error, Exception):
            series.payer = None  # the attempt that it was paid for was made
            loop.not_made(call, OK, ending.error, series)
            return None
        wait: Any = loop.delay(call, ending, series)
        if wait is None or (wait.__class__ is float and 0.0 <= wait < FOREVER):
            return wait
        return wait if hasattr(wait.__class__, "__await__") else checked(wait)
    except Exception as error:
        hook_failed("delay of a policy", loop, error)
        return None


def checked(wait: Any) -> float | None:
    """Return a wait, if it is one."""
    return None if wait is None else validation.number("what delay returns", wait)


def refusal(call: Call, error: Exception, made: int) -> bool:
    """Return whether an error says that an attempt was not made, `made` being how often the function had been called.

    Once a function has begun, a refusal is what some other pipeline said to it, after who knows what it had done. But
    what guards the function itself may have refused it, and nothing was done.
    """
    if not isinstance(error, RejectedError) and not (isinstance(error, DeadlineExceededError) and error.unprocessed):
        return False
    if call.made == made or call.sole:
        return True
    guard: Any = getattr(call.function, "__resilience__", None)
    return isinstance(guard, Caller) and error.pipeline == guard.entry()[1].site.name


def not_made(loop: Loop, call: Call, ending: Ending, last: Exception, series: Series) -> None:
    """Prepare the last real failure to come out instead of the refusal of another attempt."""
    try:
        loop.not_made(call, ending, last, series)
    except Exception as error:
        hook_failed("not_made of a policy", loop, error)
    if last.__traceback__ is not None:
        last.__traceback__ = last.__traceback__.tb_next  # the frame that raises it again comes on top anew


def last_look(ticket: Ticket) -> bool:
    """Return whether what was dropped in the meantime gives a ticket its permit after all; otherwise it leaves."""
    run_pending()
    if ticket.take():
        return True
    ticket.leave()
    return False


def refused(gate: Gate[Any], ticket: Ticket, call: Call) -> Exception:
    """Return the error for a call that waited in vain, and publish it: what ran out first says which."""
    if call.deadline <= ticket.until and ambient.monotonic() >= call.deadline:
        return deadline_errors.expired(call, f"while the call waited for {call.site.name_of(gate) or gate.name}")
    error = refusal_of(gate, call)
    announce(gate, call, error, Mode.ENFORCE)
    return error


def refusal_of(gate: Gate[Any], call: Call) -> RejectedError:
    """Ask a gate for its refusal; if the hook fails, make one."""
    try:
        return gate.refusal(call)
    except Exception as error:
        hook_failed("refusal of a policy", gate, error)
        return RejectedError(
            f"{gate.name} did not let the call in", policy=call.site.name_of(gate), pipeline=call.site.name
        )


def announce(gate: object, call: Call, error: RejectedError, mode: Mode) -> None:
    """Publish a rejection."""
    call.site.publish(Rejected, gate, call, reason=error.reason, retry_after=error.retry_after, mode=mode)


def telling(gate: Gate[Any]) -> Callable[[Call], Any]:
    """Return what admits and publishes rejections, for while somebody listens to those."""
    admit = gate.admit

    def told(call: Call) -> Any:
        try:
            return admit(call)
        except RejectedError as error:
            announce(gate, call, error, Mode.ENFORCE)
            raise

    return told


def give_back(gate: Gate[Any], token: Any, call: Call, error: BaseException) -> None:
    """Settle a gate after an exception, or have that done when the work really ends."""
    if call.deferred is not None:
        call.deferred.raised(gate, token, Ending(None, error, call.failures))
    elif error.__class__ is GeneratorExit:
        unwind(gate.settle, token, Ending(None, error))
    else:
        conclude(gate.settle, token, Ending(None, error, call.failures))


def give_back_both(
    inner: Gate[Any], inner_token: Any, outer: Gate[Any], outer_token: Any, call: Call, error: BaseException
) -> None:
    """Settle two gates after an exception, the outer one also if a Ctrl-C strikes as the inner one is settled."""
    ending: Ending | None = None
    try:
        if call.deferred is not None or error.__class__ is GeneratorExit:
            give_back(inner, inner_token, call, error)
        else:
            ending = Ending(None, error, call.failures)
            conclude(inner.settle, inner_token, ending)
    finally:
        if ending is None:
            give_back(outer, outer_token, call, error)
        else:
            conclude(outer.settle, outer_token, ending)


def not_settled(settle: Settle, outer: Gate[Any], outer_token: Any, call: Call, error: BaseException) -> None:
    """Log that a gate's hook failed. If it was a Ctrl-C instead, settle the gate around it, and let that out."""
    try:
        if not isinstance(error, Exception):
            raise error
        hook_failed("settle of a policy", settle, error)
    except BaseException as struck:
        give_back(outer, outer_token, call, struck)
        raise


def substitution(substitute: Substitute[Any], call: Call, ending: Ending) -> Any:
    """Return what stands in for an ending; PASS if the substitute does not cover it."""
    return substitute.replace(call, ending) if covers(substitute, call, ending) else PASS


def covers(substitute: Substitute[Any], call: Call, ending: Ending) -> bool:
    """Ask a Substitute. If its hook fails, that is logged once and the ending comes out. A late value is a value."""
    if isinstance(ending.error, LateResult):
        return False
    try:
        return substitute.covers(call, ending)
    except Exception as error:
        hook_failed("covers of a policy", substitute, error)
        return False


def replacement(left: Deferred | None) -> Deferred:
    """Return what settles the gates around a substitute; what was `left` running may still hold something."""
    if left is None or left.ended:
        return REPLACED
    ending = Deferred(known=True)
    left.then(ending.end_with, None)
    return ending


def replaced(substitute: Substitute[Any], call: Call, site: Site, mode: Mode) -> None:
    """Publish that a substitute stood in, or would have."""
    site.publish(FallbackUsed, substitute, call, mode=mode)


def open_ledger() -> Token[retry_marks.Ledger | None]:
    """Start to remember the bad results that are given up on further in."""
    return retry_marks.ledger.set(retry_marks.Ledger(retry_marks.ledger.get()))


def close_ledger(token: Token[retry_marks.Ledger | None]) -> None:
    """Stop remembering."""
    with contextlib.suppress(ValueError):  # a dropped coroutine is closed in another context, without this ledger
        current = retry_marks.ledger.get()
        retry_marks.ledger.reset(token)
        if current is not None:
            current.close()
