"""Every line that the library can write to its log has an entry on the page about them, and every entry a line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guards.tree import ROOT, SOURCE, python_files

PAGE = ROOT / "docs" / "troubleshooting.md"
METHODS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
PLACE = re.compile(r"%[-+ #0-9.*]*[a-zA-Z]")
COMMON = "%s: {message}%s"
"""What `logs` makes of the format of each event, which it gives to `_log`."""


def name_of(node: ast.expr) -> str:
    """Return the last part of a dotted name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def logging_calls(source: str) -> Iterator[ast.Call]:
    """Yield the calls of a method of a logger, whatever it is called, and those of the function `_log`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            owner = name_of(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            if (name_of(node.func) in METHODS and "log" in owner.lower()) or name_of(node.func) == "_log":
                yield node


def formats(source: str) -> list[str]:
    """Return the formats of the lines that a module logs; of one that is no literal, its source."""
    found: list[str] = []
    for call in logging_calls(source):
        given = [argument for argument in call.args if not isinstance(argument, ast.Starred)]
        if name_of(call.func) == "log":
            del given[0]  # the level
        shown = given[0]
        if isinstance(shown, ast.Constant) and isinstance(shown.value, str):
            found.append(shown.value)
        else:
            found.append(ast.unparse(shown).removeprefix("f").strip("'\""))
    return found


def hooks(source: str) -> list[str]:
    """Return what a module says that has raised an exception, for the line about it."""
    return [
        node.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and name_of(node.func) in ("hook_failed", "failed")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]


def shown(form: str) -> str:
    """Return a format as the page writes it."""
    return PLACE.sub("…", form).replace("`", "'")


def lines_of(root: Path) -> set[str]:
    """Return the lines that a package logs, as the page writes them."""
    found = [form for path in python_files(root) for form in formats(path.read_text("utf-8"))]
    return {shown(form) for form in found if form != COMMON}


def headings(page: str) -> set[str]:
    """Return the lines that the page has an entry for."""
    return set(re.findall(r"^### `(.+)`$", page, re.MULTILINE))


def entries_without_advice(page: str) -> list[str]:
    """Return the entries that do not say what to do."""
    parts = re.split(r"^#{2,3} ", page, flags=re.MULTILINE)
    return [part.splitlines()[0] for part in parts if part.startswith("`") and "what to do" not in part.lower()]


def test_every_line_has_an_entry_and_every_entry_a_line() -> None:
    lines = lines_of(SOURCE)

    assert len(lines) > 10
    assert headings(PAGE.read_text("utf-8")) == lines


def test_every_entry_says_what_to_do() -> None:
    assert entries_without_advice(PAGE.read_text("utf-8")) == []


def test_every_hook_that_can_fail_is_explained() -> None:
    said = {what for path in python_files(SOURCE) for what in hooks(path.read_text("utf-8"))}
    page = PAGE.read_text("utf-8")

    assert len(said) > 10
    assert [what for what in sorted(said) if f"`{what}`" not in page] == []


@pytest.mark.parametrize(
    ("planted", "line"),
    [
        ('logger.warning("%s is odd", 1)', "… is odd"),
        ('self._log.error("one %.3g " "and %d", 1.0, 2)', "one … and …"),
        ('logging.getLogger("x")\nlog.log(20, "%s leaves", 1)', "… leaves"),
        ('logs.logger.info(f"made of {x}")', "made of {x}"),
        ("logger.exception(text)", "text"),
        ('_log(*(1, 2), "%s happened", 3, more=4)', "… happened"),
    ],
)
def test_a_planted_line_is_found(tmp_path: Path, planted: str, line: str) -> None:
    (tmp_path / "planted.py").write_text(f"def f():\n    {planted.replace(chr(10), chr(10) + '    ')}\n")

    assert lines_of(tmp_path) == {line}
    assert line not in headings(PAGE.read_text("utf-8"))


def test_a_planted_hook_is_found() -> None:
    assert hooks('hook_failed("a new hook", x, error)') == ["a new hook"]


def test_a_planted_entry_is_found() -> None:
    page = "## Lines\n\n### `… ends`\n\nWhat to do: wait.\n\n### `… ends with 'x'`\n\nWARNING. It does.\n"

    assert headings(page) == {"… ends", "… ends with 'x'"}
    assert entries_without_advice(page) == ["`… ends with 'x'`"]
