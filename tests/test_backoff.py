"""The backoffs: their formulas, bounds, settings and text."""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience._util.clock import clock
from resilience.backoff import Backoff, decorrelated_jitter, equal_jitter, fixed, full_jitter, none, proportional

ALMOST_ONE = math.nextafter(1.0, 0.0)
"""The most that random() returns."""


class Loaded(random.Random):
    """A die that always shows the same."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


@contextmanager
def drawing(value: float) -> Iterator[None]:
    """Let the ambient randomness be `value`."""
    before = clock.random
    clock.random = Loaded(value)
    try:
        yield
    finally:
        clock.random = before


def waits(strategy: Backoff, drawn: float, retries: int) -> list[float]:
    """Return the waits before the first retries of one call."""
    found: list[float] = []
    with drawing(drawn):
        for retry in range(1, retries + 1):
            found.append(strategy.seconds(retry, found[-1] if found else None))
    return found


# Formulas


@pytest.mark.parametrize(
    ("strategy", "drawn", "expected"),
    [
        (full_jitter(1.0, 10.0), 0.0, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        (full_jitter(1.0, 10.0), 0.5, [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]),
        (full_jitter(1.0, 10.0, factor=3.0), 0.5, [0.5, 1.5, 4.5, 5.0, 5.0, 5.0]),
        (full_jitter(2.0, 8.0, factor=1.0), 0.25, [0.5, 0.5, 0.5]),
        (equal_jitter(1.0, 10.0), 0.0, [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]),
        (equal_jitter(1.0, 10.0), 0.5, [0.75, 1.5, 3.0, 6.0, 7.5, 7.5]),
        (equal_jitter(1.0, 10.0, factor=4.0), 0.5, [0.75, 3.0, 7.5]),
        (proportional(1.0, 10.0), 0.5, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]),
        (proportional(1.0, 10.0), 0.0, [0.75, 1.5, 3.0, 6.0, 7.5, 7.5]),
        (proportional(1.0, 10.0), 0.75, [1.125, 2.25, 4.5, 9.0, 10.0, 10.0]),
        (proportional(1.0, 10.0, factor=3.0, ratio=1.0), 0.0, [0.0, 0.0, 0.0]),
        (proportional(1.0, 10.0, factor=3.0, ratio=0.5), 0.75, [1.25, 3.75, 10.0, 10.0]),
        (decorrelated_jitter(1.0, 10.0), 0.0, [1.0, 1.0, 1.0]),
        (decorrelated_jitter(1.0, 10.0), 0.5, [2.0, 3.5, 5.75, 9.125, 10.0, 10.0]),
        (fixed(3.0), 0.5, [3.0, 3.0, 3.0]),
        (none(), 0.5, [0.0, 0.0, 0.0]),
    ],
    ids=repr,
)
def test_the_formulas(strategy: Backoff, drawn: float, expected: list[float]) -> None:
    assert waits(strategy, drawn, len(expected)) == expected


def test_the_defaults() -> None:
    for strategy in (full_jitter(), equal_jitter(), proportional()):
        assert (strategy.base, strategy.cap, strategy.factor) == (0.1, 10.0, 2.0)
        assert strategy.ceiling(1) == 0.1
        assert strategy.ceiling(7) == pytest.approx(6.4)
        assert strategy.ceiling(8) == 10.0
    assert proportional().ratio == 0.25
    assert (decorrelated_jitter().base, decorrelated_jitter().cap) == (0.1, 10.0)


@pytest.mark.parametrize("previous", [None, 0.0, 0.5, 1.0, -5.0, math.nan])
def test_a_decorrelated_wait_starts_from_the_base(previous: float | None) -> None:
    with drawing(0.5):
        assert decorrelated_jitter(1.0, 10.0).seconds(1, previous) == 2.0


def test_only_the_decorrelated_one_has_a_memory() -> None:
    with drawing(0.5):
        for strategy in (full_jitter(1.0), equal_jitter(1.0), proportional(1.0), fixed(1.0)):
            assert strategy.seconds(3, None) == strategy.seconds(3, 0.0) == strategy.seconds(3, 9.0)
        assert decorrelated_jitter(1.0).seconds(1, 3.0) == decorrelated_jitter(1.0).seconds(99, 3.0) == 5.0


def test_the_randomness_is_the_ambient_one_at_the_moment() -> None:
    strategy = full_jitter(1.0)
    before = clock.random

    with drawing(0.25):
        assert strategy.seconds(1, None) == 0.25
    with drawing(0.75):
        assert strategy.seconds(1, None) == 0.75
    assert clock.random is before


# Bounds

SECONDS = st.floats(1e-9, 1e9)
ANY_SECONDS = st.floats(1e-300, 1e308)
FACTORS = st.floats(1.0, 1e308) | st.floats(1.0, 10.0)
RATIOS = st.floats(0.0, 1.0, exclude_min=True)
DRAWN = st.floats(0.0, ALMOST_ONE) | st.sampled_from([0.0, ALMOST_ONE])
RETRIES = st.integers(1, 10_000)

exactly = settings(derandomize=True, database=None, deadline=None, max_examples=500)


@st.composite
def capped(draw: st.DrawFn, seconds: st.SearchStrategy[float]) -> tuple[Backoff, float, float]:
    """A strategy, the least that it may wait and the most."""
    base, cap = sorted([draw(seconds), draw(seconds)])
    factor = draw(FACTORS)
    kind = draw(st.sampled_from(["full", "equal", "proportional", "decorrelated", "fixed", "none"]))
    match kind:
        case "full":
            return full_jitter(base, cap, factor=factor), 0.0, cap
        case "equal":
            return equal_jitter(base, cap, factor=factor), base / 2, cap
        case "proportional":
            return proportional(base, cap, factor=factor, ratio=draw(RATIOS)), 0.0, cap
        case "decorrelated":
            return decorrelated_jitter(base, cap), base, cap
        case "fixed":
            return fixed(base), base, base
        case _:
            return none(), 0.0, 0.0


@exactly
@given(strategy=capped(SECONDS | ANY_SECONDS), retry=RETRIES, drawn=DRAWN, previous=st.none() | ANY_SECONDS)
def test_no_wait_is_above_the_cap_or_negative(
    strategy: tuple[Backoff, float, float], retry: int, drawn: float, previous: float | None
) -> None:
    policy, least, most = strategy

    with drawing(drawn):
        wait = policy.seconds(retry, previous)

    assert isinstance(wait, float)
    assert 0.0 <= least <= wait <= most


@exactly
@given(strategy=capped(SECONDS), drawn=DRAWN)
def test_a_chain_of_waits_stays_below_the_cap(strategy: tuple[Backoff, float, float], drawn: float) -> None:
    policy, least, most = strategy

    assert all(least <= wait <= most for wait in waits(policy, drawn, 50))


@exactly
@given(base=SECONDS, factor=FACTORS, retry=st.integers(1, 9_999))
def test_the_ceiling_never_falls(base: float, factor: float, retry: int) -> None:
    strategy = full_jitter(base, 1e9, factor=factor)

    assert base <= strategy.ceiling(retry) <= strategy.ceiling(retry + 1) <= 1e9


@pytest.mark.parametrize("kind", [full_jitter, equal_jitter, proportional])
@pytest.mark.parametrize("factor", [2.0, 1e308])
def test_a_power_that_overflows_is_the_cap(
    kind: type[full_jitter | equal_jitter | proportional], factor: float
) -> None:
    strategy = kind(0.1, 10.0, factor=factor)

    assert strategy.ceiling(10_000) == strategy.ceiling(10**6) == 10.0
    with drawing(ALMOST_ONE):
        assert strategy.seconds(10_000, None) <= 10.0


def test_a_factor_of_one_never_grows() -> None:
    assert full_jitter(0.1, 10.0, factor=1.0).ceiling(10_000) == 0.1


# Settings

Maker = Callable[..., Backoff]
EXPONENTIAL: list[Maker] = [full_jitter, equal_jitter, proportional]
CAPPED: list[Maker] = [*EXPONENTIAL, decorrelated_jitter]


@pytest.mark.parametrize("kind", CAPPED)
@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"base": 0}, "base must be a number > 0, not 0"),
        ({"base": -0.1}, "base must be a number > 0, not -0.1"),
        ({"base": math.nan}, "base must be a number > 0, not nan"),
        ({"base": math.inf}, "base must be a number > 0, not inf"),
        ({"cap": 0.05}, "cap must be a number >= 0.1, not 0.05"),
        ({"base": 2, "cap": 1}, "cap must be a number >= 2, not 1"),
        ({"cap": math.inf}, "cap must be a number >= 0.1, not inf"),
    ],
)
def test_base_and_cap_out_of_range(kind: Maker, given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must be a number") as caught:
        kind(**given_settings)

    assert str(caught.value) == message


@pytest.mark.parametrize("kind", CAPPED)
@pytest.mark.parametrize("value", ["1", None, True])
def test_base_and_cap_of_the_wrong_type(kind: Maker, value: object) -> None:
    with pytest.raises(TypeError) as caught:
        kind(base=value)
    assert str(caught.value) == f"base must be a number > 0, not {value!r}"

    with pytest.raises(TypeError) as caught:
        kind(cap=value)
    assert str(caught.value) == f"cap must be a number >= 0.1, not {value!r}"


@pytest.mark.parametrize("kind", EXPONENTIAL)
def test_a_bad_factor(kind: Maker) -> None:
    for value in (0.99, 0, -2, math.nan, math.inf):
        with pytest.raises(ValueError, match="factor") as caught:
            kind(factor=value)
        assert str(caught.value) == f"factor must be a number >= 1, not {value!r}"
    with pytest.raises(TypeError, match=r"\Afactor must be a number >= 1, not 'two'\Z"):
        kind(factor="two")


def test_a_bad_ratio() -> None:
    for value in (0, -0.1, 1.01, math.nan, math.inf):
        with pytest.raises(ValueError, match="ratio") as caught:
            proportional(ratio=value)
        assert str(caught.value) == f"ratio must be a number > 0 and <= 1, not {value!r}"
    wrong: Any = "half"
    with pytest.raises(TypeError, match=r"\Aratio must be a number > 0 and <= 1, not 'half'\Z"):
        proportional(ratio=wrong)


def test_a_bad_fixed_wait() -> None:
    for value in (-1, -0.001, math.nan, math.inf):
        with pytest.raises(ValueError, match="seconds") as caught:
            fixed(value)
        assert str(caught.value) == f"seconds must be a number >= 0, not {value!r}"
    wrong: Any = None
    with pytest.raises(TypeError, match=r"\Aseconds must be a number >= 0, not None\Z"):
        fixed(wrong)


def test_a_base_may_be_the_cap() -> None:
    assert full_jitter(1.0, 1.0).ceiling(5) == 1.0
    with drawing(ALMOST_ONE):
        assert decorrelated_jitter(1.0, 1.0).seconds(5, 1.0) == 1.0


# Text


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        (full_jitter(), "full_jitter(base=0.1, cap=10, factor=2)"),
        (equal_jitter(1, 2, factor=3), "equal_jitter(base=1, cap=2, factor=3)"),
        (proportional(), "proportional(base=0.1, cap=10, factor=2, ratio=0.25)"),
        (decorrelated_jitter(), "decorrelated_jitter(base=0.1, cap=10)"),
        (fixed(1.5), "fixed(1.5)"),
        (none(), "fixed(0)"),
    ],
    ids=repr,
)
def test_a_strategy_as_text(strategy: Backoff, text: str) -> None:
    assert repr(strategy) == text


# Your own


class Stairs(Backoff):
    def seconds(self, retry: int, previous: float | None) -> float:
        return float(retry)


def test_a_strategy_of_your_own() -> None:
    assert Stairs().seconds(3, None) == 3.0


def test_a_strategy_without_seconds_says_what_is_missing() -> None:
    empty: Any = type("Empty", (Backoff,), {})

    with pytest.raises(TypeError, match="abstract method"):
        empty()
