"""The mutants that are listed as equivalent are changes of lines that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation.run import PACKAGE, ROOT, equivalents


def stale(listed: set[tuple[str, str, str]], package: Path) -> list[str]:
    """Return the entries whose line is not in its module."""
    return sorted(
        f"{module}: {line}"
        for module, _, line in listed
        if line not in {one.strip() for one in (package / module).read_text("utf-8").splitlines()}
    )


def test_each_listed_line_is_in_its_module() -> None:
    listed = equivalents()

    assert len(listed) > 50
    assert stale(listed, ROOT / PACKAGE) == []


@pytest.mark.parametrize(("line", "found"), [("if one < two:", []), ("if one > two:", ["module.py: if one > two:"])])
def test_a_planted_entry_that_is_stale_is_found(tmp_path: Path, line: str, found: list[str]) -> None:
    (tmp_path / "module.py").write_text("def f(one, two):\n    if one < two:\n        return 1\n", "utf-8")

    assert stale({("module.py", "Lt_LtE", line)}, tmp_path) == found
