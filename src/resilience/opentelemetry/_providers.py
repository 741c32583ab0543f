"""Whether there are providers that make anything: the global ones may be set after `instrument`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import metrics, trace

from resilience._pipeline.observers import recompose_all

_NOT_SET: Final = object()


class Awaited:
    """A provider that calls look for until it is there; until then they pass by what makes spans or counts.

    The API hands out stand-ins until then, which pass on what they get from the moment that the provider is set. They,
    and the functions that return it, take longer than a call should while there is nothing to do.

    Args:
        given: the provider; None for the global one.
        nothing: the type of providers that make nothing, such as the API has it.
        names: the namespace that has the global provider.
        name: its name there. If there is no such name, as in an API of the future, the provider counts as set.
    """

    __slots__ = ("_is_given", "_name", "_names", "_nothing", "is_missing")

    def __init__(self, *, given: object, nothing: type[Any], names: Mapping[str, Any], name: str) -> None:
        self._names = names
        self._name = name
        self._nothing = nothing
        self._is_given = given is not None
        self.is_missing = given is None or isinstance(given, nothing)

    @property
    def never(self) -> bool:
        """Whether it is a given one that makes nothing."""
        return self._is_given and self.is_missing

    def look(self) -> bool:
        """Return whether there is a provider that makes something; to be asked while `is_missing` is true."""
        if self.is_missing and not self._is_given:
            found = self._names.get(self._name, _NOT_SET)
            if found is not None and not isinstance(found, self._nothing):
                self.is_missing = False
                recompose_all()  # so that calls do not look for it any more
        return not self.is_missing


def tracer_provider(given: trace.TracerProvider | None) -> Awaited:
    """Return that of spans; `given` is None for the global one."""
    if given is None:
        trace.get_tracer_provider()  # sets the one that the environment names, if it does
    return Awaited(given=given, nothing=trace.NoOpTracerProvider, names=vars(trace), name="_TRACER_PROVIDER")


def meter_provider(given: metrics.MeterProvider | None) -> Awaited:
    """Return that of metrics; `given` is None for the global one."""
    if given is None:
        metrics.get_meter_provider()
    inside: Mapping[str, Any] = vars(getattr(metrics, "_internal", metrics))
    return Awaited(given=given, nothing=metrics.NoOpMeterProvider, names=inside, name="_METER_PROVIDER")
