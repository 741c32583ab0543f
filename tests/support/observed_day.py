"""Half an hour of the service that is observed, in virtual time, as a Prometheus server has scraped it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry

from docs.plots.fixed_time import fixed_time
from resilience.prometheus import PrometheusMetrics
from resilience.testing import seeded
from tests.support.bad_day import SimulationLoop, quick
from tests.support.observed_service import Conditions, ObservedService
from tests.support.prometheus_server import Server, backfill, prometheus

START = 1_780_000_200.0
"""When it begins, as a time of Unix."""
MINUTE = 60.0
SECONDS = 30 * MINUTE
SCRAPE = 15
"""Seconds between two scrapes."""
STORY = (
    Conditions(4 * MINUTE),
    Conditions(10 * MINUTE, failing=0.4),
    Conditions(13 * MINUTE, failing=1.0, quota=45, foreign=True),
    Conditions(14 * MINUTE, quota=45, foreign=True),
    Conditions(22 * MINUTE, search=0.6, quota=45, foreign=True),
    Conditions(25 * MINUTE, quota=45),
    Conditions(SECONDS),
)
"""Payments fail, first some, then all; the assistant's quota is too small; the search is slow; then all is well."""


async def _scraped() -> list[str]:
    service, registry, lines = ObservedService(STORY), CollectorRegistry(), list[str]()
    with PrometheusMetrics(registry, service.pipelines):
        running = asyncio.create_task(service.run())
        for second in range(0, int(SECONDS), SCRAPE):
            lines += _lines(registry, START + second)
            await asyncio.sleep(SCRAPE)
        await running
    return lines


def _lines(registry: CollectorRegistry, at: float) -> list[str]:
    """Scrape; return the samples with the labels that a server adds, and the time."""
    found: list[str] = []
    for family in registry.collect():
        for sample in family.samples:
            labels = {**sample.labels, "job": "shop", "instance": "shop-1:8000"}
            written = ",".join(f'{name}="{value}"' for name, value in labels.items())
            found.append(f"{sample.name}{{{written}}} {sample.value!r} {at:.0f}")
    return found


@functools.cache
def samples() -> tuple[str, ...]:
    """Return what was scraped; the same in each process."""
    with fixed_time(), seeded(1), quick(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return tuple(runner.run(_scraped()))


@contextmanager
def observed_day() -> Generator[Server]:
    """Serve it."""
    with TemporaryDirectory() as folder:
        backfill(Path(folder), samples())
        with prometheus(Path(folder)) as server:
            yield server
