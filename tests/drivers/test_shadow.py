"""A gate in shadow mode: it decides, and is told how the calls end that it would have admitted."""

from __future__ import annotations

import asyncio
import logging

import pytest

from resilience import Call, Mode, Pipeline, RejectedError, Ticket
from resilience._drivers.shadow import REJECTED, ShadowGate
from resilience._outcome.ending import OK
from resilience.events import Queued, Rejected
from resilience.testing import Recorder, virtual_time
from tests.support.calls import running_call
from tests.support.functions import down
from tests.support.policies import Holding, Noting
from tests.support.turnstile import Turnstile
from tests.support.ways import Make, each_way

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class Heads(Turnstile):
    """Marks a token at the head of a streamed result."""

    def __init__(self) -> None:
        super().__init__(room=0)
        self.heads: list[Ticket | None] = []

    def on_response_head(self, token: Ticket | None) -> Ticket | None:
        self.heads.append(token)
        return token


def test_shadow_gates_report_and_let_through() -> None:
    gate = Turnstile(room=0)
    gate.mode = Mode.SHADOW
    pipeline = Pipeline(gate)
    gate.take()
    with Recorder(pipeline) as recorder:
        assert pipeline.call(int) == 0
        gate.room = 5
        assert asyncio.run(pipeline.acall(int)) == 0
        gate.put()
        with pytest.raises(ZeroDivisionError):
            pipeline.call(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(pipeline.acall(lambda: 1 // 0))
        assert asyncio.run(pipeline.acall(int)) == 0

    assert [(event.reason, event.mode) for event in recorder.of(Rejected)] == [("full", "shadow")]
    assert [(event.wait, event.mode) for event in recorder.of(Queued)] == [(None, "shadow")]
    assert gate.leaked() is None


@each_way
def test_a_call_that_would_have_waited_does_not_wait_and_leaves_the_queue(make: Make) -> None:
    gate = Turnstile(patience=60)
    gate.mode = Mode.SHADOW
    assert gate.take()

    with virtual_time() as clock, Recorder(events=[Rejected, Queued]) as recorder:
        assert make(Pipeline(gate), lambda: len(gate.line)) == 0

    assert clock.elapsed == 0
    assert recorder.of(Rejected) == []
    assert [(event.wait, event.longest, event.policy) for event in recorder.of(Queued)] == [(None, 60, "turnstile")]
    assert (gate.endings, gate.in_flight) == ([], 1)


@each_way
def test_the_gate_hears_only_of_calls_that_it_would_have_admitted(make: Make) -> None:
    gate = Turnstile(room=0)
    pipeline = Pipeline(gate)
    gate.mode = Mode.SHADOW

    with pytest.raises(ConnectionError):
        make(pipeline, down)
    assert gate.take()
    with pytest.raises(ConnectionError):
        make(pipeline, down)

    assert (gate.endings, gate.in_flight) == (["failed"], 1)


@each_way
def test_it_rejects_again_when_it_is_enforced_again(make: Make) -> None:
    gate = Turnstile(room=0)
    pipeline = Pipeline(gate)
    assert gate.take()
    gate.mode = Mode.SHADOW
    make(pipeline, int)

    gate.mode = Mode.ENFORCE

    with pytest.raises(RejectedError):
        make(pipeline, int)


@pytest.mark.usefixtures("nothing_logged_yet")
def test_a_gate_that_is_broken_rejects_nothing_and_is_settled_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Noting):
        def admit(self, call: Call) -> str:
            raise KeyError("a bug in a hook")

    gate = Broken()
    gate.mode = Mode.SHADOW

    with caplog.at_level(logging.ERROR, "resilience"):
        assert Pipeline(gate).call(int) == 0

    assert gate.endings == []
    assert "admit of a policy in shadow mode" in caplog.text


def test_the_head_of_a_stream_is_reported_for_admitted_calls_only() -> None:
    gate = Heads()
    shadow = ShadowGate(gate)
    call = running_call(Pipeline(gate))

    admitted, rejected = shadow.admit(call), shadow.admit(call)
    assert (admitted, rejected) == (None, REJECTED)
    for token in (admitted, rejected):
        assert shadow.on_response_head(token) is token
        shadow.settle(token, OK)

    assert (gate.heads, gate.endings, gate.in_flight) == ([None], ["ok"], 0)


@pytest.mark.parametrize("gate", [Holding(), Turnstile()])
def test_it_holds_permits_where_the_gate_does(gate: Turnstile) -> None:
    assert ShadowGate(gate).holds_permit is gate.holds_permit


def test_what_the_gate_raises_when_it_is_settled_changes_nothing() -> None:
    gate = Noting(ZeroDivisionError())
    gate.mode = Mode.SHADOW

    assert Pipeline(gate).call(int) == 0
    assert gate.endings == ["ok"]
