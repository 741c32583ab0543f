"""The reference page of each policy has the same parts, and its table of settings is that of the source."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import resilience

PAGES = Path(__file__).parents[2] / "docs"
POLICIES: dict[str, tuple[str, Any]] = {
    "retry": ("retry.md", resilience.Retry),
    "budget": ("retry.md", resilience.RetryBudget),
    "timeout": ("timeout.md", resilience.Timeout),
    "breaker": ("circuit-breaker.md", resilience.CircuitBreaker),
    "bulkhead": ("bulkhead.md", resilience.Bulkhead),
    "fallback": ("fallback.md", resilience.Fallback),
    "stale_cache": ("fallback.md", resilience.StaleCache),
    "rate_limit": ("rate-limit.md", resilience.RateLimit),
    "cooldown": ("cooldown.md", resilience.Cooldown),
    "adaptive_limit": ("adaptive-limit.md", resilience.AdaptiveLimit),
    "hedge": ("hedge.md", resilience.Hedge),
    "partition": ("partition.md", resilience.Partition),
    "chaos": ("chaos.md", resilience.Chaos),
    "pipeline": ("pipelines.md", resilience.Pipeline),
    "standard": ("standard.md", resilience.standard),
}
COMMON = {"name", "mode"}
"""Parameters of every policy, which lifecycle.md describes."""
PARTS = ("When to use it", "Settings", "Errors", "Events and metrics")
NO_REFERENCE = {"pipelines.md", "standard.md"}
"""Pages whose parts follow other questions."""
ROW = re.compile(r"^\| (?P<names>`[^|]*) \| (?P<default>[^|]*) \|", re.MULTILINE)


def rows(text: str) -> dict[str, str]:
    """Return the parameters in the tables of a page, with their defaults; a row may name several, with a comma."""
    found: dict[str, str] = {}
    for row in ROW.finditer(text):
        names = re.findall(r"`\*?(\w+)`", row["names"])
        defaults = row["default"].split(", ") if len(names) > 1 else [row["default"]]
        for index, name in enumerate(names):
            found.setdefault(name, defaults[min(index, len(defaults) - 1)])
    return found


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def wrong_settings(kind: Any, text: str) -> list[str]:
    """Return the parameters of a constructor that a page lacks, or whose default is another number there."""
    found = rows(text)
    wrong: list[str] = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in COMMON and kind is not resilience.standard:
            continue
        default = parameter.default
        if name not in found:
            wrong.append(f"{name} is missing")
        elif isinstance(default, int | float) and not isinstance(default, bool) and default not in numbers(found[name]):
            wrong.append(f"{name} is {default:g}, not {found[name]}")
    return wrong


@pytest.mark.parametrize(("page", "kind"), POLICIES.values(), ids=POLICIES)
def test_the_settings_of_a_page_are_those_of_the_source(page: str, kind: Any) -> None:
    assert wrong_settings(kind, (PAGES / page).read_text("utf-8")) == []


@pytest.mark.parametrize("page", sorted({page for page, _ in POLICIES.values()} - NO_REFERENCE))
def test_a_page_has_all_parts(page: str) -> None:
    headings = re.findall(r"^## (.+)$", (PAGES / page).read_text("utf-8"), re.MULTILINE)

    assert [part for part in PARTS if part not in headings] == []


def test_what_differs_is_found() -> None:
    def kind(limit: int, *, queue: int = 3, wait: float = 1.5, mode: str = "x") -> None: ...

    text = "| `limit` | none | 1 |\n| `queue`, `wait` | 4, 1.5 s | y |\n"

    assert wrong_settings(kind, text) == ["queue is 3, not 4"]
    assert wrong_settings(kind, "") == ["limit is missing", "queue is missing", "wait is missing"]
