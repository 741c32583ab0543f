"""Integers that are too large for a float."""

from __future__ import annotations

import pytest

from resilience._util import validation


def test_numbers_too_large_for_a_float_are_refused() -> None:
    with pytest.raises(ValueError, match="x must be a number"):
        validation.number("x", 10**400)
