"""Finds and runs the Python of a Markdown page."""

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

PYTHON = re.compile(r"\W*(?:i?python\d*|py\d*|pycon|doctest)\b", re.IGNORECASE)
OPENING = re.compile(r"(?:[ >]|[-*+] |\d+[.)] )*(?P<marks>`{3,}|~{3,})(?P<info>.*)")


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page."""

    line: int
    """The number of its opening line."""
    opening: str
    """That line without its indentation."""
    code: str

    @property
    def is_python(self) -> bool:
        """Whether it looks like Python to a reader, however it is spelled."""
        return PYTHON.match(self.opening.strip("`~")) is not None

    @property
    def runs(self) -> bool:
        """Whether it is run: there is one spelling, and it has no options."""
        return self.opening == "```python"


def fences(text: str) -> Iterator[Fence]:
    """Yield the fenced blocks of a page, as CommonMark finds them."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        start = at
        at += 1
        opening = OPENING.fullmatch(lines[start])
        if opening is None or "`" in opening["info"]:
            continue
        marks = opening["marks"]
        closing = re.compile(rf"[ >]*{re.escape(marks)}{re.escape(marks[0])}*\s*")
        while at < len(lines) and closing.fullmatch(lines[at]) is None:
            at += 1
        code = textwrap.dedent("\n".join(lines[start + 1 : at]) + "\n")
        yield Fence(start + 1, (marks + opening["info"]).strip(), code)
        at += 1


def not_run(page: Path) -> list[str]:
    """The Python of a page that would not be run, and so may be wrong."""
    return [
        f"{page.name}:{fence.line}: {fence.opening}"
        for fence in fences(page.read_text("utf-8"))
        if fence.is_python and not fence.runs
    ]


def run_page(page: Path) -> None:
    """Run the fences of a page as one program, in order; tracebacks have the lines of the page."""
    program = ModuleType("__main__")
    before, sys.modules["__main__"] = sys.modules["__main__"], program
    try:
        for fence in fences(page.read_text("utf-8")):
            if fence.runs:
                source = "\n" * fence.line + fence.code
                exec(compile(source, str(page), "exec", dont_inherit=True), vars(program))
    finally:
        sys.modules["__main__"] = before
