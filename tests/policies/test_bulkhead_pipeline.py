"""A bulkhead beside hooks that raise, in shadow mode, in several pipelines, and in a forked child."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from resilience import BulkheadFullError, Call, Ending, Gate, Pipeline, Retry, Ticket
from resilience._policies.bulkhead import Bulkhead
from resilience.events import Rejected
from resilience.testing import Recorder, virtual_time
from tests.policies.helpers import admitted, give_back, idle, reasons


class Broken(Gate[None]):
    """A gate whose hook raises."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.hook = hook

    def admit(self, call: Call) -> None:
        if self.hook == "admit":
            raise ZeroDivisionError

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        if self.hook == "settle":
            raise ZeroDivisionError


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("hook", ["admit", "settle"])
def test_hooks_that_raise_keep_no_permit(hook: str, inside: bool) -> None:
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(bulkhead, Broken(hook)) if inside else Pipeline(Broken(hook), bulkhead)
    attempts: list[Callable[[], int]] = [lambda: pipeline.call(int), lambda: asyncio.run(pipeline.acall(int))]
    for _ in range(3):
        for attempt in attempts:
            if hook == "admit":
                with pytest.raises(ZeroDivisionError):
                    attempt()
            else:
                assert attempt() == 0

    assert idle(bulkhead)


def test_a_listener_that_raises_does_not_reach_the_call() -> None:
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(bulkhead)
    admitted(bulkhead)

    def listener(event: object) -> None:
        raise ZeroDivisionError

    with pipeline.subscribe(listener), pytest.raises(BulkheadFullError):
        pipeline.call(int)

    give_back(bulkhead)
    assert idle(bulkhead)


def test_a_rejection_is_not_retried() -> None:
    bulkhead = Bulkhead(1)
    admitted(bulkhead)
    pipeline = Pipeline(Retry(5), bulkhead)
    with virtual_time() as clock, Recorder(pipeline) as recorder, pytest.raises(BulkheadFullError):
        pipeline.call(int)

    assert (reasons(recorder), clock.sleeps) == (["full"], [])


def test_shadow_counts_what_enforce_would_let_in() -> None:
    bulkhead = Bulkhead(1, mode="shadow")
    pipeline = Pipeline(bulkhead)
    seen: list[int] = []

    def outer() -> int:
        seen.append(bulkhead.in_flight)
        return pipeline.call(inner)

    def inner() -> int:
        seen.append(bulkhead.in_flight)
        return 7

    with Recorder(pipeline) as recorder:
        assert pipeline.call(outer) == 7

    assert seen == [1, 1]
    assert [(event.reason, event.mode) for event in recorder.of(Rejected)] == [("full", "shadow")]
    assert idle(bulkhead)
    bulkhead.mode = "enforce"
    with pytest.raises(BulkheadFullError):
        pipeline.call(outer)
    assert idle(bulkhead)


def test_the_mode_changes_while_calls_run() -> None:
    bulkhead = Bulkhead(3)
    pipeline = Pipeline(bulkhead)
    modes = iter(["shadow", "off", "enforce", "shadow"])

    def work(depth: int) -> int:
        bulkhead.update(mode=next(modes))
        return depth if depth == 3 else pipeline.call(work, depth + 1)

    assert pipeline.call(work, 0) == 3
    assert idle(bulkhead)


def test_one_bulkhead_in_two_pipelines_is_shared() -> None:
    bulkhead = Bulkhead(1)
    first, second = Pipeline(bulkhead, name="bulkhead-first"), Pipeline(bulkhead, name="bulkhead-second")

    with pytest.raises(BulkheadFullError) as caught:
        first.call(second.call, int)

    assert caught.value.pipeline == "bulkhead-second"
    assert idle(bulkhead)


def test_a_bulkhead_guards_a_function_by_itself() -> None:
    bulkhead = Bulkhead(1, name="narrow")

    @bulkhead
    def descend(depth: int) -> int:
        return depth if depth == 0 else descend(depth - 1)

    assert descend(0) == 0
    with pytest.raises(BulkheadFullError, match=r"narrow of .*descend is full") as caught:
        descend(1)
    assert caught.value.policy == "narrow"


def test_a_forked_child_can_use_it() -> None:
    from tests.support.fork import in_child

    bulkhead = Bulkhead(1, queue=1)
    pipeline = Pipeline(bulkhead)

    assert in_child(lambda: str(pipeline.call(lambda: 7))) == "7"
