"""Which pipelines are measured."""

from __future__ import annotations

import gc

import pytest

from resilience import Pipeline, Retry, backoff
from resilience.events import Rejected
from resilience.prometheus._selection import Selection
from tests.prometheus.reading import exposed
from tests.support.functions import Failing

CALLS = "resilience_calls_total"
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def test_pipelines_made_before_and_after_are_measured() -> None:
    before = Pipeline(name="made_before")
    before.call(int)
    with exposed() as found:
        after = Pipeline(name="made_after")
        for pipeline in (before, after, after):
            pipeline.call(int)

        assert found.value(CALLS, pipeline="made_before", outcome="ok") == 1
        assert found.value(CALLS, pipeline="made_after", outcome="ok") == 2


def test_a_pipeline_is_there_before_its_first_call() -> None:
    pipeline = Pipeline(name="never_called")
    with exposed() as found:
        assert found.value(CALLS, pipeline="never_called", outcome="failed") == 0
    assert pipeline.name == "never_called"


def test_a_pipeline_without_a_name_is_measured_when_a_function_has_given_it_one() -> None:
    pipeline = Pipeline(Retry(wait=backoff.none()))
    fail = Failing(2)

    def named_later() -> None:
        fail()

    with exposed() as found:
        pipeline.call(Failing(1))
        assert found.all(CALLS, pipeline="") == {}
        pipeline(named_later)()

        assert found.value(CALLS, pipeline="named_later", outcome="ok") == 1
        assert found.value("resilience_attempts_total", pipeline="named_later", outcome="failed") == 2
        assert found.all("resilience_retry_wait_seconds_total", pipeline="") == {}


def test_only_the_given_ones() -> None:
    chosen, other = Pipeline(Retry(1), name="chosen"), Pipeline(Retry(1), name="not_chosen")
    with exposed(pipelines=iter([chosen, chosen])) as found:
        for pipeline in (chosen, other):
            pipeline.call(int)
            with pytest.raises(ConnectionError):
                pipeline.call(Failing())

        assert found.value(CALLS, pipeline="chosen", outcome="ok") == 1
        assert found.value("resilience_retries_refused_total", pipeline="chosen", reason="attempts") == 1
        assert "not_chosen" not in found.text()


def test_of_two_with_one_name_only_the_given_one() -> None:
    chosen, other = Pipeline(Retry(1), name="same"), Pipeline(Retry(1), name="same")
    with exposed(pipelines=[chosen]) as found:
        for pipeline in (chosen, other, other):
            with pytest.raises(ConnectionError):
                pipeline.call(Failing())

        assert found.value(CALLS, pipeline="same", outcome="failed") == 1
        assert found.value("resilience_retries_refused_total", pipeline="same", reason="attempts") == 1


def test_none_at_all() -> None:
    pipeline = Pipeline(name="measured_by_nobody")
    with exposed(pipelines=[]) as found:
        pipeline.call(int)

        assert found.names() == {"resilience_build_info"}


def test_the_given_ones_are_not_kept_alive() -> None:
    pipeline = Pipeline(name="short_lived")
    selection = Selection([pipeline])
    selection.subscribe(repr, (Rejected,))
    assert [info.name for info in selection.live()] == ["short_lived"]

    del pipeline
    gc.collect()

    assert selection.live() == []
    selection.unsubscribe()
