"""Gates that can also guard a block of code, with `with` or `async with`."""

from __future__ import annotations

import operator
from functools import partial
from typing import Generic, Self, TypeVar

from resilience._call.entry import BlockEntry
from resilience._call.settlement import settle_after_error
from resilience._outcome.ending import OK, Ending
from resilience._policies.shapes import Gate
from resilience._util.locks import members, new_lock

Token = TypeVar("Token")


class Blocks:
    """The running blocks of a gate, by the task or thread that entered them and by nesting depth within it.

    There is no lock, since a generator that is finalized may end its block at any moment, also inside these methods.
    Each change is a single atomic operation of a dict; if two compete for one key, the later one tries again.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[object, int], BlockEntry] = {}

    def begin(self, entry: BlockEntry) -> None:
        """Record a block that begins."""
        depth = 0
        while self._running.setdefault((entry.owner, depth), entry) is not entry:
            depth += 1

    def end(self, owner: object) -> BlockEntry:
        """Remove and return the innermost block of a task or thread.

        If `owner` has none, return the newest block of any owner: a generator may be closed by another task or thread
        than the one that ran it.
        """
        while True:
            entry = self._running.pop(self._innermost(owner), None)
            if entry is not None:
                return entry

    def _innermost(self, owner: object) -> tuple[object, int]:
        """Return the key of the innermost block of `owner`, or else of the newest block."""
        if (owner, 0) in self._running and (owner, 1) not in self._running:
            return owner, 0  # the common case: not nested
        running = members(self._running)
        own = [one for one in running if one[0] == owner]
        return max(own, key=operator.itemgetter(1)) if own else running[-1]


class BlockGate(Gate[Token], Generic[Token]):
    """A gate that can also be used as `with gate:` and `async with gate:`.

    An exception that leaves the block is classified by the policy's own `on=`, or else by NETWORK_ERRORS. One object
    may guard many blocks at once, in several threads and tasks, and nested in one another.
    """

    _blocks: Blocks | None = None

    def _running(self) -> Blocks:
        """Return the running blocks of this gate."""
        if self._blocks is None:
            with _first_use_lock:
                self._blocks = self._blocks or Blocks()
        return self._blocks

    def __enter__(self) -> Self:
        """Admit the block, or raise the gate's rejection. A thread may wait in the gate's queue.

        Raises:
            UsageError: the gate would have to wait in a task of an event loop; use `async with` there.
        """
        entry, options = self.entry()
        self._running().begin(entry.enter_block(self, options))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Settle the block's token with its ending."""
        entry, _ = self.entry()
        block = self._running().end(entry.current_owner())
        try:
            if block.admitted:
                ending = OK if error is None else Ending(None, error, block.call.failures)
                settle_after_error(partial(self.settle, block.token), ending)
        finally:
            entry.in_flight.leave(block.call)

    async def __aenter__(self) -> Self:
        """Admit the block, or raise the gate's rejection. The task may wait in the gate's queue."""
        entry, options = self.entry()
        self._running().begin(await entry.aenter_block(self, options))
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Settle the block's token with its ending."""
        self.__exit__(kind, error, traceback)


_first_use_lock = new_lock()
