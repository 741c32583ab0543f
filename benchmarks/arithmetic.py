"""What is computed from the numbers: medians, their spread and certainty, and ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """The distance between the quartiles, as a share of the median."""
    if len(values) < 2 or not median(values):
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / median(values)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which two of the values the true median lies, at 95 %: by their order alone, whatever the noise is."""
    ordered = sorted(values)
    count = len(ordered)
    reach = 0.98 * math.sqrt(count)
    low = max(0, math.floor((count - 1) / 2 - reach))
    high = min(count - 1, math.ceil((count - 1) / 2 + reach))
    return ordered[low], ordered[high]


def uncertainty(values: Sequence[float]) -> float:
    """Half of that interval, as a share of the median."""
    low, high = interval(values)
    middle = median(values)
    return (high - low) / 2 / abs(middle) if middle else 0.0


@dataclass(frozen=True)
class Ratio:
    """How one contender compares with another in the same run."""

    value: float
    uncertainty: float


def ratio(ones: Sequence[float], others: Sequence[float]) -> Ratio:
    """The median over the rounds of the ratio within a round.

    What makes the whole machine slower for a while makes both slower, and drops out.
    """
    if len(ones) != len(others):
        raise ValueError(f"{len(ones)} and {len(others)} rounds cannot be compared")
    each = [one / other for one, other in zip(ones, others, strict=True)]
    return Ratio(median(each), uncertainty(each))
