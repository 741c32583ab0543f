"""What httpcore tells while it works (its `trace` extension): how far a request is, and what to do about it."""

from __future__ import annotations

from typing import Any

from resilience.httpx.exchange import PHASES, Clock, Exchange

BODY = ("read",)


class Ticking:
    """For plain clients: each phase has the time that is left as it begins.

    Args:
        clock: of the attempt.
        extensions: of the request; a `trace` of its own hears everything as well.
    """

    def __init__(self, clock: Clock, extensions: dict[str, Any]) -> None:
        self._clock = clock
        self._follow = extensions.get("trace")

    def __call__(self, name: str, info: Any) -> None:
        """Hear of an event."""
        if name.endswith(".started"):
            self._clock.clip(BODY if name.endswith(".receive_response_body.started") else PHASES)
        if self._follow is not None:
            self._follow(name, info)


class Following:
    """For async clients: whether the request still waits for a connection.

    Args:
        call: the call.
    """

    def __init__(self, call: Exchange) -> None:
        self._call = call
        self._follow = call.request.extensions.get("trace")
        call.line_up(True)

    async def __call__(self, name: str, info: Any) -> None:
        """Hear of an event."""
        self._call.line_up(False)
        if self._follow is not None:
            await self._follow(name, info)
