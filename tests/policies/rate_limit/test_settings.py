"""The settings of a rate limit are validated, with words that say what is permitted."""

from __future__ import annotations

import math
from typing import Any

import pytest

from resilience import RateLimit


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"rate": 0}, ValueError, "rate must be a number > 0, not 0"),
        ({"rate": -1}, ValueError, "rate must be a number > 0, not -1"),
        ({"rate": math.nan}, ValueError, "rate must be a number > 0, not nan"),
        ({"rate": math.inf}, ValueError, "rate must be a number > 0, not inf"),
        ({"rate": "10"}, TypeError, "rate must be a number > 0, not '10'"),
        ({"rate": True}, TypeError, "rate must be a number > 0, not True"),
        ({"rate": 1e300, "per": 1e-300}, ValueError, "rate must be such that per / rate"),
        ({"rate": 1e-300, "per": 1e300}, ValueError, "rate must be such that per / rate"),
        ({"per": 0}, ValueError, "per must be a number > 0, not 0"),
        ({"per": None}, TypeError, "per must be a number > 0, not None"),
        ({"burst": 0.5}, ValueError, "burst must be a number >= 1, not 0.5"),
        ({"burst": math.inf}, ValueError, "burst must be a number >= 1, not inf"),
        ({"max_wait": -0.1}, ValueError, "max_wait must be a number >= 0, not -0.1"),
        ({"max_wait": math.inf}, ValueError, "max_wait must be a number >= 0, not inf"),
        ({"cost": 0}, ValueError, "cost must be a number > 0, not 0"),
        ({"cost": "1"}, TypeError, "cost must be a number > 0, not '1'"),
        ({"actual": 3}, TypeError, "actual must be a function of the result, or None, not 3"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words.replace("(", "\\(")):
        RateLimit(**{"rate": 10, **settings})
    limit = RateLimit(10)
    with pytest.raises(error):
        limit.update(**settings)
    assert limit.describe()["settings"]["rate"] == 10


def test_numbers_become_floats_and_the_longest_wait_is_that_of_a_period() -> None:
    settings = RateLimit(600, 60, burst=5).settings

    assert (settings.rate, settings.per, settings.burst, settings.max_wait, settings.cost) == (600, 60, 5, None, 1)
    assert all(isinstance(value, float) for value in (settings.rate, settings.per, settings.burst, settings.cost))
    assert settings.longest_wait == 60
    assert RateLimit(600, 60, max_wait=2).settings.longest_wait == 2


def test_a_plain_one_costs_one_and_looks_at_no_result() -> None:
    assert RateLimit(1).settings.is_plain
    assert not RateLimit(1, cost=2).settings.is_plain
    assert not RateLimit(1, cost=lambda call: 1).settings.is_plain
    assert not RateLimit(1, actual=len).settings.is_plain


def test_all_but_rate_and_per_are_given_by_name() -> None:
    positional: Any = RateLimit
    with pytest.raises(TypeError, match="positional"):
        positional(1, 1, 1)
