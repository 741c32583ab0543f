"""How often a request has been sent before, by the context in which its span is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
else:
    SpanProcessor = object

ATTEMPT: Final = context.create_key("resilience-attempt")
"""The key of the present Attempt in a context; there is none in a first attempt."""
_OTHER_PROTOCOLS: Final = ("rpc.system", "rpc.system.name", "db.system", "db.system.name", "messaging.system")
"""The attributes of CLIENT spans that are not those of HTTP requests."""


class Attempt:
    """An attempt of a call, from the second one on.

    Attributes:
        before: the context around it.
        resends: how often the request has been sent before, >= 1.
        is_live: whether it has not ended. Tasks that it has started, and that go on, send requests of their own.
    """

    __slots__ = ("before", "is_live", "resends")

    def __init__(self, before: Context, resends: int) -> None:
        self.before = before
        self.resends = resends
        self.is_live = True


def resends_in(around: Context) -> int:
    """Return how often the requests that are made in a context have been sent before."""
    attempt = around.get(ATTEMPT)
    return attempt.resends if isinstance(attempt, Attempt) and attempt.is_live else 0


class ResendCountProcessor(SpanProcessor):
    """A span processor for the SDK that sets `http.request.resend_count` on the spans of requests that are sent again.

    It sets the number of earlier attempts, >= 1, on each span of the kind CLIENT that is started inside of the second
    or a later attempt of a call, unless its attributes show that it is an RPC, a query of a database, or a message. An
    attempt of a call inside of an attempt of another one counts those before it of both.

        provider.add_span_processor(ResendCountProcessor())

    The spans may be those of any instrumentation that starts them in the current context. The processor has the methods
    of `opentelemetry.sdk.trace.SpanProcessor`, and is one for type checkers, but needs no SDK to be imported.
    """

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        """Set the attribute on a span that starts.

        Args:
            span: the span, of the SDK.
            parent_context: the context that it is started in; None for the current one.
        """
        resends = resends_in(context.get_current() if parent_context is None else parent_context)
        if resends and getattr(span, "kind", None) is SpanKind.CLIENT:
            attributes: Any = getattr(span, "attributes", None) or ()
            if not any(name in attributes for name in _OTHER_PROTOCOLS):
                span.set_attribute("http.request.resend_count", resends)

    def _on_ending(self, span: Any) -> None:
        """Do nothing; the SDK calls it before a span ends."""

    def on_end(self, span: Any) -> None:
        """Do nothing."""

    def shutdown(self) -> None:
        """Do nothing: there is nothing to shut down."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return True: nothing is kept that could be flushed."""
        del timeout_millis
        return True
