"""What the tests of the cooldown share."""

from __future__ import annotations

from typing import Any

from resilience import Call, Cooldown, Ending, EndingKind, Failure, FailureKind, Hint, Pipeline
from resilience._policies.cooldown.pause import CooldownTicket
from resilience._util.clock import FOREVER, clock
from resilience.events import CooldownEnded, CooldownStarted, Event
from resilience.testing import Recorder

LONG = 1e6


class Busy(Exception):
    """A server that asks for a pause, in seconds."""

    def __init__(self, retry_after: float | None) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


def call_of(cooldown: Cooldown, timeout: float = FOREVER, **settings: Any) -> Call:
    """Return a call whose deadline is so many seconds from now."""
    _, options = Pipeline(cooldown, **settings).entry()
    call = Call.make(options, int, (), {})
    call.deadline = clock.monotonic() + timeout
    return call


def asked(seconds: float | None) -> Ending:
    """Return the ending of a call that the server has asked to come back later."""
    return Ending(EndingKind.FAILED, failure=Failure(FailureKind.OVERLOAD, seconds, counted=False))


def hinted(remaining: float, resets_in: float) -> Ending:
    """Return the good ending of a call with a hint."""
    return Ending(EndingKind.OK, hint=Hint(remaining, resets_in))


def paused(seconds: float, **settings: Any) -> Cooldown:
    """Return a cooldown in a pause that the server has just asked for."""
    cooldown = Cooldown(**settings)
    cooldown.settle(None, asked(seconds))
    return cooldown


def queued(cooldown: Cooldown, timeout: float = FOREVER) -> CooldownTicket:
    """Let a call come that has to wait."""
    ticket = cooldown.admit(call_of(cooldown, timeout))
    assert ticket is not None
    return ticket


def told(recorder: Recorder) -> list[tuple[str, float, bool | None]]:
    """The events of cooldowns in pipelines with a name: their type, the seconds, and whether it was an extension."""
    events: list[Any] = recorder.of(Event)
    return [
        (type(event).__name__, round(event.seconds, 6), getattr(event, "extended", None))
        for event in events
        if isinstance(event, CooldownStarted | CooldownEnded) and event.pipeline
    ]
