"""Options of one request, which travel in its `extensions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from resilience._util import validation
from resilience._util.redaction import redacted
from resilience._util.values import Value

KEY: Final = "resilience"
"""The extension of a request that has its options."""
UNTIL: Final = "resilience_until"
"""The extension with the time at which `timeout` ends, and the `id` of the first request: redirects have a copy."""
Settle: TypeAlias = Literal["body", "headers"]
SETTLE: Final = ("body", "headers")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestOptions(Value):
    """The options of one request; `options` describes each."""

    operation: str | None = None
    idempotent: bool | None = None
    timeout: float | None = None
    settle: Settle | None = None

    def __post_init__(self) -> None:
        """Validate the options; `timeout` becomes a float."""
        if self.operation is not None:
            validation.text("operation", self.operation)
        if self.idempotent is not None:
            validation.flag("idempotent", self.idempotent)
        if self.timeout is not None:
            object.__setattr__(self, "timeout", validation.number("timeout", self.timeout, above=True))
        if self.settle is not None:
            check_settle(self.settle)


NONE: Final = RequestOptions()


def options(
    *,
    operation: str | None = None,
    idempotent: bool | None = None,
    timeout: float | None = None,
    settle: Settle | None = None,
) -> dict[str, Any]:
    """Return the `extensions` of one request with options for it: `client.get(url, extensions=options(timeout=2.0))`.

    Args:
        operation: the name of the operation, for events and log lines; None for that of `bind`, or the method.
        idempotent: whether the request may safely be repeated; None for what `bind`, the method and the headers say.
        timeout: the seconds for the whole request, redirects, retries, waits and the body included, > 0; None for no
            own limit. The Timeouts of the pipeline apply as well. It is not the `timeout` of httpx, which bounds single
            reads.
        settle: see `attach`; None for what was given there.

    Returns:
        A dict, which may be merged with other extensions. A redirect has the same options, and the time that is left.

    Raises:
        TypeError: an option is unknown or of the wrong type.
        ValueError: an option is out of range.
    """
    return {KEY: RequestOptions(operation=operation, idempotent=idempotent, timeout=timeout, settle=settle)}


def options_of_request(request: Any) -> RequestOptions:
    """Return the options of a request.

    Raises:
        TypeError: the extension was not made by `options`.
    """
    found = request.extensions.get(KEY)
    if found is None:
        return NONE
    if not isinstance(found, RequestOptions):
        raise TypeError(
            f"the extension {KEY!r} of a request must be made by resilience.httpx.options, not {redacted(found)}"
        )
    return found


def check_settle(settle: Any) -> None:
    """Raise TypeError or ValueError unless `settle` is one of the two words."""
    if not isinstance(settle, str):
        raise TypeError(f'settle must be "body" or "headers", not {settle!r}')
    if settle not in SETTLE:
        raise ValueError(f'settle must be "body" or "headers", not {settle!r}')
