"""The warning about an exception that is on no list."""

from __future__ import annotations

import logging

import pytest

from resilience import Allowlist, CircuitBreaker, Pipeline, Retry
from tests.support.functions import Failing

pytestmark = pytest.mark.usefixtures("nothing_logged_yet")


class TestUnlisted:
    def test_the_first_unlisted_exception_of_a_type_is_logged_with_the_fix(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        pipeline = Pipeline(Retry(), name="unlisted-here")
        with caplog.at_level(logging.WARNING, "resilience"):
            for _ in range(3):
                with pytest.raises(KeyError):
                    pipeline.call(Failing(error=KeyError))
            with pytest.raises(ValueError, match="x"):
                pipeline.call(Failing(error=lambda: ValueError("x")))

        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert "unlisted-here let builtins.KeyError through" in lines[0]
        assert "failures=NETWORK_ERRORS | KeyError" in lines[0]

    def test_a_known_answer_is_not(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "resilience"), pytest.raises(KeyError):
            Pipeline(Retry(), failures=Allowlist(OSError, answers=(KeyError,))).call(Failing(error=KeyError))

        assert caplog.records == []

    def test_a_breaker_says_so_too(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "resilience"), pytest.raises(KeyError):
            Pipeline(CircuitBreaker()).call(Failing(error=KeyError))

        assert "let builtins.KeyError through" in caplog.text
