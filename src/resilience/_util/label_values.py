"""Values of the labels of metrics and of the names of spans: short, bounded in number, and possible to encode."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from resilience._util.finalizers import pending, run_pending
from resilience._util.locks import new_lock

OVERFLOW: Final = "_overflow"
"""The value that stands for all values beyond the greatest number."""
LONGEST: Final = 200
"""The greatest length of a value, in characters."""


def label_text(name: str) -> str:
    """Return a name as the value of a label: at most LONGEST characters, and encodable as UTF-8.

    A lone surrogate, as in names that the operating system has not been able to decode, becomes a question mark: one
    of them would make all metrics of a page, or all spans of an export, impossible to encode.
    """
    return name if len(name) <= LONGEST and name.isascii() else _encodable(name[:LONGEST])


@lru_cache(maxsize=1024)
def _encodable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


class Bounded:
    """Admits the first values, up to a number; all others become OVERFLOW.

    Args:
        most: the number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = new_lock()
        self._admitted = {OVERFLOW, ""}

    def of(self, name: str) -> str:
        """Return the name as the value of a label, or OVERFLOW."""
        value = label_text(name)
        if value in self._admitted:
            return value
        with self._lock:
            if len(self._admitted) < self._most + 2:
                self._admitted.add(value)
        if pending:
            run_pending()
        return value if value in self._admitted else OVERFLOW
