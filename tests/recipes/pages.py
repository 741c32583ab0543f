"""The code of the pages of recipes."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tests.guards.docs_code import fences
from tests.guards.tree import ROOT
from tests.support.threads import PATIENCE

PAGES = ROOT / "docs" / "recipes"
NAME = re.compile(r'(?: name=|standard\()"')
_numbers = itertools.count()


def code_with(page: str, *marks: str) -> str:
    """Return the one block of Python of a page that contains all of the marks."""
    blocks = [one.code for one in fences((PAGES / page).read_text("utf-8")) if one.runs]
    (code,) = [one for one in blocks if all(mark in one for mark in marks)]
    return code


def definitions(page: str, *marks: str, until: str | None = None) -> Any:
    """Run the blocks of a page that contain one of the marks, and return what they have defined.

    Their pipelines get names of their own each time: those of the page, or of another test, may still be alive. Of the
    last block, what begins with `until` is left out.
    """
    found = ModuleType(page.removesuffix(".md"))
    blocks = [code_with(page, mark) for mark in marks]
    if until is not None:
        blocks[-1], _, rest = blocks[-1].partition(until)
        assert rest, f"{until!r} is not in {page}"
    number = next(_numbers)
    for code in blocks:
        exec(NAME.sub(rf"\g<0>{number}-", code), vars(found))
    return found


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait at most so long until something is true, and leave the processors to the processes that make it so."""
    until, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < until, "nothing has happened for too long"
        pause.wait(0.02)
