"""Gates that can also be passed by hand, with `with` or `async with`, to guard a block or a generator."""

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
    """The blocks that are running, by task or thread, and how deep within other blocks of the same gate.

    There is no lock: a generator that the interpreter finalizes may end its block at any moment, also inside these
    methods. Each change is a single step of a dict; where two compete for one step, the later one looks again.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[object, int], BlockEntry] = {}

    def begin(self, entry: BlockEntry) -> None:
        """Note a block that begins."""
        depth = 0
        while self._running.setdefault((entry.owner, depth), entry) is not entry:
            depth += 1

    def end(self, owner: object) -> BlockEntry:
        """Return the innermost block of a task or thread. A generator may be closed by another one than ran it."""
        while True:
            entry = self._running.pop(self._innermost(owner), None)
            if entry is not None:
                return entry

    def _innermost(self, owner: object) -> tuple[object, int]:
        if (owner, 0) in self._running and (owner, 1) not in self._running:
            return owner, 0  # the usual case
        running = members(self._running)
        own = [one for one in running if one[0] == owner]
        return max(own, key=operator.itemgetter(1)) if own else running[-1]


class BlockGate(Gate[Token], Generic[Token]):
    """A gate that works as `with gate:` and `async with gate:`, too.

    An exception that leaves the block is judged by the policy's own `on=`, or else by NETWORK_ERRORS. One object may
    guard many blocks at once, in many threads and tasks, and one within another.
    """

    _blocks: Blocks | None = None

    def _running(self) -> Blocks:
        if self._blocks is None:
            with _firsts:
                self._blocks = self._blocks or Blocks()
        return self._blocks

    def __enter__(self) -> Self:
        """Pass the gate, or raise its rejection. A thread may have to wait; a task has to use `async with` for that."""
        entry, options = self.entry()
        self._running().begin(entry.enter_block(self, options))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Settle."""
        entry, _ = self.entry()
        block = self._running().end(entry.current_owner())
        try:
            if block.admitted:
                ending = OK if error is None else Ending(None, error, block.call.failures)
                settle_after_error(partial(self.settle, block.token), ending)
        finally:
            entry.in_flight.leave(block.call)

    async def __aenter__(self) -> Self:
        """Pass the gate, or raise its rejection. The task may have to wait."""
        entry, options = self.entry()
        self._running().begin(await entry.aenter_block(self, options))
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Settle."""
        self.__exit__(kind, error, traceback)


_firsts = new_lock()
