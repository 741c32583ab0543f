"""Forks while threads count: the child must not find counts half added up, or a lock that is held for ever."""

from __future__ import annotations

import os
from typing import Any, Protocol
from weakref import WeakSet

from resilience._util.locks import members


class Counting(Protocol):
    """Metrics that take part.

    Attributes:
        lock: held while they change.
    """

    lock: Any

    def forget(self) -> None:
        """Called in the child of a fork, which counts for itself."""


_taking_part: WeakSet[Counting] = WeakSet()
_held: list[Counting] = []


def hold_while_forking(metrics: Counting) -> None:
    """Have forks wait until the lock of metrics is free, and tell the child of a fork."""
    _taking_part.add(metrics)


def forget(metrics: Counting) -> None:
    """Undo `hold_while_forking`."""
    _taking_part.discard(metrics)


def _before() -> None:
    for metrics in members(_taking_part):
        metrics.lock.acquire()
        _held.append(metrics)


def _after() -> None:
    while _held:
        _held.pop().lock.release()


def _after_in_child() -> None:
    forked = list(_held)
    _after()
    for metrics in forked:
        metrics.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
