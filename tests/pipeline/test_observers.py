"""Metrics that are put into the chains of all pipelines, and taken out again."""

from __future__ import annotations

import asyncio

import pytest

from resilience import Pipeline, Retry, backoff
from resilience._call.call import PipelineInfo
from resilience._pipeline.observers import Meters, install, installed, uninstall
from resilience.events import AttemptEnded, CallEnded
from resilience.testing import Recorder
from tests.support.functions import Flaky
from tests.support.meters import Tally, measured
from tests.support.threads import in_threads

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def test_pipelines_that_were_made_before_and_after_are_measured() -> None:
    before = Pipeline(Retry())
    before.call(int)
    with measured() as tally:
        after = Pipeline(Retry())
        before.call(int)
        asyncio.run(before.acall(int))
        after.call(int)
    before.call(int)
    after.call(int)

    assert tally.outcomes == ["ok"] * 3


def test_without_metrics_no_meter_is_asked_for() -> None:
    tally = Tally()
    install(tally)
    uninstall(tally)
    Pipeline(Retry()).call(int)

    assert tally.asked == []
    assert tally not in installed.all


def test_uninstalling_twice_or_what_was_not_installed_changes_nothing() -> None:
    with measured() as tally:
        uninstall(Tally())
        Pipeline().call(int)
        uninstall(tally)
        uninstall(tally)

    assert tally.outcomes == ["ok"]


class Late:
    """Is there after some looks."""

    def __init__(self, looks: int) -> None:
        self.is_missing = True
        self.looks = looks

    def look(self) -> bool:
        self.looks -= 1
        self.is_missing = self.looks > 0
        return not self.is_missing


@pytest.mark.parametrize("is_async", [False, True])
def test_calls_pass_by_meters_until_what_they_need_is_there(is_async: bool) -> None:
    late, tally = Late(looks=3), Tally()

    class Needing(Tally):
        def meters_of(self, info: PipelineInfo) -> Meters | None:
            meters = tally.meters_of(info)
            return None if meters is None else meters._replace(needs=late)

    pipeline = Pipeline(Retry(2, wait=backoff.none()))
    with measured():
        needing = Needing()
        install(needing)
        for _ in range(4):
            asyncio.run(pipeline.acall(Flaky())) if is_async else pipeline.call(Flaky())
        uninstall(needing)

    assert tally.outcomes == ["ok", "ok"]
    assert sorted(tally.outcomes_of_attempts) == ["failed", "failed", "ok", "ok"]
    assert late.looks == 0


def test_metrics_may_leave_a_pipeline_out() -> None:
    with measured("only_this") as tally:
        Pipeline(name="only_this").call(int)
        Pipeline(name="not_that").call(int)

    assert tally.outcomes == tally.outcomes_of_attempts == ["ok"]


def test_a_pipeline_is_asked_for_again_when_a_function_gives_it_a_name() -> None:
    pipeline = Pipeline(Retry())

    def gives_the_name() -> None: ...

    with measured("gives_the_name") as tally:
        pipeline.call(int)
        guarded = pipeline(gives_the_name)
        guarded()
        pipeline.call(int)

    assert tally.outcomes == ["ok"] * 2


def test_the_parts_of_a_pipeline_have_its_name_until_it_changes() -> None:
    inner, outer = Pipeline(Retry(), name="part"), None
    outer = Pipeline(inner, name="all_of_it")
    with measured() as tally:
        outer.call(int)

    assert tally.asked == ["all_of_it", "part", "part", "all_of_it"]  # for attempts, and for calls


def test_events_and_metrics_work_side_by_side() -> None:
    pipeline = Pipeline(Retry(wait=backoff.none()))
    with measured() as tally, Recorder(pipeline) as recorder:
        pipeline.call(Flaky())

    assert [event.outcome for event in recorder.of(AttemptEnded)] == ["failed", "ok"]
    assert [event.outcome for event in recorder.of(CallEnded)] == tally.outcomes == ["ok"]


@pytest.mark.usefixtures("frequent_switches")
def test_threads_that_install_at_once_lose_nothing() -> None:
    def work(index: int) -> None:
        del index
        for _ in range(20):
            with measured() as tally:
                Pipeline().call(int)
                assert tally in installed.all
                assert tally.outcomes  # calls of the other threads may be among them

    in_threads(4, work)

    assert not any(isinstance(one, Tally) for one in installed.all)
