"""The lines that pipelines write to the log, their levels and their facts."""

from __future__ import annotations

import logging

import pytest

from resilience import Pipeline, Retry, backoff
from resilience.testing import virtual_time

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def down() -> None:
    raise ConnectionError("secret")


def fail(pipeline: Pipeline[None], level: int, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    with caplog.at_level(level, logger="resilience"), virtual_time(), pytest.raises(ConnectionError):
        pipeline.bind(target="example.org").call(down)
    return [record for record in caplog.records if record.name == "resilience"]


def quotes() -> Pipeline[None]:
    return Pipeline(Retry(3, wait=backoff.fixed(2)), name="logged quotes")


def test_lines(caplog: pytest.LogCaptureFixture) -> None:
    lines = fail(quotes(), logging.DEBUG, caplog)
    assert [(line.levelname, line.getMessage()) for line in lines] == [
        ("INFO", "down (logged quotes/retry) failed in attempt 1 (transient); the next one follows in 2 s"),
        ("DEBUG", "down (logged quotes/retry) failed in attempt 2 (transient); the next one follows in 2 s"),
        ("WARNING", "down (logged quotes/retry) given up after 3 attempts in 4 s: attempts"),
    ]
    assert "secret" not in caplog.text


def test_facts(caplog: pytest.LogCaptureFixture) -> None:
    first, _, last = fail(quotes(), logging.DEBUG, caplog)
    where: dict[str, object] = {
        "resilience_pipeline": "logged quotes",
        "resilience_policy": "retry",
        "resilience_operation": "down",
        "resilience_target": "example.org",
    }
    more = {
        "resilience_attempt": 1,
        "resilience_wait": 2.0,
        "resilience_kind": "transient",
        "resilience_mode": "enforce",
    }
    end: dict[str, object] = {"resilience_attempts": 3, "resilience_elapsed": 4.0, "resilience_reason": "attempts"}
    for line, facts in ((first, where | more), (last, where | end)):
        assert {key: value for key, value in vars(line).items() if key.startswith("resilience_")} == facts


@pytest.mark.parametrize(
    ("level", "levels"),
    [
        (logging.INFO, ["INFO", "WARNING"]),
        (logging.WARNING, ["WARNING"]),
        (logging.ERROR, []),
    ],
)
def test_levels(caplog: pytest.LogCaptureFixture, level: int, levels: list[str]) -> None:
    assert [line.levelname for line in fail(quotes(), level, caplog)] == levels


def test_a_success_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="resilience"):
        assert quotes().call(len, "ab") == 2
    assert caplog.records == []


def test_shadow(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = fail(Pipeline(Retry(mode="shadow")), logging.DEBUG, caplog)
    assert vars(line)["resilience_mode"] == "shadow"


def test_the_log_of_a_shadow_retry_does_not_promise(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "resilience"), pytest.raises(ConnectionError):
        Pipeline(Retry(mode="shadow")).call(down)

    assert "would follow in" in caplog.text
