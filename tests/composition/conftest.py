"""Fixtures of the tests of several policies in one pipeline."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from resilience import set_mode


@pytest.fixture
def process_mode() -> Generator[None]:
    """Restore the mode of the process after the test."""
    yield
    set_mode("enforce")
