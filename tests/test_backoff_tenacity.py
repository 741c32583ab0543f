"""Our backoffs as the wait of a plain retry of tenacity."""

from __future__ import annotations

from typing import Any

import pytest
import tenacity

from resilience import backoff
from tests.support.functions import Failing


class TestInTenacity:
    @pytest.mark.parametrize(
        "wait",
        [
            backoff.full_jitter(1, 10),
            backoff.equal_jitter(1, 10),
            backoff.decorrelated_jitter(1, 10),
            backoff.proportional(1, 10),
            backoff.fixed(2),
            backoff.none(),
            backoff.fixed(1) + tenacity.wait_fixed(1),
        ],
    )
    def test_our_backoffs_wait_for_a_plain_retry_of_tenacitys(self, wait: Any) -> None:
        slept: list[float] = []
        retrying = tenacity.Retrying(wait=wait, stop=tenacity.stop_after_attempt(4), sleep=slept.append, reraise=True)
        with pytest.raises(ConnectionError):
            retrying(Failing())

        assert len(slept) == 3
        assert all(0 <= one <= 10 for one in slept)

    def test_decorrelated_jitter_knows_the_wait_before(self) -> None:
        wait = backoff.decorrelated_jitter(1, 1000)
        state: Any = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.upcoming_sleep = 100.0

        assert max(wait(state) for _ in range(200)) > 3
