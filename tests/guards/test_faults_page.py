"""The page of faults names a test for each, and the test exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"


def rows(page: str) -> list[tuple[str, str]]:
    """Return the faults and the names of their tests."""
    found = re.findall(r"^\| (.+?) \| `(test_\w+)` \|$", page, re.MULTILINE)
    return [(fault, test) for fault, test in found]


def missing(page: str, tests: Path) -> list[str]:
    """Return the tests that the page names and that do not exist, and the rows that name none."""
    there = {name for path in tests.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    unnamed = [
        line
        for line in page.splitlines()
        if line.startswith("| ") and "`test_" not in line and line != "| fault | test |"
    ]
    return [test for _, test in rows(page) if test not in there] + unnamed


def test_each_fault_has_a_test() -> None:
    page = PAGE.read_text()

    assert len(rows(page)) > 30
    assert missing(page, ROOT / "tests") == []


def test_a_missing_test_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text("def test_there() -> None: ...")
    page = "| fault | test |\n|---|---|\n| One. | `test_there` |\n| Two. | `test_gone` |\n| Three. | none |\n"

    assert missing(page, tmp_path) == ["test_gone", "| Three. | none |"]
