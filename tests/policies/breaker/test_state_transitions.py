"""The table of transitions, and isolate(), close() and reset() in every state."""

import itertools
import re
from pathlib import Path

import pytest

from resilience import CircuitOpenError, RejectReason
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.breaker.state import TRANSITIONS, Generation, Trigger
from resilience.events import BreakerState
from resilience.testing import VirtualClock
from tests.policies.breaker.helpers import Rig

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")

DOCS = Path(__file__).parents[3] / "docs" / "circuit-breaker.md"


class TestByHand:
    @pytest.mark.parametrize("state", list(BreakerState))
    def test_isolate_and_close(self, clock: VirtualClock, state: BreakerState) -> None:
        rig = Rig()
        put(rig, state, clock)
        token = None if state in (BreakerState.OPEN, BreakerState.ISOLATED) else rig.admit()
        rig.breaker.isolate()
        error = rig.refused()
        assert (error.retry_after, error.reason) == (None, RejectReason.ISOLATED)
        assert "is isolated" in str(error)
        clock.advance(1e6)
        assert rig.seen("state", "retry_after") == ("isolated", None)
        if token is not None:
            rig.end(token, "ok")
        rig.breaker.isolate()
        rig.refused()
        rig.breaker.close()
        assert rig.seen("state", "calls", "seconds_in_state") == ("closed", 0, 0.0)
        if token is not None:
            rig.end(token, "failed")
        assert rig.counts == (0, 0, 0)
        rig.run("ok")

    @pytest.mark.parametrize("state", list(BreakerState))
    def test_close_forgets_the_growth(self, steady: VirtualClock, state: BreakerState) -> None:
        rig = Rig()
        rig.half_open(steady)
        rig.run("failed")
        rig.breaker.close()
        put(rig, state, steady)
        rig.breaker.close()
        rig.open()
        assert rig.seen("retry_after") == (1.0,)

    @pytest.mark.parametrize("state", list(BreakerState))
    def test_reset_forgets_everything(self, clock: VirtualClock, state: BreakerState) -> None:
        rig = Rig()
        put(rig, state, clock)
        clock.advance(0.25)
        rig.breaker.reset()
        assert rig.breaker.snapshot() == Rig().breaker.snapshot()

    def test_close_keeps_the_count_of_openings(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(clock)
        rig.run("failed")
        rig.breaker.close()
        assert rig.seen("opens") == (2,)

    def test_a_row_does_not_survive_a_close(self, clock: VirtualClock) -> None:
        del clock
        rig = Rig()
        rig.run(*["failed"] * 9)
        rig.breaker.close()
        rig.run(*["failed"] * 9)
        assert rig.state() is BreakerState.CLOSED

    def test_isolation_shows_the_window_of_its_moment(self, clock: VirtualClock) -> None:
        del clock
        rig = Rig()
        rig.run("ok", "failed")
        rig.breaker.isolate()
        assert rig.seen("state", "calls", "failures", "opens") == ("isolated", 2, 1, 0)


def put(rig: Rig, state: BreakerState, clock: VirtualClock) -> None:
    """Bring a closed breaker into a state."""
    match state:
        case BreakerState.CLOSED:
            rig.run("ok", "failed")
        case BreakerState.OPEN:
            rig.open()
        case BreakerState.HALF_OPEN:
            rig.half_open(clock)
        case BreakerState.ISOLATED:
            rig.breaker.isolate()
    assert rig.state() is state


def pull(rig: Rig, trigger: Trigger, clock: VirtualClock) -> None:
    """Have something happen, as far as it can."""
    match trigger:
        case Trigger.TRIPPED | Trigger.BAD:
            for _ in range(10):
                try:
                    rig.run("failed")
                except CircuitOpenError:
                    return
                if trigger is Trigger.BAD:
                    return
        case Trigger.GOOD:
            for _ in range(3):
                try:
                    rig.run("ok")
                except CircuitOpenError:
                    return
        case Trigger.TIME:
            clock.advance(30)
        case Trigger.ISOLATE:
            rig.breaker.isolate()
        case Trigger.CLOSE:
            rig.breaker.close()
        case Trigger.RESET:
            rig.breaker.reset()


class TestTransitions:
    @pytest.mark.parametrize(("state", "trigger"), list(itertools.product(BreakerState, Trigger)), ids=str)
    def test_the_table_is_what_happens(self, clock: VirtualClock, state: BreakerState, trigger: Trigger) -> None:
        rig = Rig()
        put(rig, state, clock)
        if (state, trigger) == (BreakerState.HALF_OPEN, Trigger.TRIPPED):
            return  # ten failures: the first one is a bad probe
        pull(rig, trigger, clock)
        assert rig.state() is TRANSITIONS.get((state, trigger), state)

    @pytest.mark.parametrize(("state", "trigger"), list(itertools.product(BreakerState, Trigger)), ids=str)
    def test_what_is_not_in_the_table_changes_nothing(self, state: BreakerState, trigger: Trigger) -> None:
        after = Generation(state, 0.0).after(trigger, CircuitBreaker().settings, 1.0)
        assert (None if after is None else after.state) is TRANSITIONS.get((state, trigger))

    def test_the_documentation_shows_the_table(self) -> None:
        (diagram,) = re.findall(r"```mermaid\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
        drawn = re.findall(r"^ +(\w+) --> (\w+): (.+)$", diagram, re.MULTILINE)
        wanted = {
            (str(before), str(after), str(why)) for (before, why), after in TRANSITIONS.items() if before != after
        }
        assert len(drawn) == len(wanted)
        assert set(drawn) == wanted
        assert re.findall(r"\[\*\] --> (\w+)", diagram) == ["closed"]
