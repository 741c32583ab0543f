"""The arithmetic of the benchmarks: medians, spreads, and the uncertainty of a ratio."""

import pytest

from benchmarks.arithmetic import Ratio, interval, median, ratio, spread, uncertainty


@pytest.mark.parametrize(("values", "middle"), [([3.0], 3.0), ([1.0, 9.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5)])
def test_the_median_is_in_the_middle(values: list[float], middle: float) -> None:
    assert median(values) == middle


def test_the_spread_is_the_distance_of_the_quartiles_as_a_share_of_the_median() -> None:
    assert spread([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(0.2)


@pytest.mark.parametrize("values", [[7.0], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
def test_there_is_no_spread_in_one_value_or_in_equal_ones(values: list[float]) -> None:
    assert spread(values) == 0.0


def test_a_wild_value_moves_neither_the_median_nor_the_spread_much() -> None:
    calm = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6]
    wild = [*calm[:-1], 1000.0]

    assert median(wild) == median(calm)
    assert spread(wild) == pytest.approx(spread(calm))


def test_with_few_values_the_median_may_lie_anywhere_between_them() -> None:
    assert interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert interval([4.0]) == (4.0, 4.0)


def test_with_more_values_the_interval_shrinks_around_the_median() -> None:
    values = [float(value) for value in range(101)]
    low, high = interval(values)

    assert (low, high) == (40.0, 60.0)
    assert uncertainty(values) == pytest.approx(10 / 50)


def test_the_interval_does_not_depend_on_the_order() -> None:
    values = [float(value) for value in range(30)]

    assert interval(values[::-1]) == interval(values)


def test_nothing_is_uncertain_about_zeros() -> None:
    assert uncertainty([0.0, 0.0]) == 0.0


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine is ten times slower in the third round, and in the fourth one something hits only one of the two.
    assert ratio([2.0, 2.0, 20.0, 40.0, 2.0], [4.0, 4.0, 40.0, 4.0, 4.0]).value == 0.5


def test_a_steady_ratio_is_certain() -> None:
    assert ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == Ratio(0.5, 0.0)


def test_rounds_that_do_not_belong_together_are_not_compared() -> None:
    with pytest.raises(ValueError, match="3 and 2 rounds"):
        ratio([1.0, 2.0, 3.0], [1.0, 2.0])
