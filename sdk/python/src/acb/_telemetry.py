"""The W3C trace context of what is being done: it goes along with calls and messages. Spans of OpenTelemetry, where its API is installed.

Names and attributes follow OpenTelemetry's conventions for messaging. Spans go where the application has its global provider send them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

try:
    from opentelemetry import trace as _otel
except ImportError:  # The extra `opentelemetry`.
    _otel = None  # type: ignore[assignment]

_TRACER = "acb-sdk"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The two texts of W3C."""

    traceparent: str = ""
    tracestate: str = ""


_CONTEXT: ContextVar[TraceContext | None] = ContextVar("acb_trace", default=None)


@contextmanager
def traced(traceparent: str, tracestate: str = "") -> Iterator[None]:
    """Has all that is done in it be part of a trace: each call, and each message that names no other.

    Handlers run as part of that of their message. With the extra `opentelemetry` the current span of OpenTelemetry comes first.
    """
    token = _CONTEXT.set(TraceContext(traceparent, tracestate))
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def _text(context: Any) -> TraceContext | None:
    if not context.is_valid:
        return None
    return TraceContext(
        f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}",
        context.trace_state.to_header(),
    )


def present() -> TraceContext | None:
    """What the present work is part of."""
    if _otel is not None and (current := _text(_otel.get_current_span().get_span_context())) is not None:
        return current
    named = _CONTEXT.get()
    return named if named is not None and named.traceparent else None


def headers() -> list[tuple[str, str]]:
    """Says on a request what it is part of. What is no header can't be said."""
    context = present()
    if context is None:
        return []
    entries = (("traceparent", context.traceparent), ("tracestate", context.tracestate))
    return [(name, value) for name, value in entries if value and all(" " <= character <= "~" for character in value)]


def _attributes(operation: str, topic: str, correlation_id: str) -> dict[str, str]:
    named = {"messaging.destination.name": topic, "messaging.message.conversation_id": correlation_id}
    return {"messaging.system": "acb", "messaging.operation.name": operation} | {key: value for key, value in named.items() if value}


def fill(message: Any) -> None:
    """Says in a message what it is part of, where it says nothing else. Tells that it was made: what becomes of it is part of that."""
    if message.traceparent:
        return
    context = None
    if _otel is not None:
        name = f"create {message.topic}".strip()
        facts = _attributes("create", message.topic, message.correlation_id)
        span = _otel.get_tracer(_TRACER).start_span(name, kind=_otel.SpanKind.PRODUCER, attributes=facts)
        context = _text(span.get_span_context())
        span.end()
    context = context or present()
    if context is not None:
        message.traceparent, message.tracestate = context.traceparent, context.tracestate


@contextmanager
def handled(message: Any) -> Iterator[None]:
    """Handles a message as part of the trace of its sender, which is linked, too: in a trace that is cut apart it is still found."""
    with traced(message.traceparent, message.tracestate):
        if _otel is None:
            yield
            return
        sender = _parse(message.traceparent, message.tracestate)
        around = None if sender is None else _otel.set_span_in_context(_otel.NonRecordingSpan(sender))
        facts = _attributes("process", message.topic, message.correlation_id) | {"messaging.message.id": message.id}
        # It sets the span's status where the handler raises.
        with _otel.get_tracer(_TRACER).start_as_current_span(
            f"process {message.topic}".strip(),
            context=around,
            kind=_otel.SpanKind.CONSUMER,
            attributes=facts,
            links=[] if sender is None else [_otel.Link(sender)],
        ):
            yield


def _parse(traceparent: str, tracestate: str) -> Any:
    parts = traceparent.split("-")
    if len(parts) < 4:
        return None
    try:
        numbers = [int(part, 16) for part in parts[1:4]]
        state = _otel.TraceState.from_header([tracestate]) if tracestate else None
    except ValueError:
        return None
    context = _otel.SpanContext(numbers[0], numbers[1], is_remote=True, trace_flags=_otel.TraceFlags(numbers[2] & 255), trace_state=state)
    return context if context.is_valid else None
