"""What is known about a call beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import Pipeline, Retry, Timeout
from resilience._call.call import CallOptions
from resilience.testing import Recorder
from tests.support.functions import down


def test_a_binding_knows_its_site() -> None:
    pipeline: Pipeline[Any] = Pipeline(name="known")
    _, binding = pipeline.entry()

    assert isinstance(binding, CallOptions)
    assert binding.pipeline.name == "known"


@pytest.mark.filterwarnings("ignore:.*leave one out")
def test_a_policy_that_a_pipeline_contains_twice_has_its_last_name() -> None:
    twice = Retry(1)
    pipeline: Pipeline[Any] = Pipeline(twice, Timeout(1.0), twice)
    info = pipeline.entry()[1].pipeline

    assert info.name_of(twice) == "retry_2"
    assert info.name_of(pipeline["timeout"]) == "timeout"
    assert info.name_of(Retry(1)) == ""


def test_events_show_a_target_without_credentials() -> None:
    pipeline = Pipeline[int](Retry(1))
    bound = pipeline.bind(target="https://user:password@quotes.test/path?key=secret#part")

    with Recorder(pipeline) as recorder:
        bound.call(int)
        with pytest.raises(ConnectionError):
            bound.call(down)

    assert len(recorder.events) == 5
    assert {event.target for event in recorder.events} == {"https://quotes.test/path"}
