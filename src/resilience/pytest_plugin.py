"""The pytest plugin: the fixtures `virtual_clock` and `recorder`. Tests that use neither are not affected."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from resilience.testing import Recorder, VirtualClock


@pytest.fixture
def virtual_clock() -> Generator[VirtualClock]:
    """Run the test in virtual time, and provide the VirtualClock."""
    from resilience.testing import virtual_time

    with virtual_time() as clock:
        yield clock


@pytest.fixture
def recorder() -> Generator[Recorder]:
    """Record the events of all pipelines during the test, and provide the Recorder."""
    from resilience.testing import Recorder

    with Recorder() as recording:
        yield recording
