"""A registry with metrics of pipelines, and the values in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from resilience.prometheus import PrometheusMetrics


class Exposed:
    """What a registry exposes.

    Attributes:
        registry: the registry.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

    def text(self) -> str:
        """Scrape it."""
        return generate_latest(self.registry).decode()

    def all(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """The values of a metric: by the values of the labels that are not given, in the order of their names."""
        found: dict[tuple[str, ...], float] = {}
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    rest = sorted(sample.labels.keys() - labels.keys())
                    found[tuple(sample.labels[one] for one in rest)] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """The value of a metric with exactly these labels; None if there is none."""
        return self.registry.get_sample_value(name, labels)

    def names(self) -> set[str]:
        """The names of all samples."""
        return {sample.name for family in self.registry.collect() for sample in family.samples}


@contextmanager
def exposed(**settings: Any) -> Iterator[Exposed]:
    """Measure what is called in the block."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry, **settings)
    settings.clear()  # so that no pipeline is kept alive here
    with metrics:
        yield Exposed(registry)
