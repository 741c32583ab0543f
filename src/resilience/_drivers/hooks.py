"""The parts of the drivers that call the hooks of a policy, for both families. Nothing here waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from resilience._call import deadline_errors
from resilience._call.ambient import Ambient
from resilience._call.call import Call, PipelineInfo
from resilience._call.caller import Caller
from resilience._call.generator_call import Exhausted, Head
from resilience._call.retry_state import RetryState
from resilience._call.running_call import RunningCall
from resilience._call.settlement import REPLACED, DeferredSettlement
from resilience._call.wait_queue import Ticket
from resilience._outcome.ending import ABANDONED, OK, Ending
from resilience._policies.blocks import ResultGate
from resilience._policies.shapes import Gate, Loop, Substitute
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import run_pending, settle_from_finalizer
from resilience._util.log_once import hook_failed
from resilience.errors import CarriedResult, DeadlineExceededError, LateResult, RejectedError
from resilience.events._bus import Subscription
from resilience.events._types import FallbackUsed, Mode, Rejected, type_name

CountCall: TypeAlias = "Callable[[object, RunningCall], object]"
"""Counts a call in or out of a nested pipeline; the first argument is a key for this passage."""

# Gate: admission


def publish_rejection(gate: object, call: Call, error: RejectedError, mode: Mode) -> None:
    """Publish a Rejected event. The log distinguishes them by the type of the error: it has lines of each gate."""
    if wanting := call.pipeline.bus.listeners_for(Rejected, error.__class__):
        deliver_rejection(wanting, gate, call, error, mode)


def deliver_rejection(
    wanting: Sequence[Subscription], gate: object, call: Call, error: RejectedError, mode: Mode = Mode.ENFORCE
) -> None:
    """Deliver a Rejected event to the subscriptions that want it; for drivers, which ask by themselves."""
    call.pipeline.publish_to(
        wanting,
        Rejected,
        gate,
        call,
        reason=error.reason,
        retry_after=error.retry_after,
        mode=mode,
        error_type=type_name(error),
        partition_key=getattr(gate, "_key", None),
    )


def acquire_or_leave(ticket: Ticket) -> bool:
    """Run the pending settlements, which may release a permit; acquire it, or else leave the queue.

    Called when the wait of a ticket has timed out. Return whether a permit was acquired.
    """
    run_pending()
    if ticket.acquire():
        return True
    ticket.leave()
    return False


def rejection_after_wait(gate: Gate[Any], ticket: Ticket, call: RunningCall) -> Exception:
    """Return the error for a call whose wait timed out: of its deadline if that passed first, else of the gate.

    The event is published, too.
    """
    if call.deadline <= ticket.until and clock.monotonic() >= call.deadline:
        where = f"while the call waited for {call.pipeline.name_of(gate) or gate.name}"
        return deadline_errors.expired_error(call, where)
    error = rejection_of(gate, call, ticket)
    publish_rejection(gate, call, error, Mode.ENFORCE)
    return error


def rejection_of(gate: Gate[Any], call: Call, ticket: Ticket | None = None) -> RejectedError:
    """Return the gate's rejection, after the wait of a ticket or at once; if its hook fails, a plain RejectedError."""
    try:
        return gate.rejection(call) if ticket is None else ticket.rejection(gate, call)
    except Exception as error:
        hook_failed("rejection of a policy", gate, error)
        return RejectedError(
            f"{gate.name} rejected the call", policy=call.pipeline.name_of(gate), pipeline=call.pipeline.name
        )


# Gate: settlement


def give_result(gate: ResultGate[Any], token: Any, result: Any) -> None:
    """Give a result to a gate, also one that is carried by an exception. If its hook fails, log that once."""
    value = result.result if isinstance(result, CarriedResult) else result
    try:
        if not isinstance(value, Head | Exhausted):  # of a generator
            gate.on_result(token, value)
    except Exception as error:
        hook_failed("on_result of a policy", gate, error)


def settle_gate(gate: Gate[Any], token: Any, ending: Ending) -> None:
    """Settle a gate. If its hook fails, log that once."""
    try:
        gate.settle(token, ending)
    except Exception as error:
        hook_failed("settle of a policy", gate.settle, error)


def settle_gate_after_error(gate: Gate[Any], token: Any, call: RunningCall, error: BaseException) -> None:
    """Settle a gate after an exception: now, or when work that the call has left running ends."""
    if call.deferred is not None:
        call.deferred.settle_error(gate, token, call.ending_of(error))
    elif error.__class__ is GeneratorExit:  # the coroutine was garbage-collected: this runs inside a finalizer
        settle_from_finalizer(partial(settle_gate, gate, token, ABANDONED))
    else:
        settle_gate(gate, token, call.ending_of(error))


def settle_pair_after_error(
    inner: Gate[Any], inner_token: Any, outer: Gate[Any], outer_token: Any, call: RunningCall, error: BaseException
) -> None:
    """Settle two gates after an exception; the outer one also if a Ctrl-C arrives while the inner one is settled."""
    ending: Ending | None = None
    try:
        if call.deferred is None and error.__class__ is not GeneratorExit:
            ending = call.ending_of(error)
            inner.settle(inner_token, ending)
        else:
            settle_gate_after_error(inner, inner_token, call, error)
    except Exception as failure:
        hook_failed("settle of a policy", inner.settle, failure)
    finally:
        if ending is None:
            settle_gate_after_error(outer, outer_token, call, error)
        else:
            settle_gate(outer, outer_token, ending)


def settle_failed(
    inner: Gate[Any], outer: Gate[Any], outer_token: Any, call: RunningCall, error: BaseException
) -> None:
    """Log that settling the inner gate failed. If a Ctrl-C arrived instead, settle the outer gate and raise it."""
    try:
        if not isinstance(error, Exception):
            raise error
        hook_failed("settle of a policy", inner.settle, error)
    except BaseException as interrupt:
        settle_gate_after_error(outer, outer_token, call, interrupt)
        raise


# Loop


def decide_delay(loop: Loop, call: RunningCall, ending: Ending, state: RetryState) -> Any:
    """Return the delay of a Loop; None for no other attempt. If its hook fails, log that once and return None."""
    state.attempt_number += 1
    if ending.error.__class__ is LateResult:
        return None  # the caller gets the late value
    call.refresh_deadline()
    if call.inside is None:  # a policy further in has raised the exception
        call.inside = Ambient.make(FOREVER, call.ambient)
    state.inside = call.inside
    try:
        if call.retries_stopped and isinstance(ending.error, Exception):
            state.budget = None  # it paid for the attempt that has just ended, so it is not refunded
            loop.on_attempt_rejected(call, OK, ending.error, state)
            return None
        wait: Any = loop.delay(call, ending, state)
        if wait is None or (wait.__class__ is float and 0.0 <= wait < FOREVER):
            return wait
        return wait if hasattr(wait.__class__, "__await__") else validated_delay(wait)
    except Exception as error:
        hook_failed("delay of a policy", loop, error)
        return None


def validated_delay(wait: Any) -> float | None:
    """Return a delay; raise an error if it is neither None nor a number >= 0."""
    return None if wait is None else validation.number("what delay returns", wait)


def was_cancelled(call: RunningCall, state: RetryState, pending: int) -> bool:
    """Return whether the task was cancelled since the call began; to be asked after each attempt that has failed.

    Args:
        call: the call.
        state: its state in the loop.
        pending: the pending cancellations of the task.
    """
    if pending == 0:
        state.cancellations = 0
        return False
    if state.cancellations is None:
        state.cancellations = call.cancellations
    return pending > state.cancellations


def is_rejected_attempt(call: RunningCall, error: Exception, calls_made: int) -> bool:
    """Return whether an error means that an attempt was rejected before the function did any work.

    Args:
        call: the call.
        error: the exception that the attempt raised.
        calls_made: how often the function had been called before the attempt.

    If the function was called, a rejection that it raises comes from another pipeline, after unknown work. The
    exception to this is a rejection by the pipeline that decorates the function itself: then no work was done.
    """
    if not isinstance(error, RejectedError) and not (isinstance(error, DeadlineExceededError) and error.unprocessed):
        return False
    if call.calls_made == calls_made or call.single_attempt:
        return True
    guard: Any = getattr(call.function, "__resilience__", None)
    return isinstance(guard, Caller) and error.pipeline == guard.entry()[1].pipeline.name


def attempt_rejected(loop: Loop, call: RunningCall, ending: Ending, last: Exception, state: RetryState) -> None:
    """Prepare the last real failure to be raised instead of the rejection of another attempt."""
    try:
        loop.on_attempt_rejected(call, ending, last, state)
    except Exception as error:
        hook_failed("on_attempt_rejected of a policy", loop, error)
    if last.__traceback__ is not None:
        last.__traceback__ = last.__traceback__.tb_next  # raising it again adds that frame again


# Substitute


def should_handle(substitute: Substitute[Any], call: RunningCall, ending: Ending) -> bool:
    """Return whether a Substitute replaces an ending; False for a late value, which is returned to the caller.

    If the hook fails, log that once and return False.
    """
    if isinstance(ending.error, LateResult):
        return False
    try:
        return substitute.should_handle(call, ending)
    except Exception as error:
        hook_failed("should_handle of a policy", substitute, error)
        return False


def settlement_of_replacement(left: DeferredSettlement | None) -> DeferredSettlement:
    """Return the settlement of the gates around a Substitute.

    Args:
        left: the settlement of work that the call has left running, which may hold permits; None if it left none.
    """
    if left is None or left.ended:
        return REPLACED
    settlement = DeferredSettlement(known=True)
    left.add(settlement.end)
    return settlement


def publish_replacement(
    substitute: Substitute[Any], call: RunningCall, info: PipelineInfo, mode: Mode, age: float | None
) -> None:
    """Publish that a Substitute replaced an outcome, or would have in shadow mode."""
    info.publish(FallbackUsed, substitute, call, mode=mode, age=age)


def age_of(substitute: Substitute[Any], call: RunningCall) -> float | None:
    """Return the age of a replacement, for the event. If the hook fails, log that once and return None."""
    try:
        return substitute.age(call)
    except Exception as error:
        hook_failed("age of a policy", substitute, error)
        return None


def keeps_results(substitute: Substitute[Any]) -> bool:
    """Return whether a Substitute wants to know the good results."""
    return type(substitute).on_result is not Substitute.on_result


def keep_result(substitute: Substitute[Any], call: RunningCall, result: Any) -> None:
    """Give a good result to a Substitute, unless it is a stream. If its hook fails, log that once."""
    if call.deferred is not None:
        return
    try:
        substitute.on_result(call, result)
    except Exception as error:
        hook_failed("on_result of a policy", substitute, error)
