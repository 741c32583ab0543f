"""What the library logs only once is logged again; and what it has logged about events."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from resilience._util.log_once import forget
from resilience.logs import configure


@pytest.fixture
def nothing_logged_yet() -> None:
    """Forget what was logged by earlier tests, so that a test sees the first log line of each kind."""
    forget()


@pytest.fixture
def log_interval() -> Generator[None]:
    """Restore the interval of log lines after the test."""
    yield
    configure()


def lines_of(caplog: pytest.LogCaptureFixture, kind: str = "") -> list[str]:
    """Return the messages about the events of pipelines, those that contain `kind`."""
    records = [record for record in caplog.records if hasattr(record, "resilience_pipeline")]
    return [record.getMessage() for record in records if kind in record.getMessage()]


def held_back(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Return the numbers on these lines."""
    return [vars(record)["resilience_held_back"] for record in caplog.records if hasattr(record, "resilience_pipeline")]
