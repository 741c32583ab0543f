"""What both families of drivers do around the hooks of a policy, without waiting for anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import Token
from typing import Any

from resilience._call import deadline_errors, retry_marks
from resilience._call.call import Call, PipelineInfo
from resilience._call.caller import Caller
from resilience._call.settlement import REPLACED, DeferredSettlement, Settle, settle_after_error, settle_safely
from resilience._call.wait_queue import Ticket
from resilience._outcome.ending import OK, Ending
from resilience._policies.shapes import Gate, Loop, RetryState, Substitute
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import run_pending
from resilience._util.log_once import hook_failed
from resilience.errors import DeadlineExceededError, LateResult, RejectedError
from resilience.events._types import FallbackUsed, Mode, Rejected

PASS = object()
"""A substitute does not cover this ending."""


def decide_delay(loop: Loop, call: Call, ending: Ending, series: RetryState) -> Any:
    """Ask a Loop. If its hook fails, that is logged once and the ending comes out."""
    series.attempt_number += 1
    if ending.error.__class__ is LateResult:
        return None  # the caller gets the value, late as it is
    try:
        if call.retries_stopped and isinstance(ending.error, Exception):
            series.budget = None  # the attempt that it was paid for was made
            loop.on_attempt_rejected(call, OK, ending.error, series)
            return None
        wait: Any = loop.delay(call, ending, series)
        if wait is None or (wait.__class__ is float and 0.0 <= wait < FOREVER):
            return wait
        return wait if hasattr(wait.__class__, "__await__") else validated_delay(wait)
    except Exception as error:
        hook_failed("delay of a policy", loop, error)
        return None


def validated_delay(wait: Any) -> float | None:
    """Return a wait, if it is one."""
    return None if wait is None else validation.number("what delay returns", wait)


def is_rejected_attempt(call: Call, error: Exception, made: int) -> bool:
    """Return whether an error says that an attempt was not made, `made` being how often the function had been called.

    Once a function has begun, a refusal is what some other pipeline said to it, after who knows what it had done. But
    what guards the function itself may have refused it, and nothing was done.
    """
    if not isinstance(error, RejectedError) and not (isinstance(error, DeadlineExceededError) and error.unprocessed):
        return False
    if call.calls_made == made or call.single_attempt:
        return True
    guard: Any = getattr(call.function, "__resilience__", None)
    return isinstance(guard, Caller) and error.pipeline == guard.entry()[1].pipeline.name


def attempt_rejected(loop: Loop, call: Call, ending: Ending, last: Exception, series: RetryState) -> None:
    """Prepare the last real failure to come out instead of the refusal of another attempt."""
    try:
        loop.on_attempt_rejected(call, ending, last, series)
    except Exception as error:
        hook_failed("on_attempt_rejected of a policy", loop, error)
    if last.__traceback__ is not None:
        last.__traceback__ = last.__traceback__.tb_next  # the frame that raises it again comes on top anew


def acquire_or_leave(ticket: Ticket) -> bool:
    """Return whether what was dropped in the meantime gives a ticket its permit after all; otherwise it leaves."""
    run_pending()
    if ticket.acquire():
        return True
    ticket.leave()
    return False


def rejection_after_wait(gate: Gate[Any], ticket: Ticket, call: Call) -> Exception:
    """Return the error for a call that waited in vain, and publish it: what ran out first says which."""
    if call.deadline <= ticket.until and clock.monotonic() >= call.deadline:
        return deadline_errors.expired_error(
            call, f"while the call waited for {call.pipeline.name_of(gate) or gate.name}"
        )
    error = rejection_of(gate, call)
    publish_rejection(gate, call, error, Mode.ENFORCE)
    return error


def rejection_of(gate: Gate[Any], call: Call) -> RejectedError:
    """Ask a gate for its refusal; if the hook fails, make one."""
    try:
        return gate.rejection(call)
    except Exception as error:
        hook_failed("rejection of a policy", gate, error)
        return RejectedError(
            f"{gate.name} did not let the call in", policy=call.pipeline.name_of(gate), pipeline=call.pipeline.name
        )


def publish_rejection(gate: object, call: Call, error: RejectedError, mode: Mode) -> None:
    """Publish a rejection."""
    call.pipeline.publish(Rejected, gate, call, reason=error.reason, retry_after=error.retry_after, mode=mode)


def admit_with_events(gate: Gate[Any]) -> Callable[[Call], Any]:
    """Return what admits and publishes rejections, for while somebody listens to those."""
    admit = gate.admit

    def told(call: Call) -> Any:
        try:
            return admit(call)
        except RejectedError as error:
            publish_rejection(gate, call, error, Mode.ENFORCE)
            raise

    return told


def settle_gate_after_error(gate: Gate[Any], token: Any, call: Call, error: BaseException) -> None:
    """Settle a gate after an exception, or have that done when the work really ends."""
    if call.deferred is not None:
        call.deferred.settle_error(gate, token, Ending(None, error, call.failures))
    elif error.__class__ is GeneratorExit:
        settle_after_error(gate.settle, token, Ending(None, error))
    else:
        settle_safely(gate.settle, token, Ending(None, error, call.failures))


def settle_pair_after_error(
    inner: Gate[Any], inner_token: Any, outer: Gate[Any], outer_token: Any, call: Call, error: BaseException
) -> None:
    """Settle two gates after an exception, the outer one also if a Ctrl-C strikes as the inner one is settled."""
    ending: Ending | None = None
    try:
        if call.deferred is not None or error.__class__ is GeneratorExit:
            settle_gate_after_error(inner, inner_token, call, error)
        else:
            ending = Ending(None, error, call.failures)
            settle_safely(inner.settle, inner_token, ending)
    finally:
        if ending is None:
            settle_gate_after_error(outer, outer_token, call, error)
        else:
            settle_safely(outer.settle, outer_token, ending)


def settle_failed(settle: Settle, outer: Gate[Any], outer_token: Any, call: Call, error: BaseException) -> None:
    """Log that a gate's hook failed. If it was a Ctrl-C instead, settle the gate around it, and let that out."""
    try:
        if not isinstance(error, Exception):
            raise error
        hook_failed("settle of a policy", settle, error)
    except BaseException as struck:
        settle_gate_after_error(outer, outer_token, call, struck)
        raise


def substitution(substitute: Substitute[Any], call: Call, ending: Ending) -> Any:
    """Return what stands in for an ending; PASS if the substitute does not cover it."""
    return substitute.replace(call, ending) if should_handle(substitute, call, ending) else PASS


def should_handle(substitute: Substitute[Any], call: Call, ending: Ending) -> bool:
    """Ask a Substitute. If its hook fails, that is logged once and the ending comes out. A late value is a value."""
    if isinstance(ending.error, LateResult):
        return False
    try:
        return substitute.should_handle(call, ending)
    except Exception as error:
        hook_failed("should_handle of a policy", substitute, error)
        return False


def settlement_of_replacement(left: DeferredSettlement | None) -> DeferredSettlement:
    """Return what settles the gates around a substitute; what was `left` running may still hold something."""
    if left is None or left.ended:
        return REPLACED
    ending = DeferredSettlement(known=True)
    left.add(ending.end_with, None)
    return ending


def publish_replacement(substitute: Substitute[Any], call: Call, site: PipelineInfo, mode: Mode) -> None:
    """Publish that a substitute stood in, or would have."""
    site.publish(FallbackUsed, substitute, call, mode=mode)


def start_given_up_results() -> Token[retry_marks.GivenUpResults | None]:
    """Start to remember the bad results that are given up on further in."""
    return retry_marks.given_up_results.set(retry_marks.GivenUpResults(retry_marks.given_up_results.get()))


def end_given_up_results(token: Token[retry_marks.GivenUpResults | None]) -> None:
    """Stop remembering."""
    with contextlib.suppress(ValueError):  # a dropped coroutine is closed in another context, without this ledger
        current = retry_marks.given_up_results.get()
        retry_marks.given_up_results.reset(token)
        if current is not None:
            current.close()
