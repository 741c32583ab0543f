"""Batch jobs and long-running jobs: retry the failed items of a batch, and poll until a job is done.

`retry_failed` and `poll` are for plain functions, `aretry_failed` and `apoll` for tasks of asyncio and trio.
"""

from __future__ import annotations

from resilience._util.exports import set_public_module as _set_public_module
from resilience.jobs._poll import PollTimeoutError, apoll, poll
from resilience.jobs._result import BatchError, BatchItem, BatchResult, Failed, ItemStatus
from resilience.jobs._retry_failed import aretry_failed, retry_failed

__all__ = [
    "BatchError",
    "BatchItem",
    "BatchResult",
    "Failed",
    "ItemStatus",
    "PollTimeoutError",
    "apoll",
    "aretry_failed",
    "poll",
    "retry_failed",
]

_set_public_module(__name__, __all__, globals())
