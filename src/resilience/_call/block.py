"""A block of code that a gate guards, as `gate.calling()` returns it."""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from resilience._call.call import CallOptions
from resilience._call.entry import Admit, BlockEntry, Entry
from resilience._call.settlement import settle_after_error
from resilience._outcome.ending import OK, Ending
from resilience.errors import UsageError


class BlockGuard(Protocol):
    """The part of a gate that a block uses."""

    @property
    def name(self) -> str:
        """The name of the gate, for messages."""
        ...

    def entry(self) -> tuple[Entry, CallOptions]:
        """Return the entry of a pipeline that consists of the gate alone."""
        ...

    def settle(self, token: Any, ending: Ending) -> None:
        """Settle a token with the ending of its block."""


GuardT = TypeVar("GuardT", bound=BlockGuard)


class Block(Generic[GuardT]):
    """One block of code that a gate guards: `with gate.calling():` or `async with gate.calling():`.

    It is entered once, and then holds the token of its own admission, so that blocks may end in any order and in any
    thread or task. An exception that leaves the block is classified by the policy's own `on=`, or else by
    NETWORK_ERRORS.

    Args:
        gate: the gate.
        admit: what is called in place of `gate.admit`; None for that.

    Attributes:
        admitted: whether the gate has admitted the block; False before it is entered.
    """

    __slots__ = ("_admit", "_entered", "_gate", "_used", "admitted")

    def __init__(self, gate: GuardT, admit: Admit | None = None) -> None:
        self._gate = gate
        self._admit = admit
        self._entered: BlockEntry | None = None
        self._used = False
        self.admitted = False

    def __enter__(self) -> GuardT:
        """Admit the block, or raise the gate's rejection. A thread may wait in the gate's queue.

        Raises:
            UsageError: the gate would have to wait in a task of an event loop, where `async with` is needed; or the
                object was entered before.
        """
        entry, options = self._begin()
        self._entered = entry.enter_block(self._gate, options, self._admit)
        self.admitted = self._entered.admitted
        return self._gate

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Settle the token with the ending of the block."""
        entered, self._entered = self._entered, None
        if entered is None:
            return
        entry, _ = self._gate.entry()
        try:
            if entered.admitted:
                ending = OK if error is None else Ending(None, error, entered.call.failures)
                settle_after_error(partial(self._gate.settle, entered.token), ending)
        finally:
            entry.in_flight.leave(entered.call)

    async def __aenter__(self) -> GuardT:
        """Admit the block, or raise the gate's rejection. The task may wait in the gate's queue."""
        entry, options = self._begin()
        self._entered = await entry.aenter_block(self._gate, options, self._admit)
        self.admitted = self._entered.admitted
        return self._gate

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Settle the token with the ending of the block."""
        self.__exit__(kind, error, traceback)

    def _begin(self) -> tuple[Entry, CallOptions]:
        if self._used:
            raise UsageError(f"this block of {self._gate.name} was entered before; call `calling()` for each block")
        self._used = True
        return self._gate.entry()
