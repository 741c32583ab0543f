"""What is in force: the spans and metrics of all pipelines, since `instrument` and until `uninstrument`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace

from resilience import Subscription, subscribe
from resilience._pipeline.observers import install, install_tracing, uninstall, uninstall_tracing
from resilience._util.locks import make_lock
from resilience.opentelemetry._gauges import Gauges
from resilience.opentelemetry._metrics import Metrics
from resilience.opentelemetry._providers import meter_provider as awaited
from resilience.opentelemetry._span_events import EVENTS
from resilience.opentelemetry._tracing import Tracing


class _Instruments(NamedTuple):
    """The instruments of one MeterProvider, which are made once, since it cannot remove them."""

    metrics: Metrics
    gauges: Gauges


class _Instrumentation(NamedTuple):
    """What is in force."""

    tracer_provider: trace.TracerProvider | None
    meter_provider: metrics.MeterProvider | None
    tracing: Tracing
    instruments: _Instruments
    subscriptions: tuple[Subscription, ...]


class _Present:
    """What is in force in this process, and the instruments that were made."""

    instrumentation: _Instrumentation | None = None
    instruments: Final[WeakKeyDictionary[object, _Instruments]] = WeakKeyDictionary()


_lock = make_lock()


def instrument(
    tracer_provider: trace.TracerProvider | None = None, meter_provider: metrics.MeterProvider | None = None
) -> None:
    """Have all pipelines make spans and metrics, also those that are made later, until `uninstrument` is called.

    Args:
        tracer_provider: the provider of the spans; None for the global one of OpenTelemetry, which may be set later.
        meter_provider: the provider of the metrics; None for the global one, which may be set later.

    Raises:
        ValueError: it was called before with other providers. With the same ones, the call has no effect.

    While there is no global provider, calls make neither spans nor metrics.
    """
    with _lock:
        present = _Present.instrumentation
        if present is not None:
            if (present.tracer_provider, present.meter_provider) != (tracer_provider, meter_provider):
                raise ValueError("pipelines are instrumented already, with other providers; call uninstrument() first")
            return
        tracing = Tracing(tracer_provider, _version())
        instruments = _instruments(meter_provider)
        subscriptions = (
            subscribe(tracing.listen, events=tuple(EVENTS), when=tracing.is_active),
            subscribe(
                instruments.metrics.listen, events=instruments.metrics.events, when=instruments.metrics.is_active
            ),
        )
        instruments.gauges.is_on = True
        install(instruments.metrics)
        install_tracing(tracing)
        _Present.instrumentation = _Instrumentation(
            tracer_provider, meter_provider, tracing, instruments, subscriptions
        )


def uninstrument() -> None:
    """End what `instrument` has begun; without effect if it was not called. Calls in flight get their spans."""
    with _lock:
        present = _Present.instrumentation
        if present is None:
            return
        _Present.instrumentation = None
        uninstall_tracing(present.tracing)
        uninstall(present.instruments.metrics)
        present.instruments.gauges.is_on = False
        for subscription in present.subscriptions:
            subscription()


def _instruments(provider: metrics.MeterProvider | None) -> _Instruments:
    """Return the instruments of a provider, the same each time. None stands for the global one."""
    key: object = _Present if provider is None else provider
    found = _Present.instruments.get(key)
    if found is None:
        meter = metrics.get_meter("resilience", _version(), provider)
        counted = Metrics(meter, awaited(provider))
        found = _Present.instruments[key] = _Instruments(counted, Gauges(meter, counted, _version()))
    return found


def _version() -> str:
    """Return the version of the library."""
    try:
        return version("resilience-client")
    except PackageNotFoundError:  # it runs from a checkout
        return "unknown"
