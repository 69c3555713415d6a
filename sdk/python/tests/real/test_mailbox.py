"""Receiving by calls, looking without taking, messages for later, and those that nobody took."""

from __future__ import annotations

import asyncio

import pytest

import acb

from .world import Dev, soon, until


async def test_what_is_pulled_here_may_be_acknowledged_there(dev: Dev) -> None:
    async with dev.connect("agent-18", replica=0) as here, dev.connect("agent-18", replica=1) as there, dev.connect("asker") as sender:
        for number in range(4):
            await sender.send("agent-18", number)

        async def are_seen() -> bool:
            # By the other replica's mailbox, which is a moment behind.
            return [one.json() async for one in there.unread("asker")] == [0, 1, 2, 3]

        await until("all are unread, in their order", are_seen)
        pullers = [client.puller(receiver="the program") for client in (here, there)]
        seen: list[int] = []
        for turn in range(20):
            pulled = await soon(pullers[turn % 2].pull(2))
            await soon(pullers[(turn + 1) % 2].acknowledge(pulled))
            seen += [one.json(int) for one in pulled if one.json(int) not in seen]
            if len(seen) == 4:
                break
        assert seen == [0, 1, 2, 3]

        async def is_empty() -> bool:
            return (await here.count_unread()).messages == 0

        await until("all of it is acknowledged", is_empty)
        assert await soon(pullers[0].pull(1, wait=0)) == []
        with pytest.raises(acb.Refused, match="RECEIVER_PRESENT"):
            await soon(there.session(take_over=False).open())


async def test_what_is_unread_is_seen_and_not_taken(dev: Dev) -> None:
    async with dev.connect("agent-19") as agent, dev.connect("asker") as sender:
        waiting = asyncio.create_task(agent.wait_for_unread(within=20))
        await sender.send("agent-19", "a", topic="x")
        first = await soon(waiting)
        assert [message.text() for message in first.messages] == ["a"]
        assert (await agent.wait_for_unread(after=first.position, within=0)).messages == ()
        watched = agent.watch_unread(filter="message.topic == 'y'")
        next_one = asyncio.ensure_future(anext(watched))
        await sender.send("agent-19", "b", topic="y")
        assert (await soon(next_one)).text() == "b"
        await watched.aclose()
        count = await agent.count_unread()
        assert (count.messages, count.by_sender, count.more) == (2, {"asker": 2}, False)


async def test_a_message_for_later(dev: Dev) -> None:
    async with dev.connect("agent-20") as agent, agent.session() as session:
        soon_sent = await agent.schedule(acb.Message.to_agent("agent-20", "soon"), 1)
        later = await agent.schedule(acb.Message.to_agent("agent-20", "later", topic="remind"), 3600)
        assert soon_sent.due_at and later.due_at and not later.deduplicated
        listed = {one.message_id: one async for one in agent.scheduled()}
        assert (listed[later.message_id].from_, listed[later.message_id].topic) == ("agent-20", "remind")
        assert await agent.cancel_scheduled(later.message_id) is False
        assert await agent.cancel_scheduled(later.message_id) is True
        with await soon(session.next()) as message:
            assert (message.text(), message.id) == ("soon", soon_sent.message_id)


async def test_dead_letters_are_listed_looked_into_replayed_and_dropped(dev: Dev) -> None:
    async with dev.connect("agent-21") as agent, dev.connect("asker") as sender:
        for text in ("one", "two"):
            await sender.send("agent-21", text, expires_in=1, topic="t")

        async def letters() -> list[acb.DeadLetter]:
            found = [letter async for letter in agent.dead_letters(acb.Letters(from_="asker", reason=acb.DeadLetterReason.EXPIRED))]
            return found if len(found) == 2 else []

        first, second = await until("both are dead letters", letters)
        assert (first.topic, first.sender, first.state, first.recipient) == (
            "t",
            "asker",
            acb.DeadLetterState.OPEN,
            acb.Address(agent="agent-21"),
        )
        letter, message = await agent.dead_letter(first.id)
        assert (letter.id, message.text()) == (first.id, "one")
        async with agent.session() as session:
            (outcome,) = [one async for one in agent.replay_dead_letters(first.id)]
            assert outcome.state is acb.DeadLetterState.REPLAYED and outcome.failure is None and not outcome.before
            with await soon(session.next()) as again:
                assert (again.text(), again.id, again.replayed_from) == ("one", outcome.replayed_as, first.message_id)
        dropped = [one async for one in agent.drop_dead_letters(acb.Letters(from_="asker"))]
        assert [(one.id, one.state) for one in dropped] == [(second.id, acb.DeadLetterState.DROPPED)]
        (unknown,) = [one async for one in agent.drop_dead_letters(["01a1fd2f-5384-735a-94b9-30f93c063dfe"])]
        assert unknown.failure and unknown.failure.reason == "DEAD_LETTER_NOT_FOUND"
        settled = [one.state async for one in agent.dead_letters(acb.Letters(include_settled=True))]
        assert sorted(settled) == [acb.DeadLetterState.REPLAYED, acb.DeadLetterState.DROPPED]
