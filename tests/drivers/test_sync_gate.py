"""The drivers of one gate, and of two adjacent gates: who is asked first, who is settled first, and how often."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilience import Call, Ending, EndingKind, Gate, Pipeline, RejectedError, Retry, Ticket
from resilience._drivers import hooks
from resilience._outcome.ending import OK
from resilience.testing import virtual_time
from tests.support.functions import down, hang
from tests.support.policies import Closed, Streaming
from tests.support.turnstile import Turnstile
from tests.support.ways import Make, each_way

pytestmark = [
    pytest.mark.usefixtures("nothing_logged_yet"),
    # Pipelines of the same name may still be alive in the tracebacks of earlier tests.
    pytest.mark.filterwarnings("ignore:there are two pipelines"),
]


class Noted(Gate[str]):
    """Notes in a log, which other gates share, what it is asked; what it raises when settled is up to the test."""

    def __init__(self, name: str, log: list[str], raises: BaseException | None = None) -> None:
        super().__init__(name=name)
        self.log = log
        self.raises = raises

    def admit(self, call: Call) -> str:
        self.log.append(f"{self.name} admits")
        return f"token of {self.name}"

    def settle(self, token: str, ending: Ending) -> None:
        assert token == f"token of {self.name}"
        self.log.append(f"{self.name} {ending.kind}")
        if self.raises is not None:
            raise self.raises


def gates(log: list[str], number: int, broken: int = -1, raises: BaseException | None = None) -> list[Gate[Any]]:
    """Return so many gates, outermost first; one of them may be broken."""
    return [Noted(name, log, raises if place == broken else None) for place, name in enumerate("abc"[:number])]


each_number = pytest.mark.parametrize("number", [1, 2, 3])
"""One gate is driven alone, two are driven as a pair, of three one is and two are."""


class TestOrder:
    @each_way
    @each_number
    def test_of_a_success(self, make: Make, number: int) -> None:
        log: list[str] = []

        make(Pipeline(*gates(log, number)), lambda: log.append("called"))

        names = "abc"[:number]
        assert log == [*(f"{name} admits" for name in names), "called", *(f"{name} ok" for name in reversed(names))]

    @each_way
    @each_number
    def test_of_a_failure(self, make: Make, number: int) -> None:
        log: list[str] = []

        with pytest.raises(ConnectionError):
            make(Pipeline(*gates(log, number)), down)

        names = "abc"[:number]
        assert log == [*(f"{name} admits" for name in names), *(f"{name} failed" for name in reversed(names))]

    @each_way
    @each_number
    def test_of_a_rejection_further_in(self, make: Make, number: int) -> None:
        log: list[str] = []

        with pytest.raises(RejectedError):
            make(Pipeline(*gates(log, number), Closed()), lambda: log.append("called"))

        names = "abc"[:number]
        assert log == [*(f"{name} admits" for name in names), *(f"{name} abandoned" for name in reversed(names))]

    @each_way
    def test_a_rejection_further_out_is_the_end(self, make: Make) -> None:
        log: list[str] = []

        with pytest.raises(RejectedError):
            make(Pipeline(Closed(), *gates(log, 1)), int)

        assert log == []

    @each_way
    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    @each_number
    def test_of_what_is_no_exception_of_the_call(self, make: Make, number: int, error: type[BaseException]) -> None:
        log: list[str] = []

        def strike() -> None:
            raise error

        with pytest.raises(error):
            make(Pipeline(*gates(log, number)), strike)

        names = "abc"[:number]
        assert log == [*(f"{name} admits" for name in names), *(f"{name} abandoned" for name in reversed(names))]


def fine() -> str:
    return "fine"


def outcome(make: Make, pipeline: Pipeline[Any], function: Callable[[], Any]) -> Any:
    """Return what a call returns, or the type of what it raises."""
    try:
        return make(pipeline, function)
    except BaseException as error:
        return type(error)


class TestSettleRaises:
    """Each gate is settled exactly once, whatever its own hook raises, or that of its neighbour."""

    @each_way
    @pytest.mark.parametrize(
        ("function", "kind", "expected"), [(fine, "ok", "fine"), (down, "failed", ConnectionError)]
    )
    @pytest.mark.parametrize(("number", "broken"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
    def test_an_exception_changes_nothing(
        self, make: Make, function: Callable[[], Any], kind: str, expected: Any, number: int, broken: int
    ) -> None:
        log: list[str] = []

        assert outcome(make, Pipeline(*gates(log, number, broken, ZeroDivisionError())), function) == expected

        assert log[number:] == [f"{name} {kind}" for name in reversed("abc"[:number])]

    @each_way
    @pytest.mark.parametrize("function", [fine, down])
    def test_it_is_logged_with_the_hook(
        self, make: Make, function: Callable[[], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        log: list[str] = []

        with caplog.at_level(logging.ERROR, "resilience"):
            outcome(make, Pipeline(Noted("a", log), Noted("b", log, ZeroDivisionError("a bug in a hook"))), function)

        (record,) = caplog.records
        assert "settle of a policy" in record.getMessage()
        assert "a bug in a hook" in caplog.text

    @each_way
    @pytest.mark.parametrize(("function", "kind"), [(fine, "abandoned"), (down, "failed")])
    def test_a_ctrl_c_in_the_inner_one_comes_out_when_the_outer_one_is_settled(
        self, make: Make, function: Callable[[], Any], kind: str
    ) -> None:
        log: list[str] = []
        pipeline = Pipeline(Noted("a", log), Noted("b", log, KeyboardInterrupt()))

        assert outcome(make, pipeline, function) is KeyboardInterrupt

        assert [one for one in log if one.startswith("a")] == ["a admits", f"a {kind}"]
        assert len([one for one in log if one.startswith("b")]) == 2
        assert len(pipeline.in_flight) == 0

    @each_way
    @pytest.mark.parametrize("function", [fine, down])
    @pytest.mark.parametrize("number", [1, 2])
    def test_a_ctrl_c_in_the_outermost_one_comes_out(
        self, make: Make, function: Callable[[], Any], number: int
    ) -> None:
        log: list[str] = []

        assert outcome(make, Pipeline(*gates(log, number, 0, KeyboardInterrupt())), function) is KeyboardInterrupt

        assert [one[0] for one in log[number:]] == list(reversed("abc"[:number]))

    @each_way
    def test_a_ctrl_c_while_the_failure_of_a_hook_is_logged_leaves_nothing_unsettled(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log: list[str] = []
        pipeline = Pipeline(Noted("a", log), Noted("b", log, ZeroDivisionError()))

        def strike(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(hooks, "hook_failed", strike)
        assert outcome(make, pipeline, fine) is KeyboardInterrupt

        assert log == ["a admits", "b admits", "b ok", "a abandoned"]


class TestWaiting:
    @each_way
    @pytest.mark.parametrize("waits", [0, 1])
    def test_a_wait_in_vain_of_one_is_the_end_of_both(self, make: Make, waits: int) -> None:
        pair = [Turnstile(), Turnstile()]
        assert pair[waits].take()

        with virtual_time(), pytest.raises(RejectedError):
            make(Pipeline(*pair), int)

        assert pair[waits].endings == []
        assert pair[1 - waits].endings == ([] if waits == 0 else ["abandoned"])
        assert [gate.in_flight for gate in pair] == [1 - waits, waits]
        assert [len(gate.line) for gate in pair] == [0, 0]

    @each_way
    def test_a_ticket_becomes_the_token(self, make: Make) -> None:
        tokens: list[Any] = []

        class Granting(Turnstile):
            def admit(self, call: Call) -> Ticket | None:
                ticket = super().admit(call)
                assert isinstance(ticket, Ticket)
                tokens.append(ticket)
                self.put()
                self.line.grant()
                return ticket

            def settle(self, token: Ticket | None, ending: Ending) -> None:
                tokens.append(token)
                super().settle(token, ending)

        pair = [Granting(), Granting()]
        for gate in pair:
            assert gate.take()

        assert make(Pipeline(*pair), fine) == "fine"

        assert tokens == [tokens[0], tokens[1], tokens[1], tokens[0]]
        assert [gate.in_flight for gate in pair] == [0, 0]


class TestDeferred:
    """The work of a call goes on after it has returned: Streaming leaves it running."""

    @each_way
    @pytest.mark.parametrize("function", [fine, down])
    @each_number
    def test_all_wait_for_its_end_and_the_innermost_is_settled_first(
        self, make: Make, function: Callable[[], Any], number: int
    ) -> None:
        log: list[str] = []
        streaming = Streaming()
        policies = gates(log, number)
        for gate in policies:
            gate.holds_permit = True
        outcome(make, Pipeline(*policies, Retry(1), streaming), function)
        names = "abc"[:number]
        assert log == [f"{name} admits" for name in names]

        streaming.left[0].end(Ending(EndingKind.FAILED))
        streaming.left[0].end(OK)

        assert log[number:] == [f"{name} failed" for name in reversed(names)]

    @each_way
    def test_a_ctrl_c_at_the_head_of_the_stream_leaves_the_outer_one_to_its_end(self, make: Make) -> None:
        class Struck(Noted):
            def on_response_head(self, token: str) -> str:
                raise KeyboardInterrupt

        log: list[str] = []
        streaming = Streaming()

        assert (
            outcome(make, Pipeline(Noted("a", log), Struck("b", log), Retry(1), streaming), fine) is KeyboardInterrupt
        )
        assert "a ok" not in log
        streaming.left[0].end(OK)

        assert log.count("a ok") == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_coroutine_that_is_dropped_settles_each_once(number: int) -> None:
    log: list[str] = []
    with virtual_time():
        anyio.run(_drop, log, number)

    names = "abc"[:number]
    assert log[number:] == [f"{name} abandoned" for name in reversed(names)]


async def _drop(log: list[str], number: int) -> None:
    coroutine = Pipeline(*gates(log, number)).acall(hang)
    coroutine.send(None)
    coroutine.close()
