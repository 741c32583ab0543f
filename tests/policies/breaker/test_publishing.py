"""The events of a circuit breaker."""

import pytest

from resilience import Pipeline, Retry
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience.events import BreakerChanged, BreakerState
from resilience.testing import Recorder, VirtualClock
from tests.policies.breaker.helpers import Rig, ending, fails

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestEvents:
    def test_a_life(self, steady: VirtualClock) -> None:
        rig = Rig()
        with Recorder(rig.pipeline, events=[BreakerChanged]) as recorder:
            rig.run("ok")
            rig.open()
            steady.advance(1)
            rig.admit()
            rig.run("failed")
            steady.advance(2)
            assert rig.state() is BreakerState.HALF_OPEN
            rig.run("ok", "ok", "ok")
            rig.breaker.close()
            rig.breaker.isolate()
            rig.breaker.isolate()
            rig.breaker.reset()
            rig.breaker.reset()
        facts = [
            (one.previous, one.state, one.manual, round(one.failure_rate, 3)) for one in recorder.of(BreakerChanged)
        ]
        assert facts == [
            ("closed", "open", False, 0.909),
            ("open", "half_open", False, 0.909),
            ("half_open", "open", False, 0.909),
            ("open", "half_open", False, 0.909),
            ("half_open", "closed", False, 0.0),
            ("closed", "isolated", True, 0.0),
            ("isolated", "closed", True, 0.0),
        ]
        assert {(one.pipeline, one.policy) for one in recorder.of(BreakerChanged)} == {("quotes", "breaker")}
        operations = [(one.operation, one.target) for one in recorder.of(BreakerChanged)]
        assert operations == [("", None), ("print", None), *[("", None)] * 5]

    def test_what_the_clock_has_done_is_told_before_what_is_done_by_hand(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        clock.advance(2)
        with Recorder(rig.pipeline, events=[BreakerChanged]) as recorder:
            rig.breaker.isolate()
        facts = [(one.previous, one.state, one.manual) for one in recorder.of(BreakerChanged)]
        assert facts == [("open", "half_open", False), ("half_open", "isolated", True)]

    def test_every_pipeline_is_told_once(self, steady: VirtualClock) -> None:
        rig = Rig()
        other = Pipeline(Retry(), CircuitBreaker(), rig.breaker, name="other")
        with Recorder(events=[BreakerChanged]) as recorder:
            rig.open()
            steady.advance(1)
            other.call(lambda: None)
        told = sorted((one.pipeline, one.policy, one.state, one.operation) for one in recorder.of(BreakerChanged))
        assert told == [
            ("other", "breaker_2", "half_open", "<lambda>"),
            ("other", "breaker_2", "open", ""),
            ("quotes", "breaker", "half_open", ""),
            ("quotes", "breaker", "open", ""),
        ]

    def test_a_breaker_without_a_pipeline(self, steady: VirtualClock) -> None:
        breaker = CircuitBreaker(consecutive_failures=1)
        other = Rig()
        with Recorder(events=[BreakerChanged]) as recorder:
            breaker.settle(breaker.admit(other.call()), ending("failed"))
            steady.advance(1)
            breaker.admit(other.call())
        assert [(one.pipeline, one.policy, one.state) for one in recorder.of(BreakerChanged)] == [
            ("quotes", "", "half_open")
        ]

    def test_a_listener_may_call_back(self, steady: VirtualClock) -> None:
        rig = Rig()
        states: list[str] = []

        def listener(event: BreakerChanged) -> None:
            states.append(f"{event.state} {rig.state()} {rig.breaker.snapshot()['state']}")
            if event.state is BreakerState.HALF_OPEN:
                rig.run("ok", "ok", "ok")
            if event.state is BreakerState.OPEN and steady.elapsed < 1:
                rig.refused()

        with rig.pipeline.subscribe(listener, events=[BreakerChanged]):
            rig.open()
            steady.advance(1)
            rig.run("ok")
        assert states == ["open open open", "half_open half_open half_open", "closed closed closed"]
        assert rig.counts == (1, 0, 0)

    def test_a_predicate_may_look_at_the_breaker(self, clock: VirtualClock) -> None:
        del clock
        states: list[BreakerState] = []

        def down(error: Exception) -> bool:
            states.append(breaker.state)
            breaker.snapshot()
            return isinstance(error, ConnectionError)

        breaker = CircuitBreaker(on=down, consecutive_failures=1)
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(fails)
        assert states[-1] is BreakerState.CLOSED
        assert breaker.snapshot()["state"] == "open"
