"""The collector: the ratio of attempts to their timeout, the bounded names, and no secret in what is exposed."""

from __future__ import annotations

import gc
from contextlib import suppress
from importlib import metadata
from typing import Any

import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Partition,
    Pipeline,
    Retry,
    Timeout,
    backoff,
    subscribe,
)
from resilience.prometheus import _collector
from resilience.prometheus._collector import by_label, library_version
from resilience.prometheus._labels import MOST_PIPELINES
from resilience.testing import VirtualClock
from tests.prometheus.reading import exposed

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")
RATIO = "resilience_attempt_timeout_ratio"


class TestTimeoutRatio:
    def test_is_there_from_a_hundred_attempts_on(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(Timeout(10), Retry(), Timeout(2), name="ratio")
        with exposed() as found:
            for _ in range(99):
                pipeline.call(virtual_clock.advance, 0.01)
            assert found.value(RATIO, pipeline="ratio") is None
            pipeline.call(virtual_clock.advance, 0.01)

            assert found.value(RATIO, pipeline="ratio") == pytest.approx(0.005, rel=0.02)

    def test_is_that_of_the_slowest_percent(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(), Timeout(2), name="slowest")
        with exposed() as found:
            for number in range(200):
                pipeline.call(virtual_clock.advance, 0.001 if number % 50 else 1.5)

            assert found.value(RATIO, pipeline="slowest") == pytest.approx(0.75, rel=0.02)

    def test_forgets_what_is_older_than_a_minute(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(), Timeout(2), name="forgets")
        with exposed() as found:
            for _ in range(100):
                pipeline.call(virtual_clock.advance, 0.01)
            assert found.value(RATIO, pipeline="forgets") is not None
            virtual_clock.advance(120.0)

            assert found.value(RATIO, pipeline="forgets") is None

    def test_is_not_there_without_a_timeout(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(), name="no_timeout")
        with exposed() as found:
            for _ in range(200):
                pipeline.call(virtual_clock.advance, 0.01)

            assert found.value(RATIO, pipeline="no_timeout") is None


def _count_in(pipelines: list[Pipeline[Any]]) -> None:
    """Make a call in each pipeline, and count a retry of its caller."""
    for pipeline in pipelines:
        pipeline.call(int)
        pipeline.engine.info.count_foreign_retry()


class TestNames:
    @pytest.mark.slow
    def test_all_names_beyond_the_greatest_number_are_one(self) -> None:
        pipelines = [Pipeline(Bulkhead(2), name=f"numbered-{number}") for number in range(MOST_PIPELINES + 20)]
        with exposed(pipelines=pipelines) as found:
            _count_in(pipelines)

            calls = found.all("resilience_calls_total", outcome="ok")
            assert len(calls) == MOST_PIPELINES + 1
            assert calls["_overflow",] == 20
            assert found.all("resilience_bulkhead_limit")["_overflow", "bulkhead"] == 40
            assert found.all("resilience_foreign_retries_total")["_overflow",] >= 20
        del pipelines
        gc.collect()  # so that they are in no scrape of another test

    def test_counts_of_unknown_names_are_left_out_where_nothing_overflows(self) -> None:
        assert by_label({"a": 1, "b": 2}, ["a", "c"]) == {("a",): 1, ("c",): 0}
        assert by_label({"a": 1, "b": 2}, ["a", "_overflow"]) == {("a",): 1, ("_overflow",): 2}

    def test_names_and_values_with_special_characters(self) -> None:
        name = 'quotes "and\\lines\n'
        pipeline = Pipeline(name=name)
        with exposed(pipelines=[pipeline]) as found:
            pipeline.call(int)

            assert found.all("resilience_calls_total", outcome="ok") == {(name,): 1}

    def test_names_that_cannot_be_encoded_or_are_long_do_not_spoil_the_page(self) -> None:
        key = "tenant \udc80"
        pipeline = Pipeline(Partition(CircuitBreaker), CircuitBreaker(name="\ud800"), name="cut" * 4000)
        with exposed(pipelines=[pipeline], key_labels=True) as found:
            pipeline.bind(target=key).call(int)

            assert len(found.text()) < 60_000
            (value,) = found.all("resilience_calls_total", outcome="ok").values()
            assert value == 1


class TestVersion:
    def test_is_that_of_the_distribution(self) -> None:
        with exposed(pipelines=[]) as found:
            assert found.value("resilience_build_info", version=metadata.version("resilience-client")) == 1

    def test_is_unknown_without_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> str:
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(_collector, "version", missing)

        assert library_version() == "unknown"


class TestSecrets:
    SECRETS = ("hunter2", "s3cr3t-token", "4111-1111", "ada.lovelace", "body-of-it")

    def pipeline(self) -> Pipeline[Any]:
        """A pipeline whose keys have secrets in them."""
        listed = Allowlist(ConnectionError) | Allowlist.of_results(lambda result: "body" in str(result))
        return Pipeline[Any](
            Fallback(value="body-of-it", on=OSError),
            Retry(2, wait=backoff.none()),
            Partition(CircuitBreaker),
            Partition(lambda: Bulkhead(1), by=lambda call: (call.args, call.kwargs.get("card"))),
            name="with_secrets",
            failures=listed,
        )

    def plant(self, pipeline: Pipeline[Any]) -> None:
        """Make calls with secrets in their arguments, targets, keys, results and errors."""

        def work(*args: Any, **kwargs: Any) -> str:
            if kwargs.get("fail"):
                raise ConnectionError("hunter2 at https://ada.lovelace:hunter2@api.example.com")
            return "body-of-it"

        for target in (
            "https://ada.lovelace:hunter2@api.example.com/v1?key=s3cr3t-token",
            "ada.lovelace:hunter2@api.example.com",
            "https://api.example.com/?s3cr3t-token",
        ):
            for fail in (True, False):
                guarded = pipeline.bind(target=target, operation="work")
                with suppress(ConnectionError):
                    guarded.call(work, {"authorization": "s3cr3t-token"}, card=["4111-1111"], fail=fail)

    def test_a_planted_leak_is_found(self) -> None:
        pipeline = Pipeline(name="hunter2")
        with exposed(pipelines=[pipeline]) as found:
            pipeline.call(int)

            assert [one for one in self.SECRETS if one in found.text()] == ["hunter2"]

    @pytest.mark.parametrize("key_labels", [True, False])
    def test_none_is_exposed(self, key_labels: bool) -> None:
        heard: list[object] = []
        pipeline = self.pipeline()
        with exposed(pipelines=[pipeline], key_labels=key_labels) as found, subscribe(heard.append):
            self.plant(pipeline)
            text = found.text()

        assert heard
        assert 'pipeline="with_secrets"' in text
        assert ("https://api.example.com/v1" in text) is key_labels
        assert [one for one in self.SECRETS if one in text] == []
