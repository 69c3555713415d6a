"""The client without `await`; forks, and event loops that go away."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import signal
import threading
import time

import pytest

import acb
import acb.sync

from .world import LONG, Dev, soon


def connect(dev: Dev, agent: str) -> acb.sync.Client:
    return acb.sync.connect(**dev.options(agent))


def test_the_client_of_notebooks_does_the_same(dev: Dev) -> None:
    with connect(dev, "author") as author, connect(dev, "agent-33") as worker:
        threads_before = threading.active_count()

        @worker.on("up")
        def up(text: str, message: acb.sync.Received) -> None:
            message.reply(text.upper())

        @worker.on("stop")
        def stop(message: acb.sync.Received) -> str:
            worker.stop()
            return "stopping"

        running = threading.Thread(target=worker.run)
        running.start()
        assert author.request("agent-33", "abc", topic="up", within=LONG).text() == "ABC"
        assert author.request("agent-33", topic="stop", within=LONG).text() == "stopping"
        running.join(LONG)
        assert not running.is_alive()

        with author.session(receive=False) as out:
            receipts = [out.enqueue("agent-33", number) for number in range(20)]
            assert all(receipt.result().message_id for receipt in receipts) and out.replica
        numbers = []
        for message in worker.messages():
            with message:
                numbers.append(message.json(int))
            if len(numbers) == 20:
                break
        assert numbers == list(range(20))
        with worker.session() as inbox:
            author.send(["agent-33", "agent-34"], "both")
            inbox.next().ack()

        context = author.share("documents", "x", metadata={"sync": "yes"})
        assert author.context(context.id).payload == b"x" and author.update(context, "y").version == 2
        author.set_access(context.id, acb.Scope.private())
        with author.subscribe("documents", filter='context.metadata["sync"] == "yes"') as documents:
            author.delete_context(context.id)
            # What changed right before may still be told.
            kinds = [next(kind for kind in (event.kind for event in documents) if kind is acb.EventKind.DELETED)]
            assert kinds and documents.positions
        uploaded = author.upload("documents", os.urandom(2 << 20))
        target = io.BytesIO()
        assert author.download(uploaded.context.id, target).sha256 == uploaded.sha256
        assert author.payload(uploaded.context.id) == target.getvalue()
        assert uploaded.context.id in [one.id for one in author.contexts("documents")]

        assert author.announce().name == "author" and "author" in [one.name for one in author.agents()]
        assert author.agent("author").name == "author" and [one.name for one in author.discover(type="author")] == ["author"]
        with author.heartbeats():
            assert author.usage() and author.credentials()
        scheduled = author.schedule(acb.Message.to_agent("agent-33", "later"), 3600)
        assert [one.message_id for one in author.scheduled()] == [scheduled.message_id]
        assert author.cancel_scheduled(scheduled.message_id) is False
        author.send("agent-33", "pulled", topic="t")
        puller = worker.puller()
        pulled = puller.pull(10)
        puller.acknowledge(pulled)
        assert [one.text() for one in pulled] == ["pulled"] and list(worker.dead_letters()) == []
        with pytest.raises(acb.Refused, match="RECIPIENT_NOT_FOUND"):
            author.send("nobody", "x")
        with acb.correlated("notebook-1"), pytest.raises(acb.Refused) as refused:
            author.agent("nobody")
        assert refused.value.correlation_id == "notebook-1", "the loop works in the context of its caller"
        del inbox, documents
    assert threading.active_count() <= threads_before
    with pytest.raises(acb.UsageError, match="the client is closed"):
        author.send("agent-33", "x")
    author.close()


def test_every_method_is_there_without_await() -> None:
    there = {name for name, _ in inspect.getmembers(acb.sync.Client) if not name.startswith("_")}
    wanted = {name for name, _ in inspect.getmembers(acb.Client) if not name.startswith("_")}
    assert wanted - there == {"endpoint", "replica", "audit_inclusion", "audit_consistency", "audit_prefix"}
    for name in sorted(wanted & there - {"session", "messages", "run", "heartbeats", "identity", "tokens", "close", "subscribe"}):
        one, other = (inspect.signature(getattr(kind, name)) for kind in (acb.Client, acb.sync.Client))
        assert list(one.parameters.values()) == list(other.parameters.values()), name


def test_a_fork_is_noticed_in_the_child(dev: Dev) -> None:
    with connect(dev, "agent-35") as agent:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            said = "nothing was raised"
            try:
                agent.send("agent-35", "x")
            except acb.UsageError as error:
                said = str(error)
            finally:
                os.write(writer, said.encode())
                # Without what the parent has to clean up.
                os._exit(0)
        os.close(writer)
        deadline = time.monotonic() + LONG
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        with os.fdopen(reader) as pipe:
            assert "forked after the client connected" in pipe.read()
        assert agent.send("agent-35", "x").message_id, "the parent goes on"


def test_an_interrupt_ends_a_call_and_not_the_client(dev: Dev) -> None:
    with connect(dev, "agent-36") as agent:
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            agent.request("agent-37", "nobody answers", within=LONG)
        assert agent.agent("agent-36").name == "agent-36"


def test_a_handler_that_waits_for_its_own_loop_is_told(dev: Dev) -> None:
    with connect(dev, "agent-38") as agent, connect(dev, "asker") as asker:

        @agent.on("wrong")
        async def wrong(message: acb.sync.Received) -> str:
            try:
                message.reply("deadlock")
            except acb.UsageError as error:
                return str(error)
            return "nothing was raised"

        running = threading.Thread(target=agent.run)
        running.start()
        assert "plain function" in asker.request("agent-38", topic="wrong", within=LONG).text()
        agent.stop()
        running.join(LONG)


def test_an_event_loop_that_ends_in_mid_call_leaves_nothing_that_hangs(dev: Dev) -> None:
    kept: list[acb.Client] = []

    async def connects_and_goes() -> None:
        agent = await dev.connect("agent-39")
        kept.append(agent)
        await agent.session().open()
        kept.append(asyncio.create_task(agent.request("agent-40", "?", within=LONG)))  # type: ignore[arg-type]
        await asyncio.sleep(0.3)

    began = time.monotonic()
    asyncio.run(connects_and_goes())
    assert time.monotonic() - began < LONG / 2

    async def uses_it() -> None:
        await kept[0].send("agent-40", "x")

    with pytest.raises(acb.UsageError, match="another event loop"):
        asyncio.run(uses_it())


async def test_a_client_that_is_closed_under_its_calls_says_so(dev: Dev) -> None:
    agent = await dev.connect("agent-41")
    session = await agent.session().open()
    asking = asyncio.create_task(agent.request("agent-42", "?", within=LONG))
    reading = asyncio.create_task(session.next())
    await asyncio.sleep(0.3)
    await soon(agent.close())
    with pytest.raises(acb.Unavailable):
        await soon(reading)
    with pytest.raises(acb.Unavailable, match="closed"):
        await soon(asking)
    with pytest.raises(acb.UsageError, match="the client is closed"):
        await agent.send("agent-42", "x")
    await agent.close()
