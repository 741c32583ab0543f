"""Chance that can be foretold."""

from __future__ import annotations

import random


class Steady(random.Random):
    """Chance that always is in the middle, so that open times are exact."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2
