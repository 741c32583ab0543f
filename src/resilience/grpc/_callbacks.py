"""The callbacks for the end of an RPC."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from resilience._util.locks import make_lock
from resilience._util.log_once import hook_failed


class Callbacks:
    """The callbacks for the end of an RPC."""

    def __init__(self) -> None:
        self._mutex = make_lock()
        self._callbacks: deque[Callable[[], object]] | None = deque()

    def add(self, callback: Callable[[], object]) -> bool:
        """Have a callback called at the end; return False if that has come."""
        with self._mutex:
            if self._callbacks is not None:
                self._callbacks.append(callback)
            return self._callbacks is not None

    def run(self) -> None:
        """Call each callback once, also after one that raises a BaseException, which is raised at the end."""
        with self._mutex:
            callbacks, self._callbacks = self._callbacks, None
        if callbacks:
            _run(callbacks)


def _run(callbacks: deque[Callable[[], object]]) -> None:
    """Call each callback once; see `Callbacks.run`."""
    try:
        while callbacks:
            callback = callbacks.popleft()
            try:
                callback()
            except Exception as error:
                hook_failed("callback of an RPC", callback, error)
    finally:
        if callbacks:
            _run(callbacks)
