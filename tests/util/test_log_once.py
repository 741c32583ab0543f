"""What is logged about hooks that fail: each thing once."""

import logging

import pytest

from resilience._util import log_once


@pytest.fixture(autouse=True)
def _nothing_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_once, "_logged", set())


class Hook:
    def __call__(self) -> None: ...


def listener() -> None: ...


def complained(before: int) -> int:
    """Return how many complaints there were since the counter stood at `before`."""
    return next(log_once.count) - before - 1


def test_a_complaint_names_the_hook_and_the_error(caplog: pytest.LogCaptureFixture) -> None:
    error = KeyError("x")

    log_once.hook_failed("listener", listener, error)

    assert caplog.record_tuples == [
        (
            "resilience",
            logging.ERROR,
            "listener listener raised KeyError; the guarded call is not affected, and this is logged once",
        )
    ]
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_a_hook_without_a_name_is_called_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    log_once.hook_failed("predicate", Hook(), ValueError())

    assert caplog.messages[0].startswith("predicate Hook raised ValueError; ")


def test_the_same_complaint_is_said_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    before = next(log_once.count)

    for _ in range(3):
        log_once.hook_failed("listener", listener, KeyError("x"))

    assert len(caplog.records) == 1
    assert complained(before) == 3


def test_a_different_complaint_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    log_once.hook_failed("listener", listener, KeyError())
    log_once.hook_failed("predicate", listener, KeyError())
    log_once.hook_failed("listener", Hook(), KeyError())
    log_once.hook_failed("listener", listener, ValueError())
    log_once.hook_failed("listener", Hook(), KeyError("another object of the same kind"))

    assert len(caplog.records) == 4


def test_forgotten_complaints_are_said_again(caplog: pytest.LogCaptureFixture) -> None:
    log_once.hook_failed("listener", listener, KeyError())
    log_once.forget()
    log_once.hook_failed("listener", listener, KeyError())

    assert len(caplog.records) == 2


def test_there_is_an_end_to_complaining(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_once, "MAX_MESSAGES", 3)
    before = next(log_once.count)

    for number in range(5):
        log_once.hook_failed(f"hook {number}", listener, KeyError())

    assert [message.split(" listener")[0] for message in caplog.messages] == ["hook 0", "hook 1", "hook 2"]
    assert complained(before) == 5


def test_the_most_kinds_bound_the_memory() -> None:
    for number in range(log_once.MAX_MESSAGES + 10):
        log_once.hook_failed(f"hook {number}", listener, KeyError())

    assert len(log_once._logged) == log_once.MAX_MESSAGES == 1000


def test_a_library_does_not_print_by_itself() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in log_once.logger.handlers)
    assert log_once.logger.level == logging.NOTSET
