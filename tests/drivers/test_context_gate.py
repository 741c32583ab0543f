"""The gate that makes calls, and attempts, in a context."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from resilience import Ending, EndingKind, Pipeline, Retry, backoff
from resilience._call.call import PipelineInfo
from resilience._call.running_call import RunningCall
from resilience._pipeline.observers import ContextGate, Contexts, install_tracing, uninstall_tracing
from resilience.events import Outcome
from tests.support.functions import Failing, down
from tests.support.policies import Closed, Streaming
from tests.support.ways import Make, each_way

where: ContextVar[str] = ContextVar("where", default="outside")


class Entering(ContextGate):
    """Enters its own name, and notes what happens."""

    def __init__(self, place: str, notes: list[Any], *, enters: bool = True) -> None:
        super().__init__()
        self.place = place
        self.notes = notes
        self.enters = enters

    def enter(self, call: RunningCall) -> Any:
        if not self.enters:
            return None
        return where.set(self.place)

    def leave(self, token: Any, result: object, error: BaseException | None) -> None:
        where.reset(token)
        self.notes.append((f"{self.place} left", result, type(error).__name__))

    def ended(self, token: Any, outcome: Outcome, error: BaseException | None) -> None:
        self.notes.append((f"{self.place} ended", str(outcome), type(error).__name__))


class Tracer:
    """Has the gates of all pipelines."""

    def __init__(self, *, enters: bool = True) -> None:
        self.notes: list[Any] = []
        self.enters = enters

    def contexts_of(self, info: PipelineInfo) -> Contexts:
        call, attempt = (Entering(place, self.notes, enters=self.enters) for place in ("call", "attempt"))
        return Contexts(call, attempt)


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    installed = Tracer()
    install_tracing(installed)
    yield installed
    uninstall_tracing(installed)


@each_way
def test_attempts_are_made_inside_of_the_call(tracer: Tracer, make: Make) -> None:
    seen: list[str] = []
    failing = Failing(1)

    def work() -> str:
        seen.append(where.get())
        return failing()

    make(Pipeline[Any](Retry(2, wait=backoff.none())), work)

    assert seen == ["attempt", "attempt"]
    assert where.get() == "outside"
    assert tracer.notes == [
        ("attempt left", None, "ConnectionError"),
        ("attempt ended", "failed", "ConnectionError"),
        ("attempt left", "fine", "NoneType"),
        ("attempt ended", "ok", "NoneType"),
        ("call left", "fine", "NoneType"),
        ("call ended", "ok", "NoneType"),
    ]


def test_a_call_that_a_policy_rejects(tracer: Tracer) -> None:
    with pytest.raises(Exception, match="closed"):
        Pipeline[Any](Closed()).call(int)

    assert tracer.notes == [("call left", None, "RejectedError"), ("call ended", "rejected", "RejectedError")]


def test_a_stream_is_left_at_its_head_and_ends_later(tracer: Tracer) -> None:
    gate = Streaming()
    Pipeline[Any](gate).call(int)

    assert [note for note, *_ in tracer.notes] == ["attempt left", "call left"]
    gate.left.pop().end(Ending(EndingKind.OK))
    assert tracer.notes[2:] == [("attempt ended", "ok", "NoneType"), ("call ended", "ok", "NoneType")]


def test_a_call_that_needs_no_context_passes() -> None:
    idle = Tracer(enters=False)
    install_tracing(idle)
    try:
        with pytest.raises(ConnectionError):
            Pipeline[Any]().call(down)
        assert asyncio.run(Pipeline[Any]().acall(int)) == 0
    finally:
        uninstall_tracing(idle)

    assert idle.notes == []


def test_only_one_of_two_is_uninstalled(tracer: Tracer) -> None:
    other = Tracer()
    install_tracing(other)
    uninstall_tracing(other)

    Pipeline[Any]().call(int)

    assert other.notes == []
    assert len(tracer.notes) == 4
