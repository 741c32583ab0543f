"""Threads that are switched often, so that they meet in every possible moment."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

SECONDS = 1e-6


@pytest.fixture
def frequent_switches() -> Generator[None]:
    """Have the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
