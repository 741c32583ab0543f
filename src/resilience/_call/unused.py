"""The end of results that are not used: those of attempts that have lost a race, or whose thread was abandoned."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, Generator
from typing import Any

from resilience._outcome.http_status import looks_like_response


def close_quietly(result: Any) -> None:
    """Close a generator or a response; ignore what that raises. Other results may be shared, and are left alone."""
    if issubclass(type(result), Generator) or _is_response(result):
        with contextlib.suppress(Exception):
            result.close()


async def aclose_quietly(result: Any) -> None:
    """Do as `close_quietly`, in a task."""
    if not issubclass(type(result), Generator | AsyncGenerator) and not _is_response(result):
        return
    with contextlib.suppress(Exception):
        closed = result.aclose() if hasattr(result, "aclose") else result.close()
        if inspect.isawaitable(closed):
            await closed


def _is_response(result: object) -> bool:
    try:
        return looks_like_response(result)
    except Exception:
        return False
