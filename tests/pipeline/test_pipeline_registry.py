"""The mapping of all named pipelines: names, lifetimes, and warnings about names that are taken."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest

import resilience
from resilience import Pipeline, ResilienceWarning, Retry, pipelines
from tests.support.functions import down
from tests.support.policies import retrying

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def test_after_the_first_function() -> None:
    pipeline = retrying()
    assert pipeline.name == ""
    pipeline(down)
    pipeline(divmod)
    assert pipeline.name == "down"
    assert pipelines()["down"] is pipeline


def test_pipelines_is_weak() -> None:
    pipeline = retrying(name="short-lived")
    assert pipelines()["short-lived"] is pipeline
    assert "short-lived" in list(pipelines())
    assert len(pipelines()) == len(list(pipelines()))
    gone = weakref.ref(pipeline)
    del pipeline
    gc.collect()
    assert gone() is None
    assert "short-lived" not in pipelines()


def test_the_newest_wins() -> None:
    first = retrying(name="twin")
    with pytest.warns(ResilienceWarning, match="twin") as caught:
        second = retrying(name="twin")
    assert len(caught) == 1
    assert pipelines()["twin"] is second
    third = retrying(name="twin")
    assert pipelines()["twin"] is third
    assert first.name == "twin"


def test_warnings_point_at_the_line_of_the_user() -> None:
    keep = Pipeline(Retry(), name="twice-at-my-line")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = Pipeline(Retry(), name="twice-at-my-line")

    assert [(str(one.category.__name__), one.filename) for one in caught] == [(ResilienceWarning.__name__, __file__)]
    assert resilience.pipelines()["twice-at-my-line"] is again
    del keep


def test_warnings_for_an_adopted_name_point_at_the_line_of_the_user() -> None:
    keep = Pipeline(Retry(), name="namesake")
    unnamed = Pipeline(Retry())

    def namesake() -> None: ...

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unnamed(namesake)

    assert [one.filename for one in caught] == [__file__]
    del keep


def test_what_is_bound_keeps_its_pipeline() -> None:
    pipeline = Pipeline(Retry(), name="kept-by-what-is-bound")
    guarded = pipeline.bind(idempotent=True)(lambda: "fine")
    alive = weakref.ref(pipeline)
    del pipeline
    gc.collect()

    assert resilience.pipelines()["kept-by-what-is-bound"] is alive()
    assert guarded() == "fine"


def test_the_mapping_of_pipelines_is_read_in_one_go() -> None:
    keep = Pipeline(Retry(), name="read-in-one-go")

    assert keep in list(resilience.pipelines().values())
    assert ("read-in-one-go", keep) in list(resilience.pipelines().items())


@pytest.mark.filterwarnings("ignore:there are two pipelines named 'outlived'")
def test_an_older_pipeline_of_the_same_name_outlives_the_newer() -> None:
    older = Pipeline(Retry(), name="outlived")
    newer = Pipeline(Retry(), name="outlived")
    assert pipelines()["outlived"] is newer

    del newer

    assert pipelines()["outlived"] is older


def test_the_mapping_of_pipelines_shows_names() -> None:
    keep = Pipeline(Retry(), name="shown-in-the-mapping")

    assert "shown-in-the-mapping" in repr(pipelines())
    assert keep is pipelines()["shown-in-the-mapping"]
