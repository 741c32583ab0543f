"""The spans of calls: one for each call through a pipeline, current while it runs, with the events of its policies."""

from __future__ import annotations

import functools
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer, TracerProvider

from resilience._call.call import PipelineInfo
from resilience._call.generator_call import AnyGeneratorCall, Head
from resilience._call.running_call import RunningCall
from resilience._pipeline.observers import ContextGate, Contexts
from resilience._util.clock import clock
from resilience._util.label_values import label_text
from resilience.errors import LateResult
from resilience.events import Event, Outcome
from resilience.events._types import type_name
from resilience.opentelemetry._generators import guard_items
from resilience.opentelemetry._providers import tracer_provider
from resilience.opentelemetry._resend_count import ATTEMPT, Attempt, resends_in
from resilience.opentelemetry._safely import failed, has_interrupted, outside_finalizers
from resilience.opentelemetry._span_events import EVENTS, attributes_of

_CALL: Final = context.create_key("resilience-call")
"""The key of the innermost CallSpan in a context."""
_SUPPRESSED: Final[str] = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
"""The key that is set where nothing is to be traced, such as by exporters, which send spans themselves."""
_ERRORS: Final = frozenset({Outcome.ERROR, Outcome.FAILED, Outcome.REJECTED, Outcome.TIMED_OUT})
"""The outcomes that are errors of the call."""


class CallSpan:
    """The span of a call.

    Args:
        span: the span.
        info: the pipeline.
        before: the context around the call.
        call: the call.

    Attributes:
        outer: the call around it that has not ended yet; None for none.
        resends: how often the requests of its first attempt have been sent before, by attempts of calls around it.
        has_ended: whether the span has ended.
    """

    __slots__ = (
        "_attempts",
        "_call",
        "_calls_made",
        "_started",
        "before",
        "has_ended",
        "info",
        "outer",
        "resends",
        "span",
    )

    def __init__(self, span: Span, info: PipelineInfo, before: Context, call: RunningCall) -> None:
        self.span = span
        self.info = info
        self.before = before
        outer = before.get(_CALL)
        self.outer: CallSpan | None = outer.living() if isinstance(outer, CallSpan) else None
        self.resends = resends_in(before)
        self.has_ended = False
        self._call: RunningCall | None = call
        self._calls_made = call.calls_made
        self._attempts = 0
        self._started = clock.monotonic()

    def time_of_end(self) -> int | None:
        """Return the present time in nanoseconds since the epoch, by the time when the span was started.

        None where the span does not tell that; those of the SDK do.
        """
        started: int | None = getattr(self.span, "start_time", None)
        return None if started is None else started + round((clock.monotonic() - self._started) * 1e9)

    @property
    def attempts(self) -> int:
        """The number of attempts that the call has made so far."""
        return self._attempts if self._call is None else self._call.calls_made - self._calls_made

    def forget_call(self) -> CallSpan:
        """Drop the call, which has returned: a stream that it has left refers to this object. Return this object."""
        self._attempts = self.attempts
        self._call = None
        return self

    def living(self) -> CallSpan | None:
        """Return the innermost, from this one outwards, that has not ended; None if there is none."""
        one: CallSpan | None = self
        while one is not None and one.has_ended:
            one = one.outer
        return one


class Tracing:
    """The spans of all pipelines.

    Args:
        provider: what makes the tracer; None for the global one.
        version: the version of the library.

    Attributes:
        provider: tells whether the provider is there.
    """

    def __init__(self, provider: TracerProvider | None, version: str) -> None:
        self._tracer: Tracer = trace.get_tracer("resilience", version, provider)
        self.provider = tracer_provider(provider)

    @property
    def tracer(self) -> Tracer:
        """What starts the spans."""
        return self._tracer

    def is_active(self) -> bool:
        """Return whether a span of a call around is recorded, so that events are built for it."""
        one = context.get_value(_CALL)
        while isinstance(one, CallSpan):
            if one.span.is_recording():
                return True
            one = one.outer
        return False

    def contexts_of(self, info: PipelineInfo) -> Contexts | None:
        """Return the contexts of a pipeline; None if there will be no spans."""
        provider = self.provider
        return None if provider.never else Contexts(_Calls(self, info), _Attempts(info), provider)

    def listen(self, event: Event) -> None:
        """Add an event to the span of the call that it happened in."""
        own = context.get_value(_CALL)
        found = own.living() if isinstance(own, CallSpan) else None
        while found is not None and found.info.name != event.pipeline:
            found = None if found.outer is None else found.outer.living()
        if found is not None and found.span.is_recording():
            found.span.add_event(EVENTS[type(event)], attributes_of(event))


class _Calls(ContextGate):
    """Makes the calls of one pipeline in the contexts of their spans."""

    def __init__(self, tracing: Tracing, info: PipelineInfo) -> None:
        super().__init__()
        self._tracing = tracing
        self._info = info

    def enter(self, call: RunningCall) -> CallSpan | None:
        """Start the span, and make it the current one; return None where nothing is traced."""
        info = self._info
        try:
            before = context.get_current()
            if before.get(_SUPPRESSED):
                return None
            operation = label_text(call.operation)
            attributes = {"resilience.pipeline": label_text(info.name), "resilience.operation": operation}
            span = self._tracing.tracer.start_span(operation, before, attributes=attributes)
            own = CallSpan(span, info, before, call)
            context.attach(context.set_value(_CALL, own, trace.set_span_in_context(span, before)))
            return own
        except Exception as error:
            failed("tracing", self.enter, error, info.name)
            return None

    def leave(self, token: CallSpan, result: object, error: BaseException | None) -> None:
        """Make what was current before the call current again.

        Not by `detach`, which logs an error where a coroutine is closed in another context than it has run in: there,
        nothing is to be restored.
        """
        del result
        if not isinstance(error, GeneratorExit) or context.get_value(_CALL) is token:
            context.attach(token.before)

    def on_response_head(self, token: CallSpan) -> CallSpan:
        """Keep the span for the end of the stream."""
        return token.forget_call()

    def ended(self, token: CallSpan, outcome: Outcome, error: BaseException | None) -> None:
        """End the span."""
        attributes: dict[str, Any] = {"resilience.outcome": outcome.value, "resilience.attempts": token.attempts}
        if outcome in _ERRORS and isinstance(error, Exception):
            attributes["error.type"] = "timeout" if isinstance(error, LateResult) else label_text(type_name(error))
        token.forget_call()
        at = token.time_of_end() if has_interrupted() else None  # it is written later
        outside_finalizers(functools.partial(self._end, token, attributes, at))

    def _end(self, token: CallSpan, attributes: dict[str, Any], at: int | None) -> None:
        """End the span with these attributes, at a time in nanoseconds since the epoch; None for now."""
        token.has_ended = True
        try:
            if token.span.is_recording():
                token.span.set_attributes(attributes)
                if "error.type" in attributes:
                    token.span.set_status(Status(StatusCode.ERROR))
            token.span.end(at)
        except Exception as error:
            failed("tracing", self.ended, error, self._info.name)


class _Attempts(ContextGate):
    """Makes the attempts of one pipeline in contexts that tell their number, from the second one on."""

    def __init__(self, info: PipelineInfo) -> None:
        super().__init__()
        self._info = info

    def enter(self, call: RunningCall) -> Attempt | None:
        """Enter the context of an attempt; return None if it is that of the call."""
        if call.attempt == 1 and not isinstance(call, AnyGeneratorCall):
            return None
        before = context.get_current()
        own = before.get(_CALL)
        if not isinstance(own, CallSpan) or call.options.pipeline is not self._info:
            return None  # of nested pipelines, the outermost does it
        attempt = Attempt(before, own.resends + call.attempt - 1)
        if call.attempt > 1:
            context.attach(context.set_value(ATTEMPT, attempt, before))
        return attempt

    def leave(self, token: Attempt, result: object, error: BaseException | None) -> None:
        """Leave the context; see `_Calls.leave`. A generator that has begun goes on in the one that it has left."""
        if isinstance(result, Head):
            result.items = guard_items(result.items, context.get_current())
        else:
            token.is_live = False
        if not isinstance(error, GeneratorExit) or context.get_value(ATTEMPT) is token:
            context.attach(token.before)
