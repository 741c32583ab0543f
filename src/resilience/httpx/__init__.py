"""Clients and transports of httpx, or of its fork httpx2, that pass requests through a pipeline.

    client = resilience.httpx.attach(httpx.Client(base_url=...), pipeline)

Every request, redirects included, is one call of the pipeline. Its operation is the method and its target is the host,
unless `bind` of the pipeline names others. A streamed body holds its permits until it has been read or closed; one that
has arrived together with its head holds none. Requires the extra `httpx` or `httpx2`.
"""

from resilience._util.exports import set_public_module as _set_public_module
from resilience.httpx._attach import attach
from resilience.httpx._failures import HTTP_FAILURES, http_failures
from resilience.httpx._idempotency import IdempotencyKey
from resilience.httpx._install import install, uninstall
from resilience.httpx._options import options
from resilience.httpx._transport import AsyncResilientTransport, ResilientTransport

__all__ = [
    "HTTP_FAILURES",
    "AsyncResilientTransport",
    "IdempotencyKey",
    "ResilientTransport",
    "attach",
    "http_failures",
    "install",
    "options",
    "uninstall",
]

_set_public_module(__name__, __all__, globals())
