"""Traces and metrics of pipelines through the API of OpenTelemetry.

    resilience.opentelemetry.instrument()
    tracer_provider.add_span_processor(resilience.opentelemetry.ResendCountProcessor())

Each call through a pipeline gets a span of the kind INTERNAL, with an event for each retry, hedge, rejection, and so
on; it is current while the call runs, so that the spans of instrumented clients are its children, one for each attempt.
The metrics have the names and attributes of those for Prometheus, without the suffix `_total`.

Spans, events and metrics never contain arguments, results, messages of exceptions, bodies, headers, or URLs. Requires
the extra `otel`, which is the API of OpenTelemetry alone: what becomes of the data is up to the SDK of the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING as _TYPE_CHECKING

from resilience._util.exports import set_public_module as _set_public_module
from resilience._util.extras import import_first as _import_first

if not _TYPE_CHECKING:
    _import_first("opentelemetry.trace", extra="otel")  # before the modules that need it, for an error with the extra

from resilience.opentelemetry._instrument import instrument, uninstrument
from resilience.opentelemetry._resend_count import ResendCountProcessor

__all__ = ["ResendCountProcessor", "instrument", "uninstrument"]

_set_public_module(__name__, __all__, globals())
