"""Handlers that are plain functions, and outlive their time."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import acb
from acb import _handler, _wire
from acb._handler import Handlers
from acb._inbox import Inbox
from acb._message import Received


def received(inbox: Inbox, number: int, topic: str = "slow") -> Received:
    ticket = inbox.admit(f"m{number}", f"d{number}", False)
    nobody: Any = None
    return Received(_wire.new("Message", id=f"m{number}", topic=topic, payload=b"1"), nobody, ticket, redelivered=False, attempt=1)


async def test_threads_that_outlive_their_time_are_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(_handler, "MOST_LATE", 2)
    handlers, inbox, may_end = Handlers(), Inbox(lambda: None), threading.Event()
    started: list[int] = []

    @handlers.on("slow")
    def slow(number: int) -> None:
        started.append(number)
        may_end.wait(30)

    @handlers.on("other")
    async def other(number: int) -> None:
        """It needs no thread."""

    for number in range(2):
        await asyncio.wait_for(handlers.handle(received(inbox, number), 0.05), 5)
    assert len(started) == 2
    third = asyncio.create_task(handlers.handle(received(inbox, 2), 5))
    await asyncio.wait_for(handlers.handle(received(inbox, 3, "other"), 5), 5)
    await asyncio.sleep(0.05)
    assert len(started) == 2 and not third.done() and "2 threads of handlers run on after their time" in caplog.text
    stopped = asyncio.Event()
    fourth = asyncio.create_task(handlers.handle(received(inbox, 4), 5, None, stopped))
    await asyncio.sleep(0.01)
    stopped.set()
    await asyncio.wait_for(fourth, 5)
    may_end.set()
    await asyncio.wait_for(third, 5)
    assert len(started) == 3 and inbox.take_acks() == ["d3", "d2"]


async def test_what_a_payload_held_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    handlers, inbox = Handlers(), Inbox(lambda: None)

    @handlers.on("slow")
    async def slow(text: dict[str, str]) -> None:
        """It never comes here."""

    one = received(inbox, 1)
    one.wire().payload = b'{"hunter2": 1}'
    await handlers.handle(one)
    assert "a string is wanted" in caplog.text and "hunter2" not in caplog.text and acb.PayloadError.__name__ in caplog.text
