"""Questions, answers and handlers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass

import pydantic
import pytest

import acb

from .world import LONG, Dev, soon, until, wire


@dataclass
class Task:
    document: str
    words: int = 0


class Order(pydantic.BaseModel):
    number: int
    items: list[str]


async def test_each_question_gets_its_own_answer_across_replicas(dev: Dev) -> None:
    async with dev.connect("agent-24", replica=0) as librarian:

        @librarian.on("square")
        async def square(number: int) -> int:
            return number * number

        running = asyncio.create_task(librarian.run())
        for replica in (0, 1):
            async with dev.connect("asker", replica=replica) as asker:

                async def ask(number: int, asker: acb.Client = asker) -> None:
                    answer = await asker.request("agent-24", number, topic="square", correlation_id=f"c{number}", within=LONG)
                    assert answer.json(int) == number * number
                    assert (answer.from_, answer.topic, answer.correlation_id) == ("agent-24", "square", f"c{number}")
                    assert (answer.type, answer.failure) == (acb.MessageType.RESPONSE, None)

                await asyncio.gather(*(ask(number) for number in range(30)))
        librarian.stop()
        await soon(running)


async def test_payloads_have_the_types_of_their_handlers(dev: Dev, caplog: pytest.LogCaptureFixture) -> None:
    async with dev.connect("agent-25") as worker, dev.connect("asker") as asker:

        @worker.on("dataclass")
        async def with_dataclass(task: Task, message: acb.Received) -> Task:
            assert message.topic == "dataclass" and acb.correlation_id() == message.correlation_id
            return Task(task.document.upper(), task.words + 1)

        @worker.on("pydantic")
        async def with_pydantic(order: Order) -> Order:
            return Order(number=order.number + 1, items=order.items * 2)

        @worker.on("dict")
        def with_dict(payload: dict[str, int]) -> dict[str, int]:
            # A plain function may block.
            time.sleep(0.05)
            return {key: value + 1 for key, value in payload.items()}

        @worker.on("bytes")
        async def with_bytes(payload: bytes, message: acb.Received) -> None:
            await message.reply(payload[::-1])

        @worker.on("text")
        async def with_text(text: str) -> str:
            return text * 2

        @worker.on("message")
        async def with_message(message: acb.Received) -> acb.Message:
            return acb.Message.failure(f"no {message.topic}")

        @worker.on_other
        async def with_anything(payload):  # type: ignore[no-untyped-def]
            return [payload]

        running = asyncio.create_task(worker.run())

        async def ask(topic: str, payload: object) -> acb.Received:
            return await asker.request("agent-25", payload, topic=topic, within=LONG)

        assert (await ask("dataclass", Task("readme"))).json(Task) == Task("README", 1)
        assert (await ask("dataclass", {"document": "x", "unknown": 1})).json() == {"document": "X", "words": 1}
        assert (await ask("pydantic", Order(number=1, items=["a"]))).json(Order) == Order(number=2, items=["a", "a"])
        assert (await ask("dict", {"a": 1})).json(dict[str, int]) == {"a": 2}
        assert (await ask("bytes", b"ab")).decode() == b"ba"
        assert (await ask("text", "ab")).decode() == "abab"
        assert (await ask("message", None)).failure == "no message"
        assert (await ask("other", None)).json() == [None]
        assert (await ask("other", "é\u0000")).json() == ["é\u0000"]
        # What can't be decoded is not acknowledged, and holds up nothing.
        await asker.send("agent-25", {"words": 3}, topic="dataclass")
        assert (await ask("text", "c")).text() == "cc"
        assert "document is missing" in caplog.text
        worker.stop()
        await soon(running)


async def test_a_handler_that_raises_holds_up_nothing_and_its_message_comes_again(dev: Dev, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "acb")
    async with dev.connect("agent-26") as worker, dev.connect("asker") as asker:
        seen: list[tuple[str, bool]] = []

        @worker.on("fail")
        async def fail(text: str, message: acb.Received) -> None:
            seen.append((text, message.redelivered))
            if not message.redelivered:
                raise RuntimeError("the first time it fails")

        await asker.send("agent-26", "one", topic="fail")
        for expected in ([("one", False)], [("one", False), ("one", True)]):
            running = asyncio.create_task(worker.run())

            async def as_expected(expected: list[tuple[str, bool]] = expected) -> bool:
                return seen == expected

            await until(f"{expected} were handled", as_expected)
            worker.stop()
            await soon(running)
        assert "the first time it fails" in caplog.text and "is not acknowledged" in caplog.text


async def test_handlers_that_block_or_never_return_are_told_of_and_bounded(dev: Dev, caplog: pytest.LogCaptureFixture) -> None:
    async with dev.connect("agent-27") as worker, dev.connect("asker") as asker:

        @worker.on("never")
        async def never(message: acb.Received) -> None:
            await asyncio.Event().wait()

        @worker.on("never-in-a-thread")
        def never_in_a_thread(message: acb.Received) -> None:
            time.sleep(3600)

        @worker.on("blocks")
        async def blocks(message: acb.Received) -> str:
            time.sleep(6.5)  # noqa: ASYNC251 - what must not be done
            return "done"

        running = asyncio.create_task(worker.run(handler_timeout=10))
        answer = await asker.request("agent-27", topic="blocks", within=LONG)
        assert answer.text() == "done" and "the event loop stood still" in caplog.text
        worker.stop()
        await soon(running)
        running = asyncio.create_task(worker.run(handler_timeout=0.2))
        await asker.send("agent-27", topic="never")
        await asker.send("agent-27", topic="never-in-a-thread")

        async def are_bounded() -> bool:
            return caplog.text.count("took longer than") == 2

        await until("both are cancelled", are_bounded)
        worker.stop()
        await soon(running)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_what_is_being_handled_comes_to_its_end_where_the_client_closes(dev: Dev, concurrency: int) -> None:
    async with dev.connect("asker") as asker:
        begun = asyncio.Event()
        async with dev.connect("agent-48") as worker:

            @worker.on("ends")
            async def ends(number: int) -> int:
                begun.set()
                await asyncio.sleep(0.5)
                return number + 1

            @worker.on("closes")
            async def closes(message: acb.Received) -> None:
                message.ack()
                await worker.close()

            running = asyncio.create_task(worker.run(concurrency=concurrency))
            asking = asyncio.create_task(asker.request("agent-48", 1, topic="ends", within=LONG))
            await soon(begun.wait())
        assert (await soon(asking)).json() == 2
        await soon(running)
        async with dev.connect("agent-48") as worker:
            assert (await worker.count_unread()).messages == 0 or await until_nothing_is_unread(worker)
            worker._handlers.on("closes")(closes)
            running = asyncio.create_task(worker.run(concurrency=concurrency))
            await asker.send("agent-48", topic="closes")
            # A handler may close its own client.
            await soon(running)


async def until_nothing_is_unread(agent: acb.Client) -> bool:
    async def look() -> bool:
        return (await agent.count_unread()).messages == 0

    return await until("nothing is unread", look)


async def test_several_at_a_time(dev: Dev) -> None:
    async with dev.connect("agent-28") as worker, dev.connect("asker") as asker:
        together = asyncio.Barrier(3)

        @worker.on("meet")
        async def meet(number: int) -> int:
            async with asyncio.timeout(LONG):
                await together.wait()
            return number

        running = asyncio.create_task(worker.run(concurrency=3))
        answers = await asyncio.gather(*(asker.request("agent-28", number, topic="meet", within=LONG) for number in range(3)))
        assert [answer.json() for answer in answers] == [0, 1, 2]
        worker.stop()
        await soon(running)


async def test_an_answer_that_does_not_come_or_comes_too_late(dev: Dev) -> None:
    async with dev.connect("agent-29") as slow, dev.connect("asker") as asker, slow.session() as session:
        began = time.monotonic()
        with pytest.raises(acb.Refused) as refused:
            await asker.request("agent-29", "first", within=0.7)
        assert (refused.value.code, refused.value.reason) == (acb.Code.DEADLINE_EXCEEDED, "NO_REPLY")
        assert 0.7 <= time.monotonic() - began < LONG and refused.value.correlation_id
        late = await soon(session.next())
        asking = asyncio.create_task(asker.request("agent-29", "second", within=LONG))
        second = await soon(session.next())
        with pytest.raises(acb.Refused, match="REQUEST_OVER"):
            await late.reply("late")
        await second.reply("in time")
        late.ack()
        second.ack()
        assert (await soon(asking)).text() == "in time"
        with pytest.raises(acb.Refused, match="RECIPIENT_NOT_FOUND"):
            await asker.request("nobody", within=LONG)


async def test_an_answer_may_come_later_to_the_mailbox(dev: Dev) -> None:
    async with dev.connect("agent-30") as asker, dev.connect("agent-31") as worker, worker.session() as session, asker.session() as mailbox:
        await asker.send("agent-31", "?", topic="later", reply_to="agent-30", correlation_id="7")
        with await soon(session.next()) as question:
            await question.reply("!")
        with await soon(mailbox.next()) as answer:
            assert (answer.text(), answer.correlation_id, answer.topic) == ("!", "7", "later")


async def test_a_caller_that_goes_leaves_nothing_behind(dev: Dev) -> None:
    async with dev.connect("asker") as asker:
        before = asyncio.all_tasks()
        asking = asyncio.create_task(asker.request("agent-32", "?", within=LONG))
        await asyncio.sleep(0.3)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert asyncio.all_tasks() == before
        assert (await soon(asker.agent("asker"))).name == "asker"


async def test_a_request_whose_time_is_over_is_not_made_again(dev: Dev) -> None:
    async with dev.connect("agent-49", retry_for=30) as asker:
        await asker.agent("agent-49")
        began = time.monotonic()
        with pytest.raises(acb.Error) as over:
            await asker.request("agent-50", "?", within=1e-6)
        assert over.value.code is acb.Code.DEADLINE_EXCEEDED and time.monotonic() - began < 3


async def test_a_call_has_no_more_than_its_time_where_replicas_stand_still(dev: Dev) -> None:
    async with wire(dev.endpoints("acme")[0]) as line, dev.connect("agent-49", retry_for=6, through=line.address) as asker:

        async def timed(call: Awaitable[object]) -> float:
            began = time.monotonic()
            with pytest.raises(acb.Error) as over:
                await call
            assert over.value.is_retryable
            return time.monotonic() - began

        await asker.send("agent-50", "x")
        line.stall()
        # The connection stands still, and so do those that are made in its place.
        took = await asyncio.gather(timed(asker.request("agent-50", "?", within=1)), *(timed(asker.send("agent-50", "x")) for _ in range(6)))
        assert took[0] < 3 and max(took) < 8, took
        line.cut()
        took = await asyncio.gather(timed(asker.request("agent-50", "?", within=1)), *(timed(asker.send("agent-50", "x")) for _ in range(6)))
        assert took[0] < 3 and max(took) < 8, took
