"""Traces go along with messages, with OpenTelemetry and without."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import acb
from acb import _telemetry

from .world import LONG, Dev, soon

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    provider.shutdown()


async def test_one_trace_leads_from_the_sender_to_the_answer(dev: Dev, spans: InMemorySpanExporter) -> None:
    async with dev.connect("agent-46") as worker, dev.connect("asker") as asker:

        @worker.on("traced")
        async def traced(text: str) -> str:
            return text

        @worker.on("fails")
        async def fails(text: str) -> None:
            worker.stop()
            raise RuntimeError("on purpose")

        running = asyncio.create_task(worker.run())
        with trace.get_tracer("test").start_as_current_span("work") as work:
            answer = await asker.request("agent-46", "x", topic="traced", correlation_id="c1", within=LONG)
            await asker.send("agent-46", "x", topic="fails")
        await soon(running)
        made = [span for span in spans.get_finished_spans() if span.context and span.context.trace_id == work.get_span_context().trace_id]

        def one(name: str, index: int = 0) -> ReadableSpan:
            return [span for span in made if span.name == name][index]

        created, processed = one("create traced"), one("process traced")
        assert created.kind is trace.SpanKind.PRODUCER and processed.kind is trace.SpanKind.CONSUMER
        assert processed.parent and created.context and processed.parent.span_id == created.context.span_id
        assert [link.context.span_id for link in processed.links] == [created.context.span_id]
        assert processed.attributes and processed.attributes["messaging.message.conversation_id"] == "c1"
        assert answer.traceparent.split("-")[1] == f"{work.get_span_context().trace_id:032x}"
        assert not one("process fails").status.is_ok


async def test_without_opentelemetry_a_handler_goes_on_with_the_trace(dev: Dev, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_telemetry, "_otel", None)
    async with dev.connect("agent-47") as worker, dev.connect("asker") as asker:

        @worker.on("traced")
        async def traced(text: str) -> str:
            present = _telemetry.present()
            return present.traceparent if present else ""

        running = asyncio.create_task(worker.run())
        with acb.traced(PARENT, "a=b"):
            answer = await asker.request("agent-47", "x", topic="traced", within=LONG)
        assert answer.text().split("-")[1] == PARENT.split("-")[1] == answer.traceparent.split("-")[1]
        with acb.traced("no header\n"):
            assert _telemetry.headers() == []
        worker.stop()
        await soon(running)
