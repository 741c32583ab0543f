"""The slack that tests of real time have: machines are slow now and then, and what is asserted is only that a deadline
was kept.
"""

from __future__ import annotations


def at_most(seconds: float) -> float:
    """Return the longest time that something may have taken which should take `seconds`: 20 %, or 250 ms, more."""
    return seconds + max(0.2 * seconds, 0.25)
