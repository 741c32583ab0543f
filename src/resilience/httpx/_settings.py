"""The settings of a transport, its pipeline aside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

from resilience.httpx._hosts import Hosts
from resilience.httpx._idempotency import IdempotencyKey, RequestPatterns
from resilience.httpx._options import Settle, check_settle

RejectWith: TypeAlias = Literal["error", "response"]
REJECT_WITH: Final = ("error", "response")


class TransportSettings:
    """The settings of a transport; `attach` describes each.

    Raises:
        TypeError, ValueError: one is of the wrong type or out of range.
    """

    __slots__ = ("idempotency_key", "idempotent", "propagate_to", "rejects_with_response", "settle")

    def __init__(
        self,
        idempotent: Iterable[str] | str,
        propagate_to: Iterable[str] | str,
        idempotency_key: IdempotencyKey | None,
        settle: Settle,
        reject_with: RejectWith,
    ) -> None:
        self.idempotent = RequestPatterns(idempotent)
        self.propagate_to = Hosts("propagate_to", propagate_to)
        key: Any = idempotency_key
        if key is not None and not isinstance(key, IdempotencyKey):
            raise TypeError(f"idempotency_key must be an IdempotencyKey, which names its hosts, not {key!r}")
        self.idempotency_key = idempotency_key
        check_settle(settle)
        self.settle: Settle = settle
        if reject_with not in REJECT_WITH:
            raise ValueError(f'reject_with must be "error" or "response", not {reject_with!r}')
        self.rejects_with_response = reject_with == "response"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TransportSettings):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.settle, self.rejects_with_response))


DEFAULTS: Final = TransportSettings((), (), None, "body", "error")
