"""Metrics of pipelines for Prometheus, by `prometheus_client`.

    PrometheusMetrics()  # once, when the program starts: all pipelines with a name, made before or after

What each metric means is on the page "Observe" of the documentation. Requires the extra `prometheus`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING as _TYPE_CHECKING

from resilience._util.exports import set_public_module as _set_public_module
from resilience._util.extras import import_first as _import_first

if not _TYPE_CHECKING:
    # Before the modules that need it, for an error that names the extra, which is not called as the module is.
    _import_first("prometheus_client", extra="prometheus")

from resilience.prometheus._metrics import PrometheusMetrics

__all__ = ["PrometheusMetrics"]

_set_public_module(__name__, __all__, globals())
