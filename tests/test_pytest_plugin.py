"""The fixtures that pytest gets from the package."""

from __future__ import annotations

import pytest

from resilience import Pipeline, Retry, backoff
from resilience.events import RetryScheduled
from resilience.testing import Recorder, VirtualClock


def test_the_fixtures(virtual_clock: VirtualClock, recorder: Recorder) -> None:
    calls: list[int] = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return "fine"

    assert Pipeline(Retry(wait=backoff.fixed(60.0))).call(flaky) == "fine"
    assert virtual_clock.elapsed == 60.0
    assert len(recorder.of(RetryScheduled)) == 1


@pytest.mark.slow
def test_pytest_finds_the_plugin_by_itself(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_fixtures(virtual_clock, recorder):
            virtual_clock.advance(3.0)
            assert recorder.events == []
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
