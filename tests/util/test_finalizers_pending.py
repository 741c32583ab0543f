"""What finalizers leave to be done: it is run at once, by a thread of its own, or later, and what raises is logged."""

import threading
from collections import deque
from collections.abc import Callable

import pytest

from resilience._util import finalizers, log_once
from resilience._util.locks import new_lock, state_lock, thread_state

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _nothing_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finalizers, "pending", deque[Callable[[], object]]())
    monkeypatch.setattr(log_once, "_logged", set())


def test_where_no_lock_is_held_it_is_run_at_once() -> None:
    ran: list[int] = []

    finalizers.settle_from_finalizer(lambda: ran.append(threading.get_ident()))

    assert ran == [threading.get_ident()]
    assert not finalizers.pending


def test_where_a_lock_is_held_another_thread_runs_it() -> None:
    ran: list[int] = []
    done = threading.Event()

    def settle() -> None:
        ran.append(threading.get_ident())
        done.set()

    with new_lock():
        finalizers.settle_from_finalizer(settle)
        assert done.wait(PATIENCE)

    assert len(ran) == 1
    assert ran[0] != threading.get_ident()


def test_where_no_thread_can_be_had_it_is_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finalizers, "run_in_thread", lambda function: None)
    ran: list[str] = []

    with new_lock():
        finalizers.settle_from_finalizer(lambda: ran.append("left"))
    assert ran == []
    finalizers.run_pending()

    assert ran == ["left"]


def test_in_a_region_of_the_state_it_is_put_off_until_its_end() -> None:
    ran: list[str] = []

    with state_lock:
        finalizers.settle_from_finalizer(lambda: ran.append("of a finalizer"))
        finalizers.put_off(lambda: ran.append("put off"))
        finalizers.run_pending()
        assert ran == []
    finalizers.run_pending()

    assert ran == ["of a finalizer", "put off"]


def test_at_the_end_of_a_region_inside_a_lock_of_a_policy_another_thread_runs_it() -> None:
    ran: list[int] = []
    done = threading.Event()

    def settle() -> None:
        ran.append(threading.get_ident())
        done.set()

    with new_lock():
        with state_lock:
            finalizers.put_off(settle)
        finalizers.run_pending()
        assert done.wait(PATIENCE)

    assert ran != [threading.get_ident()]


def test_what_defers_itself_again_is_not_run_for_ever() -> None:
    ran: list[str] = []

    def again() -> None:
        ran.append("once")
        finalizers.run_later(again)
        finalizers.run_pending()

    again()
    finalizers.run_pending()

    assert ran == ["once"] * 3


def test_run_later_runs_nothing_by_itself() -> None:
    ran: list[str] = []

    finalizers.run_later(lambda: ran.append("first"))
    finalizers.run_later(lambda: ran.append("second"))
    assert ran == []
    finalizers.run_pending()

    assert ran == ["first", "second"]


def test_while_it_is_settled_the_thread_knows_that_a_finalizer_is_at_work() -> None:
    known: list[bool] = []

    def outer() -> None:
        finalizers.settle_from_finalizer(lambda: known.append(thread_state.finalizing))
        known.append(thread_state.finalizing)

    finalizers.settle_from_finalizer(outer)

    assert known == [True, True]
    assert not thread_state.finalizing


def test_what_raises_is_logged_and_the_rest_is_run(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    finalizers.run_later(lambda: 1 / 0)
    finalizers.run_later(lambda: ran.append("rest"))
    finalizers.run_pending()

    assert ran == ["rest"]
    assert len(caplog.messages) == 1
    assert "deferred work of a finalizer" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_what_another_thread_has_taken_is_not_missed() -> None:
    finalizers.run_later(finalizers.pending.clear)
    finalizers.run_later(lambda: pytest.fail("taken already"))

    finalizers.settle_pending()

    assert not finalizers.pending
