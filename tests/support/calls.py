"""Calls as the drivers see them, made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience import Pipeline
from resilience._call.caller import options_of
from resilience._call.running_call import RunningCall
from resilience._outcome.allowlist import Allowlist
from resilience._outcome.network_errors import NETWORK_ERRORS


def running_call(
    pipeline: Pipeline[Any] | None = None,
    function: Callable[..., Any] = int,
    *args: Any,
    failures: Allowlist = NETWORK_ERRORS,
) -> RunningCall:
    """Return a call of a function through a pipeline; `failures` is the allowlist of the call site."""
    return RunningCall.make(options_of(pipeline or Pipeline[Any](), failures), function, args, {})
