"""Virtual time that begins at the same moment in each run: sums of floats, and so a whole simulation, depend on it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from resilience._util.clock import clock
from resilience.testing import VirtualClock, virtual_time

START = float(2**22)


@contextmanager
def fixed_time() -> Generator[VirtualClock]:
    """Do as `virtual_time`, from `START` on."""
    with virtual_time() as virtual:
        virtual.advance(max(0.0, START - clock.monotonic()))  # both are whole numbers
        yield virtual
