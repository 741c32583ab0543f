"""Tests of equality by fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from resilience._util.values import Value


@dataclass(frozen=True, slots=True, eq=False)
class Point(Value):
    x: float
    y: float


@dataclass(frozen=True, slots=True, eq=False)
class Place(Point):
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Other(Value):
    x: float
    y: float


class TestValue:
    def test_those_of_one_class_and_the_same_fields_are_equal(self) -> None:
        assert Point(1, 2) == Point(1.0, 2.0)
        assert hash(Point(1, 2)) == hash(Point(1.0, 2.0))

    @pytest.mark.parametrize("other", [Point(1, 3), Point(3, 2), Place(1, 2), Other(1, 2), (1, 2), None])
    def test_others_are_not(self, other: object) -> None:
        assert Point(1, 2) != other
        assert other != Point(1, 2)

    def test_the_fields_of_a_subclass_count(self) -> None:
        assert Place(1, 2, "here") == Place(1, 2, "here")
        assert Place(1, 2, "here") != Place(1, 2, "there")

    def test_one_with_a_field_that_cannot_be_hashed_has_no_hash(self) -> None:
        with pytest.raises(TypeError):
            hash(Other(cast("float", []), 1))

    def test_it_takes_no_room(self) -> None:
        assert not hasattr(Point(1, 2), "__dict__")
