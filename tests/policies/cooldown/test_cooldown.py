"""A cooldown by itself: its settings, and when it admits, holds back and rejects, by its hooks."""

from __future__ import annotations

import math
from typing import Any

import pytest

from resilience import Allowlist, Cooldown, Ending, EndingKind, Failure, FailureKind, Pipeline, RateLimitedError
from resilience._call.wait_queue import TicketState
from resilience._outcome.ending import ABANDONED, DEADLINE, OK
from resilience._util.locks import state_lock
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.policies.cooldown.helpers import Busy, asked, call_of, hinted, paused, queued, told
from tests.support.fork import in_child

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"spread": -0.1}, ValueError, "spread must be a number >= 0 and <= 1, not -0.1"),
    ({"spread": 1.1}, ValueError, "spread must be a number >= 0 and <= 1, not 1.1"),
    ({"spread": None}, TypeError, "spread must be a number >= 0 and <= 1, not None"),
    ({"max_wait": -1}, ValueError, "max_wait must be a number >= 0, not -1"),
    ({"max_wait": math.inf}, ValueError, "max_wait must be a number >= 0, not inf"),
    ({"longest": 0}, ValueError, "longest must be a number > 0, not 0"),
    ({"longest": math.nan}, ValueError, "longest must be a number > 0, not nan"),
    ({"longest": None}, TypeError, "longest must be a number > 0, not None"),
    ({"proactive": 1}, TypeError, "proactive must be True or False, not 1"),
]


def test_the_defaults() -> None:
    cooldown = Cooldown()

    assert cooldown.describe()["settings"] == {"spread": 0.2, "max_wait": None, "longest": 60.0, "proactive": True}
    assert cooldown.snapshot() == {"active": False, "seconds_left": 0.0, "queued": 0, "closed_share": 0.0}
    assert (cooldown.kind, cooldown.name, repr(cooldown)) == ("cooldown", "cooldown", "Cooldown()")
    assert (cooldown.active, cooldown.queued, cooldown.holds_permit) == (False, 0, False)


@pytest.mark.parametrize(("settings", "kind", "message"), BAD)
def test_bad_settings_are_refused_by_constructor_and_update(
    settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as constructed:
        Cooldown(**settings)
    cooldown = Cooldown()
    with pytest.raises(kind) as updated:
        cooldown.update(**settings)

    assert str(constructed.value) == str(updated.value) == message


# What begins a pause

HINTS: list[tuple[Ending, float]] = [
    (asked(5.0), 5.0),
    (asked(1000.0), 60.0),
    (Ending(EndingKind.FAILED, failure=Failure(FailureKind.TRANSIENT, 2)), 2.0),
    (Ending(EndingKind.TIMED_OUT, failure=Failure(FailureKind.TIMEOUT, 3.0)), 3.0),
    (
        Ending(None, Busy(7.0), Allowlist(Busy, when=lambda error: Failure(FailureKind.OVERLOAD, 7.0))),
        7.0,
    ),
    (hinted(0, 8.0), 8.0),
    (hinted(0, math.inf), 60.0),
]
NO_HINTS = [
    OK,
    ABANDONED,
    asked(None),
    asked(0.0),
    Ending(EndingKind.ERROR, ValueError()),
    Ending(EndingKind.TIMED_OUT, failure=DEADLINE),
    hinted(1, 8.0),
    hinted(0, 0.0),
    hinted(0, math.nan),
    hinted(0, -5.0),
]


@pytest.mark.parametrize(("ending", "seconds"), HINTS)
def test_a_hint_begins_a_pause(clock: VirtualClock, ending: Ending, seconds: float) -> None:
    cooldown = Cooldown()
    assert cooldown.admit(call_of(cooldown)) is None
    cooldown.settle(None, ending)

    assert cooldown.snapshot()["active"]
    assert cooldown.snapshot()["seconds_left"] == seconds
    clock.advance(seconds)
    assert not cooldown.active
    assert cooldown.admit(call_of(cooldown)) is None


@pytest.mark.parametrize("ending", NO_HINTS)
def test_without_a_hint_there_is_no_pause(clock: VirtualClock, ending: Ending) -> None:
    cooldown = Cooldown()
    cooldown.settle(None, ending)

    assert not cooldown.active
    assert cooldown.admit(call_of(cooldown)) is None


def test_proactive_false_ignores_hints_of_good_endings(clock: VirtualClock) -> None:
    cooldown = Cooldown(proactive=False)
    cooldown.settle(None, hinted(0, 8.0))
    assert not cooldown.active
    cooldown.settle(None, asked(8.0))

    assert cooldown.active


def test_a_later_hint_extends_and_an_earlier_one_and_a_success_change_nothing(clock: VirtualClock) -> None:
    cooldown = paused(10.0)
    clock.advance(4.0)
    cooldown.settle(None, asked(5.9))
    cooldown.settle(None, OK)
    cooldown.settle(None, hinted(0, 1.0))
    assert cooldown.snapshot()["seconds_left"] == 6.0
    cooldown.settle(None, asked(7.0))

    assert cooldown.snapshot()["seconds_left"] == 7.0


def test_a_hint_that_interrupts_a_change_of_the_state_is_taken_after_it(clock: VirtualClock) -> None:
    cooldown = Cooldown()
    with state_lock:
        cooldown.settle(None, asked(5.0))
        assert not cooldown.active
    cooldown.snapshot()

    assert cooldown.active


def test_a_pause_does_not_outlast_virtual_time() -> None:
    with virtual_time() as clock:
        clock.advance(1e9)
        cooldown = paused(60.0)
        assert cooldown.active

    assert not cooldown.active
    assert cooldown.admit(call_of(cooldown)) is None


# Who waits, and who is rejected


@pytest.mark.parametrize(
    ("settings", "timeout", "waits"),
    [
        ({}, math.inf, True),
        ({}, 10.0, False),
        ({}, 10.1, True),
        ({"longest": 10.0}, math.inf, True),
        ({"longest": 10.0, "spread": 0.0}, math.inf, True),
        ({"longest": 10.0}, 1e9, True),
        ({"max_wait": 9.9}, math.inf, False),
        ({"max_wait": 10.0}, math.inf, True),
        ({"max_wait": 10.1}, 9.0, False),
        ({"max_wait": 0}, 1e9, False),
        ({"max_wait": 1e6, "longest": 10.0}, math.inf, True),
    ],
)
def test_who_waits_and_who_is_rejected_at_once(
    clock: VirtualClock, settings: dict[str, Any], timeout: float, waits: bool
) -> None:
    cooldown = paused(10.0, **settings)
    call = call_of(cooldown, timeout)
    if waits:
        ticket = cooldown.admit(call)
        assert ticket is not None
        assert (ticket.state, cooldown.queued) == (TicketState.WAITING, 1)
    else:
        with pytest.raises(RateLimitedError) as caught:
            cooldown.admit(call)
        assert (caught.value.reason, caught.value.retry_after) == ("cooldown", 10.0)
        assert cooldown.queued == 0


def test_a_rejection_says_what_happened_and_what_to_do(clock: VirtualClock) -> None:
    cooldown = paused(10.0, max_wait=1.0)
    clock.advance(0.5)
    with pytest.raises(RateLimitedError) as caught:
        cooldown.admit(call_of(cooldown, name="orders"))
    error = caught.value

    assert str(error) == (
        "cooldown of orders holds calls back for 9.5 s more, since the server has asked for a pause: the dependency "
        "was not called; wait for `retry_after` seconds, or give calls a later deadline or a longer max_wait"
    )
    assert (error.policy, error.pipeline, error.reason, error.retry_after) == ("cooldown", "orders", "cooldown", 9.5)
    assert error.unprocessed


def test_a_call_inside_a_change_of_the_state_is_rejected(clock: VirtualClock) -> None:
    cooldown = paused(10.0)
    with state_lock, pytest.raises(RateLimitedError):
        cooldown.admit(call_of(cooldown))
    clock.advance(10.0)
    with state_lock:
        assert cooldown.admit(call_of(cooldown)) is None


# Events, reset, update, fork


def test_events_of_a_pause(clock: VirtualClock) -> None:
    cooldown = Cooldown(spread=0.0)
    pipeline = Pipeline(cooldown, name="events-of-a-pause")
    call = call_of(cooldown)
    with Recorder() as recorder:
        cooldown.settle(None, asked(10.0))
        clock.advance(4.0)
        cooldown.settle(None, asked(2.0))
        cooldown.settle(None, asked(8.0))
        clock.advance(20.0)
        assert cooldown.admit(call) is None
        assert cooldown.admit(call) is None
        cooldown.settle(None, asked(1.0))
        clock.advance(5.0)
        cooldown.settle(None, asked(2.0))
        cooldown.reset()

    assert told(recorder) == [
        ("CooldownStarted", 10.0, False),
        ("CooldownStarted", 8.0, True),
        ("CooldownEnded", 12.0, None),
        ("CooldownStarted", 1.0, False),
        ("CooldownEnded", 1.0, None),
        ("CooldownStarted", 2.0, False),
        ("CooldownEnded", 0.0, None),
    ]
    assert {(one.pipeline, one.policy, one.operation, one.target) for one in recorder.events if one.pipeline} == {
        ("events-of-a-pause", "cooldown", "", None),
    }
    assert pipeline.snapshot()["policies"]["cooldown"] == cooldown.snapshot()


def test_a_pause_lasts_in_the_eyes_of_events_while_calls_wait(clock: VirtualClock) -> None:
    cooldown = paused(10.0, spread=0.5)
    pipeline = Pipeline(cooldown, name="waits-after-a-pause")
    ticket = queued(cooldown)
    clock.advance(10.0)
    assert not ticket.acquire()
    assert cooldown.active
    with Recorder() as recorder:
        cooldown.settle(None, asked(1.0))
        clock.advance(6.0)
        assert ticket.acquire()
        clock.advance(100.0)
        assert pipeline.call(int) == 0

    assert [one[0] for one in told(recorder)] == ["CooldownStarted", "CooldownEnded"]
    assert told(recorder)[0] == ("CooldownStarted", 1.0, True)
    assert 11.0 <= told(recorder)[1][1] <= 15.0


def test_reset_admits_all(clock: VirtualClock) -> None:
    cooldown = paused(10.0)
    tickets = [queued(cooldown) for _ in range(3)]
    cooldown.reset()

    assert all(ticket.acquire() for ticket in tickets)
    assert cooldown.snapshot() == {"active": False, "seconds_left": 0.0, "queued": 0, "closed_share": 0.0}


def test_reset_inside_a_change_of_the_state_comes_after_it(clock: VirtualClock) -> None:
    cooldown = paused(10.0)
    with state_lock:
        cooldown.reset()
        assert cooldown.active
    cooldown.snapshot()

    assert not cooldown.active


def test_an_update_applies_to_later_calls_and_pauses(clock: VirtualClock) -> None:
    cooldown = paused(10.0)
    cooldown.update(longest=5.0, max_wait=20.0)
    assert cooldown.snapshot()["seconds_left"] == 10.0
    assert queued(cooldown).until == clock.monotonic() + 20.0
    clock.advance(9.0)
    cooldown.settle(None, asked(100.0))

    assert cooldown.snapshot()["seconds_left"] == 5.0


def test_a_pause_goes_on_in_a_forked_child_and_nobody_waits_there(clock: VirtualClock) -> None:
    cooldown = paused(10.0)
    pipeline = Pipeline(cooldown)
    ticket = queued(cooldown)

    def child() -> str:
        before = cooldown.snapshot()
        ticket.leave()
        mine = queued(cooldown)
        clock.advance(100.0)
        return f"{before['active']} {before['seconds_left']} {before['queued']} {mine.acquire()} {cooldown.queued}"

    assert in_child(child) == "True 10.0 0 True 0"
    assert pipeline.get(Cooldown).queued == 1
