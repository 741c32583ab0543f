"""The check of what a function returned: a response that reports a failure, where no allowlist looks at results."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

from resilience._call.running_call import RunningCall
from resilience._outcome.http_status import looks_like_response, status_of
from resilience._outcome.unlisted import log_bad_response

NOT_RESPONSES: set[type] = {bool, bytes, dict, float, int, list, set, str, tuple, type(None)}
"""Types of returned values that are no HTTP responses; a cache that `check_response` fills."""
_responses: set[type] = set()
MAX_TYPES = 1000
"""The most types in each of these caches: a program may create types without limit."""


def check_response(call: RunningCall, result: Any) -> None:
    """Log, once for each function, that it returned a response with a bad status, which its pipeline ignores.

    It is called only for results of a type that is not in NOT_RESPONSES.
    """
    if not call.options.pipeline.ignores_results:
        return
    with contextlib.suppress(Exception):  # of a result that does not even have a __dict__ that can be read
        if _is_response(result):
            status = status_of(result)
            if status is not None and (status >= 500 or status == 429):
                log_bad_response(call.options.pipeline.name, call.operation, status)


def _is_response(result: object) -> bool:
    """Return whether a result looks like a response; that is remembered for its type."""
    kind = type(result)
    if kind in _responses:
        return True
    like = looks_like_response(result)
    known = _responses if like else NOT_RESPONSES
    if len(known) < MAX_TYPES and kind is not SimpleNamespace:  # whose instances have nothing in common
        known.add(kind)
    return like
