"""What the tests of OpenTelemetry share."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace

from resilience._util.finalizers import run_pending
from resilience.opentelemetry import instrument, uninstrument
from tests.opentelemetry.telemetry import Telemetry


@pytest.fixture
def providers() -> Iterator[Telemetry]:
    """Providers that nothing uses yet."""
    telemetry = Telemetry()
    yield telemetry
    gc.collect()
    run_pending()  # a span that ends later would be one of a provider that is shut down
    telemetry.shutdown()


@pytest.fixture
def telemetry(providers: Telemetry, caplog: pytest.LogCaptureFixture) -> Iterator[Telemetry]:
    """Instrumented pipelines; at the end nothing is current any more, and OpenTelemetry has not complained."""
    with caplog.at_level(logging.WARNING, "opentelemetry"):
        instrument(providers.tracer_provider, providers.meter_provider)
        try:
            yield providers
        finally:
            uninstrument()
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")] == []
