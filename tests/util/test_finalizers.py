"""What dropped streams and coroutines leave to be settled, inside and outside of locked regions."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from resilience import Ending, Pipeline, Ticket, subscribe
from resilience._util import finalizers
from resilience._util.finalizers import pending, run_pending
from resilience._util.locks import new_lock
from resilience.events import CallEnded
from resilience.testing import virtual_time
from tests.support.policies import Streaming
from tests.support.turnstile import Turnstile
from tests.support.ways import Make, each_way

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines named")


@each_way
def test_what_was_lost_is_swept_by_the_next_call(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finalizers, "run_in_thread", lambda function: None)  # no thread to be had
    gate, streaming = Turnstile(), Streaming()
    pipeline = Pipeline(gate, streaming)
    make(pipeline, lambda: "head")
    with gate.line.lock:  # somebody is in a locked region, so a finaliser only leaves a note
        streaming.left.clear()
        gc.collect()
        assert pending
        assert gate.in_flight == 1

    assert make(Pipeline(Turnstile()), lambda: "fine") == "fine"

    assert not pending
    assert gate.endings == ["abandoned"]


def test_what_was_lost_in_a_locked_region_is_settled_without_another_call() -> None:
    settled = threading.Event()

    class Telling(Turnstile):
        def settle(self, token: Ticket | None, ending: Ending) -> None:
            super().settle(token, ending)
            settled.set()

    gate, streaming = Telling(), Streaming()
    Pipeline(gate, streaming).call(lambda: "head")
    with new_lock():
        streaming.left.clear()
        gc.collect()

    assert settled.wait(60)
    assert gate.endings == ["abandoned"]


def test_no_listener_is_called_by_a_finaliser() -> None:
    streaming = Streaming()
    gate = Turnstile()
    dropping: Pipeline[Any] = Pipeline(gate, streaming, name="dropped-within-a-listener")
    lock = threading.Lock()
    heard: list[tuple[str, str]] = []
    within: list[str] = []

    def listen(event: CallEnded) -> None:
        if not lock.acquire(blocking=False):
            within.append(event.pipeline)
            return
        try:
            heard.append((event.pipeline, event.outcome))
            streaming.left.clear()
            gc.collect()  # at any allocation, let us say
        finally:
            lock.release()

    with subscribe(listen, events=[CallEnded]):
        dropping.call(lambda: "head")
        Pipeline[Any](name="unsuspecting").call(int)

        assert within == []
        assert gate.endings == ["abandoned"], "the permit comes back at once all the same"
        assert heard == [("unsuspecting", "ok")]

        Pipeline[Any](name="the-next").call(int)
        assert heard[1:] == [("dropped-within-a-listener", "abandoned"), ("the-next", "ok")]


def test_what_is_dropped_outside_of_locked_regions_is_settled_at_once() -> None:
    gate, streaming = Turnstile(), Streaming()
    Pipeline(gate, streaming).call(lambda: "head")

    streaming.left.clear()
    gc.collect()

    assert gate.endings == ["abandoned"]


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def suspended(pipeline: Pipeline[Any]) -> Any:
    """Return the coroutine of a call that hangs in its function, and will never be resumed."""
    loop = asyncio.new_event_loop()
    coroutine = pipeline.acall(forever)

    async def first_step() -> None:
        coroutine.send(None)

    loop.run_until_complete(first_step())
    loop.close()
    return coroutine


def test_a_coroutine_dropped_inside_a_locked_region_does_not_deadlock() -> None:
    gate = Turnstile()
    coroutine = suspended(Pipeline(gate))
    assert gate.in_flight == 1

    with gate.line.lock:
        coroutine.close()
        assert gate.in_flight == 1  # nobody can settle it now
    run_pending()

    assert gate.in_flight == 0


def test_a_coroutine_dropped_elsewhere_settles_at_once() -> None:
    gate = Turnstile()
    coroutine = suspended(Pipeline(gate))

    del coroutine
    gc.collect()

    assert gate.in_flight == 0


def test_a_waiter_gets_a_permit_that_was_lost_while_it_waited() -> None:
    gate = Turnstile(patience=1)
    coroutine = suspended(Pipeline(gate))

    async def fine() -> str:
        return "fine"

    async def main() -> str:
        waiter = asyncio.ensure_future(Pipeline(gate).acall(fine))
        await asyncio.sleep(0)
        assert len(gate.line) == 1
        with gate.line.lock:
            coroutine.close()
        assert pending
        return await waiter

    with virtual_time():
        assert asyncio.run(main()) == "fine"
    assert gate.leaked() is None
