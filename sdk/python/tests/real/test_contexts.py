"""Contexts through their versions, and those who follow some of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import acb

from .world import Dev, soon, until, wire


async def test_a_context_through_its_versions(dev: Dev) -> None:
    async with dev.connect("author") as author, dev.connect("reader") as reader:
        context = await author.share("documents", {"title": "Plan"}, metadata={"state": "draft", "n": "1"}, ttl=3600)
        assert (context.version, context.content_type, context.creator, context.size) == (1, acb.JSON, "author", 16)
        assert context.expires_at and timedelta(minutes=50) < context.expires_at - datetime.now(UTC) < timedelta(minutes=70)
        read = await reader.context(context.id)
        assert (read.payload, read.metadata) == (b'{"title":"Plan"}', {"state": "draft", "n": "1"})
        second = await author.update(read, "final", metadata={"state": "final", "n": None}, content_type="text/x")
        assert (second.version, second.metadata, second.content_type, second.expires_at) == (2, {"state": "final"}, "text/x", context.expires_at)
        with pytest.raises(acb.UsageError, match="without its payload"):
            await author.update(second, metadata={"more": "x"})
        third = await author.update(await author.context(context.id), metadata={"more": "x"})
        assert ((await reader.context(context.id)).payload, third.version) == (b"final", 3)
        with pytest.raises(acb.Refused) as stale:
            await author.update(read, "too late")
        assert (stale.value.code, stale.value.reason) == (acb.Code.ABORTED, "CONTEXT_VERSION_CONFLICT")
        with pytest.raises(acb.Refused, match=r"DENIED|NOT"):
            await reader.update(third, "not mine")
        await author.delete_context(context.id)
        with pytest.raises(acb.Refused) as gone:
            await reader.context(context.id)
        assert gone.value.code is acb.Code.NOT_FOUND


async def test_who_may_read_is_said_and_changed(dev: Dev) -> None:
    async with dev.connect("author") as author, dev.connect("reader") as reader, dev.connect("worker-a") as worker:

        async def sees(agent: acb.Client, id: str) -> bool:
            try:
                await agent.context(id)
            except acb.Refused as error:
                assert error.code is acb.Code.NOT_FOUND
                return False
            return True

        scopes = [
            (acb.Scope.private(), (False, False)),
            (acb.Scope.to_groups("workers"), (False, True)),
            (acb.Scope.to_agents("reader"), (True, False)),
            (acb.Scope.public(), (True, True)),
        ]
        for scope, (by_reader, by_worker) in scopes:
            context = await author.share("documents", "x", scope=scope)
            assert context.access == scope
            assert (await sees(reader, context.id), await sees(worker, context.id)) == (by_reader, by_worker)
        changed = await author.set_access(context.id, acb.Scope.private())
        assert (changed.version, changed.access) == (2, acb.Scope.private()) and not await sees(reader, context.id)


async def test_who_follows_a_filter_hears_of_what_enters_leaves_and_goes(dev: Dev) -> None:
    async with dev.connect("author", replica=0) as author, dev.connect("reader", replica=1) as reader:
        begun = datetime.now(UTC) - timedelta(seconds=2)
        finals = 'context.metadata["follows"] == "yes" && context.size > 3'
        async with reader.subscribe("documents", filter=finals) as subscription:
            draft = await author.share("documents", "draft", metadata={"follows": "no"})
            await author.update(await author.context(draft.id), "final", metadata={"follows": "yes"})
            event = await soon(subscription.next())
            assert event.context and (event.kind, event.context.id, event.context.payload) == (acb.EventKind.UPDATED, draft.id, b"final")
            listed = [context.id async for context in reader.contexts("documents", filter=finals)]
            assert listed == [draft.id]
            await author.update(await author.context(draft.id), "x")
            event = await soon(subscription.next())
            assert event.context and (event.kind, event.context.version, event.context.metadata) == (acb.EventKind.LEFT, 3, {})
            last = await author.share("documents", "last one", metadata={"follows": "yes"})
            event = await soon(subscription.next())
            assert event.context and (event.kind, event.context.id) == (acb.EventKind.CREATED, last.id)
            positions = subscription.positions
        # From a time, by another replica; and on from where it stood.
        kinds: list[acb.EventKind] = []
        async with author.subscribe("documents", filter=finals, since=begun) as again:
            while len(kinds) < 3:
                kinds.append((await soon(again.next())).kind)
        # The two contexts may be in different partitions, which have no common order.
        assert sorted(kinds) == [acb.EventKind.CREATED, acb.EventKind.UPDATED, acb.EventKind.LEFT]
        await author.delete_context(last.id)
        on = await reader.subscribe("documents", filter=finals, since=positions)
        assert (await soon(on.next())).kind is acb.EventKind.DELETED
        await on.close()
        with pytest.raises(acb.Unavailable, match="closed"):
            await on.next()
        with pytest.raises(acb.Refused) as refused:
            await soon(reader.subscribe("documents", filter="context.sise > 1")._open())
        assert refused.value.reason == "FILTER_INVALID" and "column 9" in str(refused.value)


async def test_a_subscription_goes_on_where_its_connection_is_cut(dev: Dev) -> None:
    async with wire(dev.endpoints("acme")[0]) as line, dev.connect("reader", replica=0, through=line.address) as reader:
        async with dev.connect("author") as author, reader.subscribe("documents", filter='context.metadata["cut"] == "yes"') as documents:
            made, heard = [], []
            for round in range(3):
                made += [(await author.share("documents", f"{round}.{number}", metadata={"cut": "yes"})).id for number in range(4)]
                line.cut()
                made.append((await author.share("documents", f"{round} cut", metadata={"cut": "yes"})).id)
            async for event in documents:
                assert event.context and event.kind is acb.EventKind.CREATED
                heard.append(event.context.id)
                if len(heard) == len(made):
                    break
            assert sorted(heard) == sorted(made), "each once"
            assert line.connections >= 2


async def test_what_is_shared_twice_under_one_key_is_shared_once(dev: Dev) -> None:
    async with dev.connect("author") as author:
        first, second = [await author.share("documents", "once", idempotency_key="share-once") for _ in range(2)]
        assert first.id == second.id

        async def look() -> bool:
            return first.id in [context.id async for context in author.contexts()]

        await until("it is listed", look)
