"""The rounds of a benchmark: how contenders are calibrated, ordered and measured."""

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import rounds
from benchmarks.rounds import ANSWER, Contender, OnAsyncio, OnThread, OnTrio, Plan, Subject, calibrate, measure, order

PLAN = Plan(slice_ns=1000, least=4, seconds=3600.0, most=9)


class Counted:
    """A runner for which each call takes a fixed number of nanoseconds, and which notes what it is asked for."""

    def __init__(self, **cost: int) -> None:
        self.cost = cost
        self.asked: list[str] = []

    def slice(self, subject: Subject, calls: int) -> int:
        name: str = subject.call()
        self.asked.append(name)
        return self.cost[name] * calls

    def results(self, subject: Subject, calls: int) -> list[Any]:
        return [ANSWER] * calls


def contender(name: str) -> Contender:
    return Contender(name, lambda: Subject(lambda: name), "package")


def test_each_contender_is_measured_once_per_round() -> None:
    runner = Counted(one=10, two=25)

    found = measure([contender("one"), contender("two")], runner, PLAN, lambda found: True)

    assert found.series == {"one": [10.0] * PLAN.least, "two": [25.0] * PLAN.least}
    assert found.missing == {}


@pytest.mark.parametrize("wanted", [6, 100])
def test_rounds_go_on_until_all_is_settled_or_there_were_enough(wanted: int) -> None:
    found = measure([contender("one")], Counted(one=10), PLAN, lambda found: len(found.series["one"]) >= wanted)

    assert len(found.series["one"]) == min(wanted, PLAN.most)


def test_rounds_end_when_the_time_is_over() -> None:
    found = measure([contender("one")], Counted(one=10), Plan(1000, 5, seconds=-1.0), lambda found: False)

    assert len(found.series["one"]) == 3


def test_two_contenders_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two contenders named 'one'"):
        measure([contender("one"), contender("one")], Counted(one=10), PLAN, lambda found: True)


def test_the_order_changes_and_leaves_nobody_out() -> None:
    turns = [order(["a", "b", "c"], number) for number in range(4)]

    assert turns == [["a", "b", "c"], ["a", "c", "b"], ["c", "a", "b"], ["c", "b", "a"]]


def test_a_slice_holds_as_many_calls_as_fill_it() -> None:
    assert calibrate(Counted(one=10), contender("one").make(), 1000, 8) == 100
    assert calibrate(Counted(one=10_000), contender("one").make(), 1000, 8) == 8


def test_a_contender_that_cannot_be_made_is_missing() -> None:
    def absent() -> Subject:
        raise ImportError("no module named peer")

    found = measure([Contender("peer", absent, "peer-package")], Counted(), PLAN, lambda found: True)

    assert found.series == {}
    assert found.missing["peer"].package == "peer-package"
    assert found.missing["peer"].why == "ImportError: no module named peer"


def refuse() -> int:
    raise ConnectionError


@pytest.mark.parametrize(
    ("call", "refusal", "why"),
    [
        (lambda: 2, None, "gave [2, 2, 2, 2, 2, 2]"),
        (refuse, None, "gave [ConnectionError(), "),
        (lambda: ANSWER, ConnectionError, "did not refuse, but gave 1"),
        (refuse, ValueError, "did not refuse, but gave ConnectionError()"),
    ],
)
def test_a_contender_that_does_something_else_is_missing(
    call: Callable[[], int], refusal: type[Exception] | None, why: str
) -> None:
    subject = Subject(call, refusal)

    found = measure([Contender("peer", lambda: subject)], OnThread(), PLAN, lambda found: True)

    assert why in found.missing["peer"].why


@pytest.mark.parametrize("make", [OnThread, OnAsyncio, OnTrio])
def test_every_runtime_makes_so_many_calls(make: type[OnThread | OnAsyncio | OnTrio]) -> None:
    made = 0

    def count() -> int:
        nonlocal made
        made += 1
        return ANSWER

    async def count_async() -> int:
        return count()

    async def refuse_async() -> int:
        return refuse()

    plain = make is OnThread
    runner = make()
    with runner:
        assert runner.slice(Subject(count if plain else count_async), 20) >= 0
        assert runner.slice(Subject(refuse if plain else refuse_async, ConnectionError), 20) >= 0
        assert runner.results(Subject(count if plain else count_async), 2) == [ANSWER, ANSWER]
        with pytest.raises(rounds.WrongAnswerError):
            runner.slice(Subject(count if plain else count_async, ConnectionError), 20)
    assert made == 23
