"""Virtual times of machines that have run for long: floats are coarser there, so that sums of times are rounded."""

from hypothesis import strategies as st

from resilience.testing import VirtualClock

uptimes = st.sampled_from([0.0, 1e4 / 3, 1e5 / 3, 1e6 / 3, 1e8 / 3])
"""Seconds, up to a year."""


def run_for(clock: VirtualClock, uptime: float) -> None:
    """Let a virtual clock stand as if the machine had run that much longer; nothing rings."""
    clock.jump(clock.monotonic() + uptime)
