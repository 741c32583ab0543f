"""The page on OpenTelemetry has all that the code has, and runs in real time."""

from __future__ import annotations

import re
from typing import Any

from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider

from resilience import logs
from resilience.opentelemetry._gauges import Gauges
from resilience.opentelemetry._metrics import Metrics
from resilience.opentelemetry._providers import meter_provider
from resilience.opentelemetry._span_events import ATTRIBUTES, EVENTS
from tests.guards.docs_code import run_page
from tests.guards.tree import ROOT

PAGE = ROOT / "docs" / "observe.md"


class NamingMeter(NoOpMeter):
    """Makes instruments that do nothing, and keeps their names."""

    def __init__(self, made: list[str]) -> None:
        super().__init__("test")
        self._made = made

    def create_counter(self, name: str, *args: Any, **more: Any) -> Any:
        self._made.append(name)
        return super().create_counter(name, *args, **more)

    def create_histogram(self, name: str, *args: Any, **more: Any) -> Any:
        self._made.append(name)
        return super().create_histogram(name, *args, **more)

    def create_observable_gauge(self, name: str, *args: Any, **more: Any) -> Any:
        self._made.append(name)
        return super().create_observable_gauge(name, *args, **more)

    def create_observable_counter(self, name: str, *args: Any, **more: Any) -> Any:
        self._made.append(name)
        return super().create_observable_counter(name, *args, **more)


def section(name: str) -> str:
    """Return a section of the page."""
    parts = re.split(r"^#{2,3} ", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    (found,) = [part for part in parts if part.startswith(f"{name}\n")]
    return found


def test_the_page_holds_in_real_time(log_interval: None) -> None:
    logs.configure(interval=0.0)
    run_page(PAGE)


def test_all_events_and_attributes_of_spans_are_there() -> None:
    named = set(re.findall(r"`((?:resilience|error)\.\w+)`", section("Spans")))
    own = {"resilience.pipeline", "resilience.operation", "resilience.outcome", "resilience.attempts"}

    assert named == {*EVENTS.values(), *ATTRIBUTES.values(), *own}


def test_all_instruments_are_there() -> None:
    named = set(re.findall(r"`(resilience_\w+)`", section("Metrics")))

    made: list[str] = []
    meter = NamingMeter(made)
    metrics = Metrics(meter, meter_provider(NoOpMeterProvider()))
    Gauges(meter, metrics, "1")

    assert named == set(made)
    assert len(made) == len(named)
