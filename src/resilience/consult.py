"""What both families of drivers do around the hooks of a policy, without waiting for anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextvars import Token
from typing import Any

from resilience import given_up
from resilience.allowlist import Allowlist
from resilience.call import Call, Site
from resilience.clock import ambient
from resilience.complaints import hook_failed
from resilience.ending import Ending
from resilience.errors import DeadlineExceededError, RejectedError
from resilience.events import FallbackUsed, Mode, Rejected
from resilience.shapes import Gate, Loop, Series, Substitute
from resilience.tickets import Ticket

PASS = object()
"""A substitute does not cover this ending."""


def decide(loop: Loop, call: Call, ending: Ending, series: Series) -> float | None:
    """Ask a Loop. If its hook fails, that is logged once and the ending comes out."""
    series.number += 1
    try:
        wait = loop.delay(call, ending, series)
    except Exception as error:
        hook_failed("delay of a policy", loop, error)
        return None
    return None if call.interrupted else wait


def not_made(loop: Loop, call: Call, ending: Ending, last: Exception, series: Series) -> None:
    """Prepare the last real failure to come out instead of the refusal of another attempt."""
    try:
        loop.not_made(call, ending, last, series)
    except Exception as error:
        hook_failed("not_made of a policy", loop, error)
    if last.__traceback__ is not None:
        last.__traceback__ = last.__traceback__.tb_next  # the frame that raises it again comes on top anew


def refused(gate: Gate[Any], ticket: Ticket, call: Call) -> Exception:
    """Return the error for a call that waited in vain: what ran out first says which."""
    if call.deadline <= ticket.until and ambient.monotonic() >= call.deadline:
        return DeadlineExceededError(
            f"the deadline passed while the call waited for {call.site.name_of(gate)}",
            unprocessed=True,
            policy=call.site.name_of(gate),
            pipeline=call.site.name,
        )
    return gate.refusal(call)


def announce(gate: object, call: Call, error: RejectedError, mode: Mode) -> None:
    """Publish a rejection."""
    call.site.publish(Rejected, gate, call, reason=error.reason, retry_after=error.retry_after, mode=mode)


def shadow_admit(gate: Gate[Any], call: Call) -> tuple[bool, Any]:
    """Admit in shadow mode: a refusal, or a wait, is reported; returns whether there is a token to settle."""
    try:
        token = gate.admit(call)
    except RejectedError as error:
        announce(gate, call, error, Mode.SHADOW)
        return False, None
    if isinstance(token, Ticket):
        token.leave()
        announce(gate, call, gate.refusal(call), Mode.SHADOW)
        return False, None
    return True, token


def substitution(substitute: Substitute[Any], call: Call, ending: Ending) -> Any:
    """Return what stands in for an ending; PASS if the substitute does not cover it."""
    return substitute.replace(call, ending) if covers(substitute, call, ending) else PASS


def covers(substitute: Substitute[Any], call: Call, ending: Ending) -> bool:
    """Ask a Substitute. If its hook fails, that is logged once and the ending comes out."""
    try:
        return substitute.covers(call, ending)
    except Exception as error:
        hook_failed("covers of a policy", substitute, error)
        return False


def replaced(substitute: Substitute[Any], call: Call, site: Site, mode: Mode) -> None:
    """Publish that a substitute stood in, or would have."""
    site.publish(FallbackUsed, substitute, call, mode=mode)


def is_bad(result: Any, allowlists: Iterable[Allowlist]) -> bool:
    """Return whether any allowlist of the pipeline lists a returned value."""
    for allowlist in allowlists:
        try:
            if allowlist.classify(result) is not None:
                return True
        except Exception as error:
            hook_failed("predicate of an allowlist", allowlist, error)
    return False


def open_ledger() -> Token[given_up.Ledger | None]:
    """Start to remember the bad results that are given up on further in."""
    return given_up.ledger.set(given_up.Ledger(given_up.ledger.get()))


def close_ledger(token: Token[given_up.Ledger | None]) -> None:
    """Stop remembering."""
    with contextlib.suppress(ValueError):  # a dropped coroutine is closed in another context, without this ledger
        given_up.ledger.reset(token)


def refuse_awaitable(result: Any, function: Callable[..., Any]) -> TypeError:
    """Return the error for an awaitable that came out of a plain function; the awaitable is closed."""
    for name in ("close", "cancel"):
        end = getattr(result, name, None)
        if callable(end):
            end()
            break
    return TypeError(
        f"{getattr(function, '__qualname__', function)!r} returned an awaitable of type {type(result).__name__} from a "
        "plain call, where nobody would await it. Use `await pipeline.acall(...)`, or decorate an `async def`."
    )
