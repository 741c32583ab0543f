"""Gates that can also be passed by hand, with `with` or `async with`: the way to guard a block, or a generator."""

from __future__ import annotations

import operator
from typing import Generic, Self, TypeVar

from resilience._call.caller import BlockEntry
from resilience._call.settlement import settle_after_error
from resilience._outcome.ending import OK, Ending
from resilience._policies.shapes import Gate
from resilience._util.locks import members, new_lock

Token = TypeVar("Token")


class Blocks:
    """The blocks that are running, by task or thread, and how deep within other blocks of the same gate.

    Without a lock: a generator that the interpreter finalises may end its block at any moment, also within these. Each
    change is a single step of a dict, and who comes too late for one looks again.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[object, int], BlockEntry] = {}

    def begin(self, passage: BlockEntry) -> None:
        """Note a block that begins."""
        depth = 0
        while self._running.setdefault((passage.owner, depth), passage) is not passage:
            depth += 1

    def end(self, owner: object) -> BlockEntry:
        """Return the innermost block of a task or thread. A generator may be closed by another than ran it."""
        while True:
            passage = self._running.pop(self._innermost(owner), None)
            if passage is not None:
                return passage

    def _innermost(self, owner: object) -> tuple[object, int]:
        if (owner, 0) in self._running and (owner, 1) not in self._running:
            return owner, 0  # the usual case
        running = members(self._running)
        mine = [one for one in running if one[0] == owner]
        return max(mine, key=operator.itemgetter(1)) if mine else running[-1]


class BlockGate(Gate[Token], Generic[Token]):
    """A gate that works as `with gate:` and `async with gate:`, too.

    What leaves the block is judged by the policy's own `on=`, or else by NETWORK_ERRORS. One object may guard many
    blocks at once, in many threads and tasks, and one within another.
    """

    _passages: Blocks | None = None

    def _running(self) -> Blocks:
        if self._passages is None:
            with _firsts:
                self._passages = self._passages or Blocks()
        return self._passages

    def __enter__(self) -> Self:
        """Pass the gate, or raise its refusal. A thread may have to wait; a task has to use `async with` for that."""
        entry, binding = self.entry()
        self._running().begin(entry.enter_block(self, binding))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Settle."""
        entry, _ = self.entry()
        passage = self._running().end(entry.current_owner())
        try:
            if passage.admitted:
                settle_after_error(
                    self.settle, passage.token, OK if error is None else Ending(None, error, passage.call.failures)
                )
        finally:
            entry.leave(passage.call)

    async def __aenter__(self) -> Self:
        """Pass the gate, or raise its refusal. The task may have to wait."""
        entry, binding = self.entry()
        self._running().begin(await entry.aenter_block(self, binding))
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Settle."""
        self.__exit__(kind, error, traceback)


_firsts = new_lock()
