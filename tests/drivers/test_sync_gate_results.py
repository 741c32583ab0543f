"""Gates that look at results, and gates that are not settled after a success: alone, paired, and in shadow mode."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import Allowlist, Call, Ending, Pipeline, RejectedError, Retry, Timeout, backoff
from resilience._policies.blocks import ResultGate
from resilience.events import Rejected
from resilience.testing import Recorder, virtual_time
from tests.support.functions import down
from tests.support.policies import Closed, Noting, Streaming
from tests.support.ways import Make, each_way

pytestmark = [
    pytest.mark.usefixtures("nothing_logged_yet"),
    pytest.mark.filterwarnings("ignore:there are two pipelines"),
]


class Watching(ResultGate[str]):
    """Notes results and endings; `refuses` makes it reject, `fails` makes its hook raise."""

    def __init__(self, *, observes: bool = True, settles: bool = True, refuses: bool = False, **more: Any) -> None:
        super().__init__(**more)
        self.observes = observes
        self.settles_success = settles
        self.refuses = refuses
        self.fails = False
        self.log: list[object] = []

    @property
    def observes_results(self) -> bool:
        return self.observes

    def admit(self, call: Call) -> str:
        if self.refuses:
            raise RejectedError("refused")
        return "token"

    def on_result(self, token: str, result: Any) -> None:
        assert token == "token"
        self.log.append(result)
        if self.fails:
            raise ValueError("broken")

    def on_response_head(self, token: str) -> str:
        self.log.append("head")
        return token

    def settle(self, token: str, ending: Ending) -> None:
        assert token == "token"
        self.log.append(str(ending.kind))


@each_way
class TestObserving:
    def test_it_gets_the_result_before_it_is_settled(self, make: Make) -> None:
        gate = Watching()
        assert make(Pipeline(gate, Noting()), lambda: 3) == 3
        assert gate.log == [3, "ok"]

    def test_no_result_of_a_failure_and_of_what_is_listed_as_one(self, make: Make) -> None:
        gate = Watching()
        with pytest.raises(ConnectionError):
            make(Pipeline(gate), down)
        bad = Pipeline(Retry(2, wait=backoff.none()), gate, failures=Allowlist.of_results(lambda r: r == "bad"))
        assert make(bad, lambda: "bad") == "bad"
        assert gate.log == ["failed", "failed", "failed"]

    def test_the_result_that_came_too_late(self, make: Make) -> None:
        gate = Watching()
        with virtual_time() as clock:

            def late() -> str:
                clock.advance(5)
                return "late"

            assert make(Pipeline(gate, Timeout(1)), late) == "late"
        assert gate.log == ["late", "timed_out"]

    def test_a_rejection_is_published(self, make: Make) -> None:
        gate = Watching(refuses=True)
        with Recorder() as recorder, pytest.raises(RejectedError):
            make(Pipeline(gate), int)
        assert len(recorder.of(Rejected)) == 1
        assert gate.log == []

    def test_a_hook_that_fails_is_logged_and_the_result_comes_out(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = Watching()
        gate.fails = True
        assert make(Pipeline(gate), int) == 0
        assert gate.log == [0, "ok"]
        assert "on_result of a policy" in caplog.text

    def test_a_stream_at_its_head(self, make: Make) -> None:
        gate, streaming = Watching(), Streaming()
        make(Pipeline(gate, streaming), int)
        assert gate.log == [0, "head"]
        streaming.left[0].end(Ending(None))
        assert len(gate.log) == 3

    def test_in_shadow_mode_too(self, make: Make) -> None:
        gate, refusing = Watching(mode="shadow"), Watching(mode="shadow", refuses=True)
        assert make(Pipeline(gate, refusing), int) == 0
        assert (gate.log, refusing.log) == ([0, "ok"], [])

    def test_one_that_does_not_observe_gets_none(self, make: Make) -> None:
        gate = Watching(observes=False)
        for pipeline in (Pipeline(gate), Pipeline(gate, Noting())):
            make(pipeline, int)
        assert gate.log == ["ok", "ok"]


@each_way
class TestAdmission:
    def test_a_success_is_not_settled_and_a_failure_is(self, make: Make) -> None:
        gate = Watching(observes=False, settles=False)
        assert make(Pipeline(gate), int) == 0
        assert gate.log == []
        with pytest.raises(ConnectionError):
            make(Pipeline(gate), down)
        with pytest.raises(RejectedError):
            make(Pipeline(gate, Watching(observes=False, settles=False, refuses=True)), int)
        assert gate.log == ["failed", "abandoned"]

    def test_a_rejection_is_published(self, make: Make) -> None:
        with Recorder() as recorder, pytest.raises(RejectedError):
            make(Pipeline(Watching(observes=False, settles=False, refuses=True)), int)
        assert len(recorder.of(Rejected)) == 1

    def test_in_a_pair_it_is_settled_like_others(self, make: Make) -> None:
        gate = Watching(observes=False, settles=False)
        make(Pipeline(gate, Noting()), int)
        with pytest.raises(RejectedError):
            make(Pipeline(gate, Closed()), int)
        assert gate.log == ["ok", "abandoned"]


@pytest.mark.parametrize("enter", [True, False])
def test_a_block_counts_as_a_call_of_its_function(enter: bool) -> None:
    seen: list[Any] = []

    class Seeing(Noting):
        def admit(self, call: Call) -> str:
            seen.append(call)
            return super().admit(call)

    gate = Seeing()
    if enter:
        with gate.calling():
            pass
    else:
        gate.call(int)
    assert seen[0].calls_made == 1
