"""Waits that are given for each kind of failure."""

from __future__ import annotations

import pytest

from resilience import FailureKind, Pipeline, Retry, backoff
from resilience.testing import VirtualClock
from tests.support.functions import Failing

NOW = backoff.none()


def test_a_mapping_may_leave_kinds_out(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(Retry(2, wait={FailureKind.TIMEOUT: backoff.fixed(7)}))

    with pytest.raises(TimeoutError):
        pipeline.call(Failing(error=TimeoutError))
    with pytest.raises(ConnectionError):
        pipeline.call(Failing())

    assert virtual_clock.sleeps[0] == 7
    assert virtual_clock.sleeps[1] <= 0.1


def test_a_mapping_of_waits_is_described() -> None:
    described = Retry(wait={FailureKind.TIMEOUT: NOW}).describe()

    assert described["settings"]["wait"] == {"timeout": "fixed(0)"}
