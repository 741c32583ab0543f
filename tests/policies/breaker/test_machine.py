"""The state machine of a circuit breaker by itself: regions of the state lock, and calls that a fork has left."""

from collections.abc import Callable

import pytest

from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.breaker.machine import StateMachine
from resilience._policies.breaker.settings import BAD, GOOD
from resilience._policies.breaker.state import OPEN, Probe, Trigger
from resilience._policies.breaker.window import TimeWindow
from resilience._util.clock import FOREVER
from resilience._util.finalizers import run_later
from resilience._util.locks import state_lock
from resilience.events import BreakerState
from resilience.testing import VirtualClock

SETTINGS = CircuitBreaker(consecutive_failures=1).settings


def window_of(machine: StateMachine) -> TimeWindow:
    window = machine.generation.window
    assert isinstance(window, TimeWindow)
    return window


def half_open(machine: StateMachine, clock: VirtualClock) -> Probe:
    """Bring a new machine into the half-open state; return a probe that has no place yet."""
    machine.count(window_of(machine), clock.monotonic(), BAD, slow=False)
    clock.advance(30)
    assert machine.current()[0].state is BreakerState.HALF_OPEN
    return Probe(machine.generation, clock.monotonic(), FOREVER, None)


def becoming_half_open(machine: StateMachine, clock: VirtualClock) -> Callable[[], object]:
    machine.count(window_of(machine), clock.monotonic(), BAD, slow=False)
    assert machine.generation.state is OPEN
    clock.advance(30)
    return machine.current


def admitting_a_probe(machine: StateMachine, clock: VirtualClock) -> Callable[[], object]:
    probe = half_open(machine, clock)
    return lambda: machine.take(probe, clock.monotonic())


def ending_a_probe(machine: StateMachine, clock: VirtualClock) -> Callable[[], object]:
    probe = half_open(machine, clock)
    return lambda: machine.end_probe(probe, GOOD, clock.monotonic(), slow=False)


def beginning_a_bucket(machine: StateMachine, clock: VirtualClock) -> Callable[[], object]:
    return lambda: machine.rotate(window_of(machine), clock.monotonic() + 1)


def counting_a_failure(machine: StateMachine, clock: VirtualClock) -> Callable[[], object]:
    return lambda: machine.count(window_of(machine), clock.monotonic(), BAD, slow=False)


def isolating(machine: StateMachine, clock: VirtualClock) -> Callable[[], object]:
    del clock
    return lambda: machine.force(Trigger.ISOLATE)


def updating(machine: StateMachine, clock: VirtualClock) -> Callable[[], object]:
    del clock
    return lambda: machine.use(SETTINGS)


def looking(machine: StateMachine, clock: VirtualClock) -> Callable[[], object]:
    del clock
    return machine.snapshot


@pytest.mark.parametrize(
    "prepare",
    [
        becoming_half_open,
        admitting_a_probe,
        ending_a_probe,
        beginning_a_bucket,
        counting_a_failure,
        isolating,
        updating,
        looking,
    ],
)
def test_what_was_put_off_runs_after_each_change(
    clock: VirtualClock, prepare: Callable[[StateMachine, VirtualClock], Callable[[], object]]
) -> None:
    work = prepare(StateMachine(SETTINGS), clock)
    ran: list[str] = []
    run_later(lambda: ran.append("put off"))

    work()

    assert ran == ["put off"]


def test_in_a_region_of_the_state_an_open_time_does_not_end(clock: VirtualClock) -> None:
    machine = StateMachine(SETTINGS)
    becoming_half_open(machine, clock)
    generation = machine.generation

    with state_lock:
        assert machine.current() == (generation, None)

    assert machine.current()[0] is not generation


def test_in_a_region_of_the_state_no_probe_gets_a_place(clock: VirtualClock) -> None:
    machine = StateMachine(SETTINGS)
    probe = half_open(machine, clock)

    with state_lock:
        assert machine.take(probe, clock.monotonic()) is False

    assert machine.take(probe, clock.monotonic()) is True


def test_in_a_region_of_the_state_no_bucket_begins(clock: VirtualClock) -> None:
    machine = StateMachine(SETTINGS)
    window, end = window_of(machine), window_of(machine).bucket_end

    with state_lock:
        machine.rotate(window, clock.monotonic() + 1)
    assert window.bucket_end == end
    machine.rotate(window, clock.monotonic() + 1)

    assert window.bucket_end == end + 1


def test_forgotten_probes_leave_their_places(clock: VirtualClock) -> None:
    machine = StateMachine(SETTINGS)
    probe, now = half_open(machine, clock), clock.monotonic()
    assert machine.take(probe, now)
    before = machine.snapshot()

    machine.forget_calls()

    assert machine.snapshot() == before
    assert machine.take(Probe(machine.generation, now, FOREVER, None), now)
    assert machine.end_probe(probe, BAD, now, slow=False) is None
    assert machine.snapshot() == before


def test_forgotten_calls_of_a_closed_period_count_no_more(clock: VirtualClock) -> None:
    machine = StateMachine(SETTINGS)
    window, now = window_of(machine), clock.monotonic()
    next(window.count)
    before = machine.snapshot()

    machine.forget_calls()
    next(window.count)

    assert before["calls"] == 1
    assert machine.count(window, now, BAD, slow=False) is None
    assert machine.snapshot() == before
