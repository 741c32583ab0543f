"""What the library logs only once is logged again."""

from __future__ import annotations

import pytest

from resilience._util.log_once import forget


@pytest.fixture
def nothing_logged_yet() -> None:
    """Forget what was logged by earlier tests, so that a test sees the first log line of each kind."""
    forget()
