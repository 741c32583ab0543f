"""The retry budget: its settings, exact arithmetic, gRFC A6, and use by several threads."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience._call.budget import UNIT, RetryBudget
from resilience._util.finalizers import run_later
from tests.support.threads import in_threads

THREADS = 8

exactly = settings(derandomize=True, database=None, deadline=None)


# Settings


def test_a_budget_is_full_at_the_start() -> None:
    budget = RetryBudget()

    assert budget.tokens == 10.0
    assert budget.describe() == {"ratio": 0.2, "capacity": 10.0}
    assert budget.snapshot() == {"tokens": 10.0, "capacity": 10.0}
    assert repr(budget) == "RetryBudget(ratio=0.2, capacity=10)"


@pytest.mark.parametrize(("initial", "tokens"), [(None, 5.0), (0, 0.0), (2.5, 2.5), (5, 5.0)])
def test_the_initial_tokens(initial: float | None, tokens: float) -> None:
    assert RetryBudget(capacity=5, initial=initial).tokens == tokens


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"ratio": 0}, "ratio must be a number > 0 and <= 1, not 0"),
        ({"ratio": 1.01}, "ratio must be a number > 0 and <= 1, not 1.01"),
        ({"ratio": -0.2}, "ratio must be a number > 0 and <= 1, not -0.2"),
        ({"ratio": math.nan}, "ratio must be a number > 0 and <= 1, not nan"),
        ({"capacity": 0.9}, "capacity must be a number >= 1, not 0.9"),
        ({"capacity": math.inf}, "capacity must be a number >= 1, not inf"),
        ({"initial": -1}, "initial must be a number >= 0 and <= 10, not -1"),
        ({"initial": 10.1}, "initial must be a number >= 0 and <= 10, not 10.1"),
        ({"capacity": 3, "initial": 4}, "initial must be a number >= 0 and <= 3, not 4"),
    ],
)
def test_settings_out_of_range(given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must be a number") as caught:
        RetryBudget(**given_settings)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"ratio": "0.2"}, "ratio must be a number > 0 and <= 1, not '0.2'"),
        ({"ratio": True}, "ratio must be a number > 0 and <= 1, not True"),
        ({"ratio": None}, "ratio must be a number > 0 and <= 1, not None"),
        ({"capacity": None}, "capacity must be a number >= 1, not None"),
        ({"initial": "full"}, "initial must be a number >= 0 and <= 10, not 'full'"),
    ],
)
def test_settings_of_the_wrong_type(given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        RetryBudget(**given_settings)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be an integer from 1 to 1000, not 0"),
        ({"max_tokens": 1001}, "max_tokens must be an integer from 1 to 1000, not 1001"),
        ({"token_ratio": 0}, "token_ratio must be a number >= 0.001, not 0"),
        ({"token_ratio": 0.0009}, "token_ratio must be a number >= 0.001, not 0.0009"),
        ({"token_ratio": math.nan}, "token_ratio must be a number >= 0.001, not nan"),
        ({"token_ratio": math.inf}, "token_ratio must be a number >= 0.001, not inf"),
    ],
)
def test_grpc_settings_out_of_range(given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        RetryBudget.grpc(**given_settings)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"max_tokens": 10.0}, "max_tokens must be an integer from 1 to 1000, not 10.0"),
        ({"max_tokens": True}, "max_tokens must be an integer from 1 to 1000, not True"),
        ({"token_ratio": "0.1"}, "token_ratio must be a number >= 0.001, not '0.1'"),
    ],
)
def test_grpc_settings_of_the_wrong_type(given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        RetryBudget.grpc(**given_settings)

    assert str(caught.value) == message


# Arithmetic


def test_ten_deposits_of_a_tenth_are_exactly_one_token() -> None:
    budget = RetryBudget(ratio=0.1, initial=0)

    for _ in range(9):
        budget.deposit()
    assert not budget.withdraw()
    budget.deposit()

    assert budget.tokens == 1.0
    assert budget.withdraw()
    assert budget.tokens == 0.0
    assert not budget.withdraw()


def test_looking_is_no_deposit() -> None:
    budget = RetryBudget(ratio=0.5, initial=0)

    for _ in range(10):
        assert budget.tokens == 0.0
        assert not budget.withdraw()
        budget.snapshot()
    budget.deposit()
    for _ in range(10):
        assert budget.tokens == 0.5


@pytest.mark.parametrize("tokens", [0.0, 0.999, 1.0, 1.5])
def test_affordable_is_what_a_withdrawal_would_return(tokens: float) -> None:
    budget = RetryBudget(initial=tokens)

    assert budget.affordable is (tokens >= 1)
    assert budget.tokens == tokens
    assert budget.withdraw() is (tokens >= 1)


def test_the_smallest_ratio_and_the_largest_bucket() -> None:
    budget = RetryBudget(ratio=1e-10, capacity=1e15, initial=0)

    budget.deposit()

    assert budget.tokens == 1e-9
    assert RetryBudget(capacity=1e15).tokens == 1e12


def test_a_refused_withdrawal_changes_nothing() -> None:
    budget = RetryBudget(ratio=0.3, initial=0.9)

    assert [budget.withdraw() for _ in range(100)] == [False] * 100
    assert budget.tokens == 0.9
    budget.deposit()
    assert budget.tokens == 1.2
    assert budget.withdraw()
    assert budget.tokens == 0.2
    assert not budget.withdraw()
    assert budget.tokens == 0.2


def test_deposits_beyond_the_capacity_are_lost() -> None:
    budget = RetryBudget(ratio=1.0, capacity=2)

    for _ in range(1_000):
        budget.deposit()

    assert budget.tokens == 2.0
    assert [budget.withdraw() for _ in range(4)] == [True, True, False, False]


def test_a_failure_costs_nothing() -> None:
    budget = RetryBudget()

    budget.failed()

    assert budget.tokens == 10.0


def test_only_a_budget_that_counts_failures_is_told_of_them() -> None:
    class Plain(RetryBudget):
        pass

    class Counting(RetryBudget):
        def failed(self) -> None:
            self.withdraw()

    assert [kind().counts_failures for kind in (RetryBudget, Plain, Counting)] == [False, False, True]
    assert RetryBudget.grpc().counts_failures


def test_a_reset_starts_over() -> None:
    budget = RetryBudget(ratio=0.5, capacity=10, initial=3)
    for _ in range(4):
        budget.deposit()
    assert budget.tokens == 5.0
    budget.deposit()  # not looked at: must not come back after the reset

    budget.reset()

    assert budget.tokens == 3.0


OPERATIONS = st.lists(st.sampled_from(["deposit", "withdraw", "failed", "tokens", "reset"]), max_size=200)


@exactly
@given(
    ratio=st.integers(1, 1000),
    capacity=st.integers(1000, 5000),
    share=st.integers(0, 1000),
    operations=OPERATIONS,
)
def test_it_agrees_with_fractions(ratio: int, capacity: int, share: int, operations: list[str]) -> None:
    initial = capacity * share // 1000
    budget = RetryBudget(ratio / 1000, capacity / 1000, initial=initial / 1000)
    most, start = Fraction(capacity, 1000), Fraction(initial, 1000)
    balance = start

    for operation in operations:
        match operation:
            case "deposit":
                budget.deposit()
                balance = min(most, balance + Fraction(ratio, 1000))
            case "withdraw":
                assert budget.withdraw() is (balance >= 1)
                balance -= balance >= 1
            case "failed":
                budget.failed()
            case "tokens":
                assert budget.tokens == float(balance)
            case _:
                budget.reset()
                balance = start

    assert budget.tokens == float(balance)


@exactly
@given(
    tokens=st.integers(1, 20),
    thousandths=st.integers(1, 2500),
    operations=OPERATIONS,
)
def test_grpc_agrees_with_fractions(tokens: int, thousandths: int, operations: list[str]) -> None:
    budget = RetryBudget.grpc(tokens, thousandths / 1000)
    balance = Fraction(tokens)

    for operation in operations:
        match operation:
            case "deposit":
                budget.deposit()
                balance = min(Fraction(tokens), balance + Fraction(thousandths, 1000))
            case "withdraw":
                assert budget.withdraw() is (balance > Fraction(tokens, 2))
            case "failed":
                budget.failed()
                balance = max(Fraction(0), balance - 1)
            case "tokens":
                assert budget.tokens == float(balance)
            case _:
                budget.reset()
                balance = Fraction(tokens)

    assert budget.tokens == float(balance)


# gRFC A6


def test_grpc_step_by_step() -> None:
    budget = RetryBudget.grpc(max_tokens=10, token_ratio=0.1)
    assert budget.tokens == 10.0

    for balance in (9.0, 8.0, 7.0, 6.0):
        budget.failed()
        assert budget.tokens == balance
        assert budget.withdraw()
        assert budget.tokens == balance  # a retry costs nothing by itself

    budget.failed()
    assert budget.tokens == 5.0
    assert not budget.withdraw()  # more than half of them is wanted
    budget.deposit()
    assert budget.tokens == 5.1
    assert budget.withdraw()
    budget.failed()
    assert budget.tokens == 4.1
    assert not budget.withdraw()
    for _ in range(9):
        budget.deposit()
    assert budget.tokens == 5.0
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()


def test_grpc_stays_between_nothing_and_the_most() -> None:
    budget = RetryBudget.grpc(max_tokens=3, token_ratio=0.5)
    budget.deposit()
    assert budget.tokens == 3.0

    for _ in range(10):
        budget.failed()
    assert budget.tokens == 0.0
    assert not budget.withdraw()

    budget.deposit()
    assert budget.tokens == 0.5
    budget.failed()
    assert budget.tokens == 0.0

    for _ in range(100):
        budget.deposit()
    assert budget.tokens == 3.0


def test_grpc_takes_half_of_an_odd_number_exactly() -> None:
    budget = RetryBudget.grpc(max_tokens=3, token_ratio=0.5)
    budget.failed()
    assert budget.withdraw()
    budget.failed()
    budget.deposit()
    assert budget.tokens == 1.5
    assert not budget.withdraw()


@pytest.mark.parametrize(
    ("given_ratio", "ratio"),
    [
        (0.1, 0.1),
        (0.12345, 0.123),
        (0.1239, 0.123),
        (0.9999, 0.999),
        (0.001, 0.001),
        (0.0019, 0.001),
        (0.29, 0.29),
        (0.57, 0.57),
        (1.0019, 1.001),
        (2, 2.0),
    ],
)
def test_grpc_cuts_after_three_decimals(given_ratio: float, ratio: float) -> None:
    budget = RetryBudget.grpc(10, given_ratio)
    for _ in range(10):
        budget.failed()

    budget.deposit()

    assert budget.ratio == ratio
    assert budget.tokens == ratio


def test_grpc_cuts_nothing_off_three_decimals() -> None:
    for thousandths in range(1, 2001):
        assert RetryBudget.grpc(10, thousandths / 1000).ratio == thousandths / 1000


def test_a_refund_to_a_grpc_budget_changes_nothing() -> None:
    budget = RetryBudget.grpc(10)
    budget.failed()

    budget.refund()

    assert budget.tokens == 9


def test_grpc_resets_and_describes_itself() -> None:
    budget = RetryBudget.grpc(max_tokens=4, token_ratio=0.25)
    budget.failed()

    assert budget.snapshot() == {"tokens": 3.0, "capacity": 4.0}
    assert budget.describe() == {"ratio": 0.25, "capacity": 4.0}
    assert repr(budget) == "RetryBudget.grpc(max_tokens=4, token_ratio=0.25)"
    assert repr(RetryBudget.grpc()) == "RetryBudget.grpc(max_tokens=10, token_ratio=0.1)"
    budget.reset()
    assert budget.tokens == 4.0


# Deferred work


@pytest.mark.parametrize("work", [RetryBudget.withdraw, RetryBudget.refund, RetryBudget.reset, RetryBudget.snapshot])
def test_what_was_put_off_runs_after_each_change(work: Callable[[RetryBudget], object]) -> None:
    budget = RetryBudget()
    ran: list[str] = []
    run_later(lambda: ran.append("put off"))

    work(budget)

    assert ran == ["put off"]


# Threads


@pytest.mark.usefixtures("frequent_switches")
def test_no_token_is_spent_twice() -> None:
    budget = RetryBudget(ratio=0.1, capacity=100)

    spent = in_threads(THREADS, lambda _: sum(budget.withdraw() for _ in range(100)))

    assert sum(spent) == 100
    assert budget.tokens == 0.0


@pytest.mark.usefixtures("frequent_switches")
def test_no_deposit_is_lost_or_counted_twice() -> None:
    budget = RetryBudget(ratio=0.1, capacity=10_000, initial=0)
    rounds = 500

    def work(_: int) -> int:
        spent = 0
        for number in range(rounds):
            budget.deposit()
            if number % 3 == 0:
                spent += budget.withdraw()
            if number % 7 == 0:
                assert budget.tokens >= 0.0
        return spent

    spent = sum(in_threads(THREADS, work))

    assert spent > 0
    assert budget.tokens == (THREADS * rounds * UNIT // 10 - spent * UNIT) / UNIT


@pytest.mark.usefixtures("frequent_switches")
def test_grpc_is_exact_under_threads() -> None:
    budget = RetryBudget.grpc(max_tokens=1000, token_ratio=0.001)
    for _ in range(500):
        budget.failed()

    def work(_: int) -> int:
        for number in range(500):
            budget.deposit()
            if number % 10 == 0:
                budget.failed()
            if number % 3 == 0:
                budget.withdraw()
        return 0

    in_threads(THREADS, work)

    assert budget.tokens == 500 + (THREADS * 500 * 1 - THREADS * 50 * 1000) / 1000
