"""An open circuit breaker: its refusals, and how long it stays open."""

import itertools

import pytest

from resilience import CircuitOpenError, Pipeline, RejectReason
from resilience.testing import VirtualClock, seeded, virtual_time
from tests.policies.breaker.helpers import BAD, GOOD, NEUTRAL, Rig

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestOpen:
    def test_it_refuses(self, steady: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        steady.advance(0.25)
        error = rig.refused()
        assert (error.retry_after, error.reason, error.policy, error.pipeline, error.unprocessed) == (
            0.75,
            RejectReason.OPEN,
            "breaker",
            "quotes",
            True,
        )
        assert str(error) == (
            "breaker of quotes is open for 1 s, since 10 calls in a row failed: the dependency was not called; "
            "wait for `retry_after` seconds, or do without it"
        )
        steady.advance(0.75)
        rig.admit()

    def test_every_refusal_is_its_own(self, steady: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        assert rig.refused() is not rig.refused()
        steady.advance(0.5)
        assert rig.refused().retry_after == 0.5

    def test_the_message_is_made_once(self, steady: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        first = rig.refused()
        steady.advance(0.5)
        assert rig.refused().args[0] is first.args[0]

    def test_each_pipeline_reads_its_own_name(self, clock: VirtualClock) -> None:
        del clock
        rig = Rig(name="gate")
        other = Pipeline(rig.breaker, name="other")
        unnamed = Pipeline(rig.breaker)
        rig.open()
        for _ in range(2):
            assert str(rig.refused()).startswith("gate of quotes is open")
            with pytest.raises(CircuitOpenError, match=r"^gate of other is open") as caught:
                other.call(print)
            assert caught.value.pipeline == "other"
            with pytest.raises(CircuitOpenError, match=r"^gate is open"):
                unnamed.call(print)

    def test_it_grows_with_each_failed_period(self, steady: VirtualClock) -> None:
        rig = Rig(open_for=1.0, open_growth=2.0, max_open_for=5.0)
        rig.open()
        for seconds in (1.0, 2.0, 4.0, 5.0, 5.0):
            assert rig.seen("retry_after") == (seconds,)
            steady.advance(seconds)
            rig.run("failed")
        steady.advance(5)
        rig.run("ok", "ok", "ok")
        rig.open()
        assert rig.seen("retry_after", "opens") == (1.0, 7)

    def test_a_good_probe_before_the_bad_one_does_not_stop_the_growth(self, steady: VirtualClock) -> None:
        rig = Rig()
        rig.half_open(steady)
        rig.run("ok", "ok", "failed")
        assert rig.seen("retry_after") == (1.25,)

    def test_jitter(self) -> None:
        seconds: set[float] = set()
        with virtual_time(), seeded(7):
            for _ in range(200):
                rig = Rig(open_for=10.0, max_open_for=11.0, in_a_row=1)
                rig.open()
                seconds.add(rig.breaker.snapshot()["retry_after"])
        assert 8 <= min(seconds) < 8.5
        assert max(seconds) == 11.0
        assert len(seconds) > 100

    def test_no_growth_overflows(self, steady: VirtualClock) -> None:
        rig = Rig(open_for=1e300, open_growth=1e300, in_a_row=1)
        rig.open()
        for _ in range(5):
            assert rig.seen("retry_after") == (30.0,)
            steady.advance(30)
            rig.run("failed")

    @pytest.mark.parametrize(("hint", "seconds"), [("0.5", 1.0), ("7", 7.0), ("99", 30.0), ("nan", 1.0)])
    def test_the_server_can_only_lengthen_it(self, steady: VirtualClock, hint: str, seconds: float) -> None:
        rig = Rig()
        rig.run(*["failed"] * 9, hint)
        assert rig.seen("state", "retry_after") == ("open", seconds)
        steady.advance(seconds)
        rig.run(hint)
        assert rig.seen("retry_after") == (max(1.25, seconds),)

    def test_late_endings_change_nothing(self, steady: VirtualClock) -> None:
        rig = Rig()
        late = [rig.admit() for _ in range(30)]
        rig.open()
        steady.advance(0.5)
        before = rig.breaker.snapshot()
        for token, word in zip(late, itertools.cycle([*GOOD, *BAD, *NEUTRAL, "25"]), strict=False):
            rig.end(token, word)
        assert rig.breaker.snapshot() == before
        assert before["retry_after"] == 0.5
