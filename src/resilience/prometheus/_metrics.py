"""PrometheusMetrics: what puts the metrics of pipelines into a registry."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, Self

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.values import ValueClass

from resilience import Pipeline, UsageError
from resilience._pipeline.observers import install, uninstall
from resilience._util import validation
from resilience.prometheus._collector import OwnMetrics
from resilience.prometheus._labels import Labels
from resilience.prometheus._multiprocess import SharedMetrics
from resilience.prometheus._selection import Selection

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
DEFAULT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class PrometheusMetrics:
    """Puts the metrics of pipelines into a registry of `prometheus_client`.

    Args:
        registry: the registry.
        pipelines: the pipelines to measure. None for all that have a name, or get one from the function that they
            decorate, whether they were made before or are made later. The given pipelines are not kept alive.
        buckets: the upper bounds of the buckets of both histograms of durations, in seconds, > 0 and ascending.
        multiprocess: whether the metrics are written into the directory PROMETHEUS_MULTIPROC_DIR, for servers with
            several worker processes such as gunicorn; "auto" if that variable is set.
        key_labels: whether metrics about the policies of a Partition have a label `key`, with at most 100 values in
            each metric; the others become `_overflow`. Without it they are summed over the keys. The label is the text
            of the key without what credentials a URL may have, so keys must not be secrets.

    Raises:
        TypeError: a parameter is of the wrong type.
        ValueError: the registry has a PrometheusMetrics already; one of `pipelines` has no name; `buckets` are not
            ascending; or `multiprocess` is True, and PROMETHEUS_MULTIPROC_DIR was not set when `prometheus_client` was
            imported.

    The metrics are by the name of a pipeline: several pipelines of one name add up. A pipeline that is
    garbage-collected keeps its counters, and has no gauges any more. At most 1,000 names are values of the label
    `pipeline`; all others become `_overflow`.

    A good call costs two appends to a list. The durations are added up at a scrape, or when there are many. What is
    exposed is exact, under threads, too.

    It works until `close()` is called, or as a context manager until the end of the block.
    """

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        pipelines: Iterable[Pipeline[Any]] | None = None,
        *,
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        multiprocess: bool | Literal["auto"] = "auto",
        key_labels: bool = False,
    ) -> None:
        given: Any = registry
        if not isinstance(given, CollectorRegistry):
            raise TypeError(f"registry must be a CollectorRegistry of prometheus_client, not {registry!r}")
        labels = Labels(key_labels=validation.flag("key_labels", key_labels))
        bounds, selection = _bounds(buckets), Selection(pipelines)
        kind = SharedMetrics if _is_multiprocess(multiprocess) else OwnMetrics
        self._registry = registry
        self._metrics: OwnMetrics | SharedMetrics | None = kind(selection, labels, bounds)
        try:
            self._metrics.open(registry)
        except ValueError as error:
            raise ValueError(
                "the registry has these metrics already: make one PrometheusMetrics for each registry, or close() the "
                f"other one first ({error})"
            ) from error
        self._metrics.listen()
        install(self._metrics)

    def close(self) -> None:
        """Take the metrics out of the registry and of all pipelines. Later calls do nothing."""
        metrics, self._metrics = self._metrics, None
        if metrics is None:
            return
        uninstall(metrics)
        metrics.close(self._registry)

    def __enter__(self) -> Self:
        if self._metrics is None:
            raise UsageError("this PrometheusMetrics was closed; make another one")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _bounds(buckets: Any) -> tuple[float, ...]:
    """Return the bounds of buckets, without an infinite one at the end.

    Raises:
        TypeError, ValueError: they are not numbers > 0 in ascending order.
    """
    if isinstance(buckets, str) or not hasattr(buckets, "__iter__"):
        raise TypeError(f"buckets must be a sequence of numbers > 0 in ascending order, not {buckets!r}")
    given: list[Any] = list(buckets)
    if given and given[-1] == float("inf"):
        given.pop()
    bounds = tuple(validation.number("each of buckets", one, above=True) for one in given)
    if not bounds or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"buckets must be numbers > 0 in ascending order, not {buckets!r}")
    return bounds


def _is_multiprocess(multiprocess: Any) -> bool:
    """Return whether the metrics are written into a directory.

    Raises:
        TypeError: `multiprocess` is neither a bool nor "auto".
        ValueError: it is True, or the variable is set, and `prometheus_client` was imported before that.
    """
    if multiprocess == "auto":
        multiprocess = DIRECTORY in os.environ
    if not isinstance(multiprocess, bool):
        raise TypeError(f'multiprocess must be True, False or "auto", not {multiprocess!r}')
    if multiprocess and not getattr(ValueClass, "_multiprocess", False):
        raise ValueError(
            f"for multiprocess={multiprocess}, the variable {DIRECTORY} must be set before the program starts: "
            "prometheus_client reads it when it is imported"
        )
    return multiprocess
