"""Verdicts for the retries of SDKs around a client: `x-should-retry`, and responses in place of errors.

The SDKs of openai and anthropic, and others made by the same generator, repeat a request by themselves, unless the
response says `x-should-retry: false`; they repeat every exception of a transport. They count their repetitions in the
header `x-stainless-retry-count`.
"""

from __future__ import annotations

from typing import Any, Final

from resilience._call.call import PipelineInfo
from resilience._call.propagation import retry_after_header
from resilience._outcome import http_status
from resilience._util.log_once import first_time, logger
from resilience.errors import DeadlineExceededError, RejectedError
from resilience.httpx._modules import httpx_module_of

SHOULD_RETRY: Final = "x-should-retry"
RETRY_COUNT: Final = b"x-stainless-retry-count"
"""The name of the header in which such SDKs count."""


def note_foreign_retry(request: Any, info: PipelineInfo) -> None:
    """Count a request with the header RETRY_COUNT if an SDK around the client repeats it, and warn of the first one."""
    count: str = request.headers.get(RETRY_COUNT.decode(), "")
    if not (count.isascii() and count.isdigit() and count.strip("0")):
        return
    info.count_foreign_retry()
    if first_time("foreign retries", info.name):
        logger.warning(
            "%s: the SDK around this client repeats requests, too, so that its attempts and those of the pipeline "
            "multiply; create its client with max_retries=0",
            info.name or "a pipeline",
        )


def with_verdict(response: Any) -> Any:
    """Return a response that a Retry has given up on, with `x-should-retry: false`, unless the server has said it."""
    if SHOULD_RETRY not in response.headers:
        response.headers[SHOULD_RETRY] = "false"
        response.extensions[http_status.OUR_VERDICT] = True  # so that it is not taken for the server's
    return response


def response_for(error: RejectedError | DeadlineExceededError, request: Any) -> Any:
    """Return a response in place of an error: 503 with Retry-After for a rejection, 504 for a passed deadline."""
    headers = {SHOULD_RETRY: "false", "content-type": "text/plain; charset=utf-8"}
    status = 504 if isinstance(error, DeadlineExceededError) else 503
    retry_after = retry_after_header(error.retry_after) if isinstance(error, RejectedError) else None
    if retry_after is not None:
        headers["retry-after"] = retry_after
    response = httpx_module_of(request).module.Response(
        status, headers=headers, content=f"{error}\n".encode(), request=request
    )
    response.extensions["resilience_error"] = error.with_traceback(None)
    return response
