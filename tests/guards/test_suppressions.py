"""The number of places where the checkers are told to look away can only fall, unless somebody raises it here."""

import io
import re
import tokenize
from collections import Counter
from pathlib import Path

import pytest

from tests.guards.tree import SOURCE, python_files, uses

COMMITTED = {
    "type: ignore": 1,  # overloads that overlap: a static method is a callable, too
    "pyright: ignore": 0,
    "noqa": 0,
    "pragma: no cover": 0,
    "directive for a whole file": 0,
    "cast(": 0,
}

COMMENTS = {
    "type: ignore": re.compile(r"#\s*type:\s*ignore"),
    "pyright: ignore": re.compile(r"#\s*pyright:\s*ignore"),
    "noqa": re.compile(r"#\s*(?:(?:ruff|flake8):\s*)?noqa|#\s*ruff:\s*(?:disable|ignore)", re.IGNORECASE),
    "pragma: no cover": re.compile(r"#\s*pragma:\s*no\s*(?:cover|branch)", re.IGNORECASE),
    "directive for a whole file": re.compile(r"#\s*(?:mypy:|pyright:(?!\s*ignore\b))"),
}


def suppressions(root: Path) -> Counter[str]:
    found = Counter[str]()
    for path in python_files(root):
        source = path.read_text("utf-8")
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                found.update({kind: len(pattern.findall(token.string)) for kind, pattern in COMMENTS.items()})
        found["cast("] += sum(use.name.endswith(".cast") for use in uses(source) if not use.imported)
    return found


def too_many(root: Path, committed: dict[str, int]) -> list[str]:
    return [
        f"{kind}: {count} in {root.name}, {committed[kind]} committed"
        for kind, count in suppressions(root).items()
        if count > committed[kind]
    ]


def test_there_are_not_more_suppressions_than_committed() -> None:
    assert too_many(SOURCE, COMMITTED) == []


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("type: ignore", "x = 1  # type: ignore[assignment]"),
        ("pyright: ignore", "x = 1  # pyright: ignore"),
        ("noqa", "x = 1  # noqa: E501"),
        ("noqa", "# ruff: noqa"),
        ("pragma: no cover", "x = 1  # pragma: no cover"),
        ("pragma: no cover", "x = 1  # pragma: no branch"),
        ("directive for a whole file", "# pyright: basic"),
        ("directive for a whole file", "# mypy: ignore-errors"),
        ("cast(", "import typing\nx = typing.cast(int, 1)"),
        ("cast(", "from typing import cast as sure\nx = sure(int, 1)"),
    ],
)
def test_a_planted_suppression_is_one_too_many(tmp_path: Path, kind: str, line: str) -> None:
    (tmp_path / "planted.py").write_text(f"{line}\n")

    assert too_many(tmp_path, dict.fromkeys(COMMITTED, 0)) == [f"{kind}: 1 in {tmp_path.name}, 0 committed"]


def test_two_suppressions_in_one_comment_are_two(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("x = 1  # type: ignore  # noqa\n")

    assert +suppressions(tmp_path) == {"type: ignore": 1, "noqa": 1}


def test_strings_and_other_names_are_no_suppressions(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("x = '# type: ignore, cast(int, 1)'\ndef cast(): ...\ncast()\n")

    assert +suppressions(tmp_path) == {}
