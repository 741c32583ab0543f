"""The picture of a run."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from resilience._demo.plots import attempts_per_second, nice, picture, success
from resilience._demo.script import Arm, ServiceName
from tests.demo import made

SVG = "{http://www.w3.org/2000/svg}"


def test_what_is_drawn_is_what_was_noted() -> None:
    result = made.result()

    assert success(result, Arm.STANDARD)[ServiceName.HTTP] == [(0.25, 40.0), (0.75, 0.0), (1.25, 100.0), (1.75, 100.0)]
    assert attempts_per_second(result, Arm.TENACITY)[ServiceName.GRPC] == [
        (0.25, 56.0),
        (0.75, 0.0),
        (1.25, 20.0),
        (1.75, 0.0),
    ]
    assert attempts_per_second(made.result(own=True), Arm.BARE)[ServiceName.HTTP][0] == (0.25, 10.0)


@pytest.mark.parametrize("own", [False, True])
def test_the_picture_is_svg_and_needs_nothing_else(own: bool) -> None:
    text = picture(made.result(own=own))
    root = ElementTree.fromstring(text)

    assert root.tag == f"{SVG}svg"
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "").replace('line http"', "").replace(
        ".demo .http", ""
    )
    assert "prefers-color-scheme: dark" in text
    lines = list(root.iter(f"{SVG}polyline"))
    assert len(lines) == 3 * 2 * 2
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert [word for word in words if word in list(Arm)] == ["bare", "tenacity", "standard"]
    assert words.count("none") == 2  # the others have no breaker
    assert ("healthy again" in words) is not own


def test_the_breakers_are_drawn_from_change_to_change() -> None:
    root = ElementTree.fromstring(picture(made.result()))
    kinds = ["closed", "half_open", "open"]
    drawn = [one.get("class") for one in root.iter(f"{SVG}rect") if one.get("class") in kinds]

    assert drawn == ["closed", "open", "half_open", "closed", "closed", *kinds]  # HTTP, gRPC, and the legend


@pytest.mark.parametrize(("value", "expected"), [(1, 10), (10, 10), (11, 20), (56, 60), (81, 100), (101, 200)])
def test_an_axis_ends_with_a_round_number(value: float, expected: float) -> None:
    assert nice(value) == expected
