"""httpx clients guarded by a pipeline; also those of its fork httpx2. Needs the extra `httpx` or `httpx2`.

    client = resilience.httpx.attach(httpx.Client(base_url=...), pipeline)

Every request, redirects included, is one call of the pipeline: operation is its method, target its host. Bodies that
are streamed keep their permits until they have been read or closed.
"""

from resilience._util.exports import set_public_module as _set_public_module
from resilience.httpx._failures import HTTP_FAILURES, http_failures
from resilience.httpx._transport import AsyncResilientTransport, ResilientTransport, attach

__all__ = ["HTTP_FAILURES", "AsyncResilientTransport", "ResilientTransport", "attach", "http_failures"]

_set_public_module(__name__, __all__, globals())
