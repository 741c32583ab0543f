"""PrometheusMetrics: what it can be given, and how long it works."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from resilience import Bulkhead, Pipeline, Retry, UsageError
from resilience._pipeline.observers import installed
from resilience.prometheus import PrometheusMetrics
from tests.prometheus.reading import Exposed, exposed
from tests.support.interpreter import run_python

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")
CALLS = "resilience_calls_total"


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "error", "words"),
        [
            ({"registry": None}, TypeError, "registry must be a CollectorRegistry of prometheus_client, not None"),
            ({"pipelines": "quotes"}, TypeError, "pipelines must be an iterable of pipelines"),
            ({"pipelines": Retry()}, TypeError, "pipelines must be an iterable of pipelines"),
            ({"pipelines": [Retry()]}, TypeError, "pipelines must contain pipelines, not Retry"),
            ({"pipelines": [Pipeline(Retry())]}, ValueError, "a pipeline without a name cannot be measured"),
            ({"buckets": "1"}, TypeError, "buckets must be a sequence of numbers"),
            ({"buckets": 1.0}, TypeError, "buckets must be a sequence of numbers"),
            ({"buckets": ()}, ValueError, "buckets must be numbers > 0 in ascending order"),
            ({"buckets": (float("inf"),)}, ValueError, "buckets must be numbers > 0 in ascending order"),
            ({"buckets": (1, 1)}, ValueError, "buckets must be numbers > 0 in ascending order"),
            ({"buckets": (2, 1)}, ValueError, "buckets must be numbers > 0 in ascending order"),
            ({"buckets": (0, 1)}, ValueError, "each of buckets must be a number > 0"),
            ({"buckets": (float("nan"),)}, ValueError, "each of buckets must be a number > 0"),
            ({"buckets": ("1",)}, TypeError, "each of buckets must be a number > 0"),
            ({"multiprocess": "yes"}, TypeError, 'multiprocess must be True, False or "auto"'),
            ({"multiprocess": True}, ValueError, "PROMETHEUS_MULTIPROC_DIR must be set before the program starts"),
            ({"key_labels": 1}, TypeError, "key_labels must be True or False"),
        ],
        ids=range(17),
    )
    def test_what_is_refused(self, settings: dict[str, Any], error: type[Exception], words: str) -> None:
        registry = CollectorRegistry()
        before = installed.all

        with pytest.raises(error, match=words):
            PrometheusMetrics(**{"registry": registry, **settings})

        assert installed.all == before
        assert list(registry.collect()) == []

    def test_a_directory_that_is_set_too_late_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "anywhere")

        with pytest.raises(ValueError, match="prometheus_client reads it when it is imported"):
            PrometheusMetrics(CollectorRegistry())
        with exposed(multiprocess=False) as found:
            assert "resilience_build_info" in found.names()

    def test_buckets(self) -> None:
        with exposed(buckets=[0.5, 2, float("inf")]) as found:
            pipeline = Pipeline(name="bucketed")
            pipeline.call(int)

            assert found.all("resilience_call_duration_seconds_bucket", pipeline="bucketed") == {
                ("0.5",): 1,
                ("2.0",): 1,
                ("+Inf",): 1,
            }
            assert pipeline.name == "bucketed"

    def test_the_default_registry(self) -> None:
        with PrometheusMetrics():
            pipeline = Pipeline(name="by_default")
            pipeline.call(int)

            assert Exposed(REGISTRY).value(CALLS, pipeline="by_default", outcome="ok") == 1
        assert Exposed(REGISTRY).value(CALLS, pipeline="by_default", outcome="ok") is None


class TestRegistries:
    def test_two_on_one_registry_are_refused_and_the_first_goes_on(self) -> None:
        pipeline = Pipeline(name="registered_twice")
        with exposed() as found:
            with pytest.raises(
                ValueError, match=r"one PrometheusMetrics for each registry, or close\(\) the other one"
            ):
                PrometheusMetrics(found.registry)
            pipeline.call(int)

            assert found.value(CALLS, pipeline="registered_twice", outcome="ok") == 1
            assert found.value("resilience_attempts_total", pipeline="registered_twice", outcome="ok") == 1

    def test_a_metric_of_the_same_name_is_in_the_way(self) -> None:
        registry = CollectorRegistry()
        Gauge("resilience_build_info", "Of another library.", registry=registry)

        with pytest.raises(ValueError, match="the registry has these metrics already"):
            PrometheusMetrics(registry)

    def test_two_registries_both_count(self) -> None:
        pipeline = Pipeline(name="registered_apart")
        with exposed() as one:
            pipeline.call(int)
            with exposed() as other:
                pipeline.call(int)
                assert other.value(CALLS, pipeline="registered_apart", outcome="ok") == 1
            pipeline.call(int)

            assert one.value(CALLS, pipeline="registered_apart", outcome="ok") == 3

    def test_the_metrics_of_others_in_the_registry_stay(self) -> None:
        with exposed() as found:
            Counter("mine", "Of the program.", registry=found.registry).inc()
            assert found.value("mine_total") == 1
        assert found.value("mine_total") == 1

    def test_registration_is_no_scrape(self) -> None:
        asked: list[object] = []

        class Asked(Bulkhead):
            def snapshot(self) -> dict[str, Any]:
                asked.append(self)
                return super().snapshot()

        pipeline = Pipeline(Asked(3), name="asked_at_scrape")
        with PrometheusMetrics(CollectorRegistry(auto_describe=True)):
            assert asked == []
        assert pipeline.name == "asked_at_scrape"


class TestClosing:
    def test_afterwards_nothing_is_counted_and_the_registry_is_free(self) -> None:
        registry = CollectorRegistry()
        pipeline = Pipeline(name="closed_metrics")
        metrics = PrometheusMetrics(registry)
        pipeline.call(int)
        metrics.close()
        metrics.close()
        pipeline.call(int)

        assert list(registry.collect()) == []
        with PrometheusMetrics(registry):
            assert Exposed(registry).value(CALLS, pipeline="closed_metrics", outcome="ok") == 0

    def test_a_closed_one_cannot_be_entered(self) -> None:
        metrics = PrometheusMetrics(CollectorRegistry())
        metrics.close()

        with pytest.raises(UsageError, match="was closed"), metrics:
            pass

    def test_in_the_middle_of_a_call(self) -> None:
        metrics = PrometheusMetrics(CollectorRegistry())
        pipeline = Pipeline(Retry(), name="closed_meanwhile")

        def work() -> str:
            metrics.close()
            return "fine"

        assert pipeline.call(work) == "fine"

    def test_nothing_of_it_is_left(self) -> None:
        before = installed.all
        with exposed():
            pass
        gc.collect()

        assert installed.all == before
        assert [one for one in gc.get_objects() if type(one).__name__ == "OwnMetrics"] == []


class TestWithoutTheClient:
    def test_the_error_names_the_extra(self) -> None:
        code = """
import sys
sys.modules["prometheus_client"] = None
try:
    import resilience.prometheus
except ImportError as error:
    print(error)
"""
        expected = 'prometheus_client is not installed; to install it: pip install "resilience-client[prometheus]"'
        assert run_python(code).strip() == expected

    def test_resilience_alone_does_not_import_it(self) -> None:
        code = "import sys, resilience; print('prometheus_client' in sys.modules, resilience.prometheus.__name__)"
        assert run_python(code).strip() == "False resilience.prometheus"
