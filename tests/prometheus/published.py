"""The alerts, the dashboard and the pages that are published with the library."""

from __future__ import annotations

import re
from typing import NamedTuple

from resilience.prometheus._families import FAMILIES, Family
from tests.guards.tree import ROOT

RULES = ROOT / "docs" / "alerts" / "resilience.rules.yml"
RULES_TEST = ROOT / "docs" / "alerts" / "resilience.rules_test.yml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
DASHBOARD = ROOT / "docs" / "dashboards" / "resilience.json"
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SAMPLES: dict[str, Family] = {family.name + one: family for family in FAMILIES for one in _SUFFIXES[family.kind]}
"""The metrics by the names of their samples, without those of creation times."""
_THRESHOLD = re.compile(r"\s>=?\s[\d.]+(?=\s|$)")


class Alert(NamedTuple):
    """An alert, as it is written in the file."""

    name: str
    text: str


def alerts() -> list[Alert]:
    """The alerts of the file."""
    _, *found = RULES.read_text("utf-8").split("      - alert: ")
    return [Alert(one.partition("\n")[0], one) for one in found]


def metrics_in(text: str) -> set[str]:
    """The names of metrics of ours in a text."""
    return set(re.findall(r"\bresilience_\w+", text))


def without_thresholds(expression: str) -> str:
    """An expression whose comparisons with numbers are left out, so that it has a value at any time."""
    found, number = _THRESHOLD.subn("", expression)
    assert number, expression
    return found
