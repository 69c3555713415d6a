"""Messages between agents, as two programs see them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import acb

from .world import Dev, soon, until, wire


async def test_messages_come_in_the_order_in_which_they_were_sent(dev: Dev) -> None:
    async with dev.connect("agent-0", replica=0) as sender, dev.connect("agent-1", replica=1) as receiver:
        async with sender.session(receive=False) as session:
            receipts = [await session.enqueue("agent-1", number, topic="n") for number in range(300)]
            sent = [(await soon(receipt)).message_id for receipt in receipts]
        received = []
        async for message in receiver.messages():
            received.append(message)
            message.ack()
            if len(received) == len(sent):
                break
        assert [message.json(int) for message in received] == list(range(300))
        assert [message.id for message in received] == sent
        first = received[0]
        assert (first.from_, first.topic, first.type, first.content_type) == ("agent-0", "n", acb.MessageType.EVENT, acb.JSON)
        assert (first.redelivered, first.attempt, first.to) == (False, 1, acb.Address(agent="agent-1"))
        assert first.correlation_id == first.id or first.correlation_id
        assert first.sent_at is not None and first.time_left.days >= 5


async def test_a_message_says_all_that_was_said(dev: Dev) -> None:
    async with dev.connect("agent-2") as sender, dev.connect("agent-3") as receiver, receiver.session() as session:
        message = acb.Message.to_agents(
            ["agent-3", "agent-2"],
            b"\x00\xff",
            topic="all",
            type=acb.MessageType.COMMAND,
            content_type="image/x",
            context_id="01a1fd2f-5384-735a-94b9-30f93c063dfe",
            correlation_id="order-1",
            reply_to="asker",
            metadata={"priority": "high"},
            expires_in=60,
            idempotency_key="once",
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        first, second = await soon(sender.send(message)), await soon(sender.send(message))
        assert (first.deduplicated, second.deduplicated, second.message_id) == (False, True, first.message_id)
        got = await soon(session.next())
        got.ack()
        assert (got.id, got.payload, got.type, got.content_type) == (first.message_id, b"\x00\xff", acb.MessageType.COMMAND, "image/x")
        assert (got.context_id, got.correlation_id) == ("01a1fd2f-5384-735a-94b9-30f93c063dfe", "order-1")
        assert (got.reply_to, got.metadata, got.idempotency_key) == (acb.Address(agent="asker"), {"priority": "high"}, "once")
        assert set(got.to.agents) == {"agent-2", "agent-3"}
        assert got.traceparent.startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-") and 0 < got.time_left.total_seconds() <= 60


async def test_what_the_hub_refuses_has_its_reason_and_stops_nothing_behind_it(dev: Dev) -> None:
    async with dev.connect("agent-4") as agent, agent.session(receive=False) as session:
        with pytest.raises(acb.Refused) as refused:
            await soon(agent.send("nobody", "x"))
        error = refused.value
        assert (error.code, error.reason, error.is_retryable) == (acb.Code.NOT_FOUND, "RECIPIENT_NOT_FOUND", False)
        assert error.correlation_id and str(error).startswith("send: ") and str(error).endswith("(RECIPIENT_NOT_FOUND)")
        recipients = ["agent-4", "nobody", "agent-4", "nobody", "nobody", "agent-4"]
        receipts = [await soon(session.enqueue(recipient, "x")) for recipient in recipients]
        for recipient, receipt in zip(recipients, receipts, strict=True):
            if recipient == "nobody":
                with pytest.raises(acb.Refused, match="RECIPIENT_NOT_FOUND"):
                    await soon(receipt)
            else:
                assert (await soon(receipt)).message_id
        assert (await soon(session.send("agent-4", "x"))).message_id


async def test_a_key_that_was_used_for_another_message_fails_alone(dev: Dev) -> None:
    async with dev.connect("agent-4") as agent:
        await soon(agent.send("agent-4", "one", idempotency_key="k"))
        with pytest.raises(acb.Refused) as refused:
            await soon(agent.send("agent-4", "two", idempotency_key="k"))
        assert refused.value.code is acb.Code.ALREADY_EXISTS


async def test_a_group_and_all(dev: Dev) -> None:
    async with dev.connect("supervisor") as sender, dev.connect("worker-a") as one, dev.connect("worker-b") as other:
        await soon(sender.send(acb.Address(group="workers"), "group"))
        for worker in (one, other):
            async with worker.session() as session:
                with await soon(session.next()) as message:
                    assert (message.text(), message.to) == ("group", acb.Address(group="workers"))
    # In the tenant that has but two agents: nobody else's test hears it.
    async with dev.connect("sender", "fragile") as sender, dev.connect("receiver", "fragile") as receiver, receiver.session() as session:
        await soon(sender.send(acb.Message.to_all("all", topic="t")))
        with await soon(session.next()) as message:
            assert (message.text(), message.to) == ("all", acb.Address(all=True))


async def test_a_newer_session_ends_the_older_unless_it_is_told_not_to(dev: Dev) -> None:
    async with dev.connect("agent-5") as agent, agent.session() as older, agent.session():
        with pytest.raises(acb.Refused) as ended:
            await soon(older.next())
        assert (ended.value.code, ended.value.reason) == (acb.Code.ABORTED, "SESSION_REPLACED")
        with pytest.raises(acb.Refused) as refused:
            await soon(agent.session(take_over=False).open())
        assert refused.value.reason == "RECEIVER_PRESENT"


async def test_a_session_goes_on_where_the_program_that_took_over_is_gone_and_ends_where_that_one_stays(dev: Dev) -> None:
    async with (
        wire(dev.endpoints("acme")[0]) as one,
        dev.connect("agent-51", replica=0, through=one.address) as agent,
        dev.connect("agent-51") as other,
    ):
        async with dev.connect("agent-52") as sender, agent.session() as session:

            @asynccontextmanager
            async def outrun() -> AsyncIterator[None]:
                """Another program takes over while this one is cut off, and this one looks for its place for a while."""
                one.stall()
                one.cut()
                async with other.session():
                    before = one.connections
                    one.resume()
                    one.cut()

                    async def is_back() -> bool:
                        return one.connections > before

                    await until("it connects again", is_back)
                    yield

            async with outrun():
                # Longer than a hub waits for the other one to end.
                await asyncio.sleep(4)
            await soon(sender.send("agent-51", "still there"))
            with await soon(session.next()) as message:
                assert message.text() == "still there"
            async with outrun():
                began = time.monotonic()
                with pytest.raises(acb.Refused) as refused:
                    await soon(session.next())
                assert refused.value.reason == "RECEIVER_PRESENT"
                assert time.monotonic() - began > 10


async def test_a_session_gets_what_it_asks_for_and_leaves_the_rest_unread(dev: Dev) -> None:
    async with dev.connect("agent-6") as sender, dev.connect("agent-7") as picky:
        for topic, number in (("orders", 1), ("news", 2), ("orders", 3)):
            await soon(sender.send("agent-7", number, topic=topic))
        async with picky.session(filter="message.topic == 'orders'") as session:
            for expected in (1, 3):
                with await soon(session.next()) as message:
                    assert message.json(int) == expected
        async with picky.session() as session:
            with await soon(session.next()) as message:
                assert message.json(int) == 2
        with pytest.raises(acb.Refused) as refused:
            await soon(picky.session(filter="message.topik == 'orders'").open())
        assert (refused.value.code, refused.value.reason) == (acb.Code.INVALID_ARGUMENT, "FILTER_INVALID")


async def test_what_is_not_acknowledged_comes_again_to_the_next_session(dev: Dev) -> None:
    async with dev.connect("agent-8") as sender, dev.connect("agent-9") as receiver:
        await soon(sender.send("agent-9", "twice"))
        async with receiver.session() as session:
            with pytest.raises(ZeroDivisionError), await soon(session.next()):
                1 / 0  # noqa: B018
        async with receiver.session() as session:
            with await soon(session.next()) as again:
                assert (again.text(), again.redelivered) == ("twice", True)

        async def is_taken() -> bool:
            return (await receiver.count_unread()).messages == 0

        await until("it is acknowledged", is_taken)


async def test_a_session_goes_on_where_its_connection_is_cut(dev: Dev) -> None:
    async with wire(dev.endpoints("acme")[0]) as line, dev.connect("agent-10", replica=0, through=line.address) as receiver:
        async with dev.connect("agent-11") as sender, sender.session(receive=False) as out, receiver.session(max_unacknowledged=1000) as session:
            seen: list[acb.Received] = []
            receipts = []
            for number in range(200):
                receipts.append(await out.enqueue("agent-10", number))
                if number % 50 == 25:
                    seen.append(await soon(session.next()))
                    line.cut()
            for receipt in receipts:
                await soon(receipt)
            while len(seen) < 200:
                seen.append(await soon(session.next()))
            for message in seen:
                message.ack()
            assert sorted(message.json(int) for message in seen) == list(range(200)), "each came once"
            fresh = [message.json(int) for message in seen if not message.redelivered]
            assert fresh == sorted(fresh) and line.connections >= 2


async def test_a_sender_whose_connection_is_cut_loses_nothing_and_sends_nothing_twice(dev: Dev) -> None:
    async with wire(dev.endpoints("acme")[1]) as line, dev.connect("agent-12", replica=1, through=line.address) as sender:
        async with dev.connect("agent-13") as receiver, receiver.session() as session, sender.session(receive=False) as out:
            receipts = []
            for number in range(150):
                receipts.append(await soon(out.enqueue("agent-13", number)))
                if number % 40 == 20:
                    line.cut()
            for receipt in receipts:
                await soon(receipt)
            seen: list[int] = []
            while len(seen) < 150:
                with await soon(session.next()) as message:
                    seen.append(message.json(int))
            assert seen == list(range(150))


async def test_a_line_that_stands_still_is_left(dev: Dev, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "acb")
    async with wire(dev.endpoints("acme")[0]) as line, dev.connect("agent-14", replica=0, through=line.address) as receiver:
        async with dev.connect("agent-15") as sender, receiver.session() as session:
            line.stall()
            await soon(sender.send("agent-14", "late"))
            waiting = asyncio.create_task(session.next())

            async def is_left() -> bool:
                # The keepalive finds out within 15 s. A new connection stands still, too.
                return line.connections > 1

            await until("the client turned away from it", is_left)
            line.resume()
            with await soon(waiting) as message:
                assert message.text() == "late"
        assert "session reconnected" in caplog.text


async def test_closing_hands_over_what_is_left(dev: Dev) -> None:
    async with dev.connect("agent-16") as agent:
        async with agent.session() as session:
            receipts = [await session.enqueue("agent-16", number) for number in range(50)]
            with await soon(session.next()):
                pass
        for receipt in receipts:
            assert (await soon(receipt)).message_id, "it was sent before the session ended"
        with pytest.raises(acb.Unavailable, match="the session is closed"):
            await session.send("agent-16", "late")
        assert (await until_unread(agent, 49)) == 49


async def until_unread(agent: acb.Client, count: int) -> int:
    async def look() -> bool:
        return (await agent.count_unread()).messages == count

    await until(f"{count} are unread", look)
    return count


async def test_a_month_that_is_used_up_is_not_waited_for(dev: Dev) -> None:
    async with dev.connect("limited") as agent, agent.session(receive=False) as session:
        for _ in range(3):
            await soon(agent.send("agent-17", "x"))
        for send in (agent.send("agent-17", "x"), session.send("agent-17", "x")):
            with pytest.raises(acb.Refused) as refused:
                await soon(send)
            assert (refused.value.code, refused.value.reason) == (acb.Code.RESOURCE_EXHAUSTED, "MONTHLY_LIMIT_EXCEEDED")
            assert refused.value.retry_after is not None
