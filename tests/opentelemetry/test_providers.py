"""Whether there are global providers."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import metrics, trace

from resilience.opentelemetry._providers import Awaited, meter_provider, tracer_provider
from tests.opentelemetry.telemetry import Telemetry
from tests.support.interpreter import run_python


def test_a_provider_that_is_given_is_there(providers: Telemetry) -> None:
    for one in (tracer_provider(providers.tracer_provider), meter_provider(providers.meter_provider)):
        assert not one.is_missing
        assert one.look()


@pytest.mark.parametrize(("find", "module"), [(tracer_provider, trace), (meter_provider, vars(metrics)["_internal"])])
def test_the_global_one_is_there_once_it_is_set(find: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_TRACER_PROVIDER" if module is trace else "_METER_PROVIDER"
    assert vars(module)[name] is None, "an earlier test has set the global provider"
    provider = find(None)

    assert provider.is_missing
    assert not provider.look()
    monkeypatch.setattr(module, name, object())
    assert provider.look()
    assert not provider.is_missing
    monkeypatch.undo()
    assert provider.look()  # it can be set only once


def test_providers_that_make_nothing_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = trace.NoOpTracerProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", nothing)

    assert not tracer_provider(nothing).look()
    assert not tracer_provider(None).look()
    assert not meter_provider(metrics.NoOpMeterProvider()).look()


def test_an_api_that_keeps_it_elsewhere() -> None:
    assert Awaited(given=None, nothing=trace.NoOpTracerProvider, names={}, name="_TRACER_PROVIDER").look()


def test_one_that_the_environment_names() -> None:
    code = """
from resilience.opentelemetry._providers import meter_provider, tracer_provider
print(tracer_provider(None).look(), meter_provider(None).look())
"""

    assert run_python(code) == "False False\n"
    given = {"OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider", "OTEL_PYTHON_METER_PROVIDER": "sdk_meter_provider"}
    assert run_python(code, **given) == "True True\n"
