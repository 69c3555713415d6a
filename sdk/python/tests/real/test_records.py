"""Who is there, what was used, what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

import acb
import acb.sync

from .world import Dev, soon, until, wire


async def test_agents_are_found_and_register_others(dev: Dev) -> None:
    async with dev.connect("translator") as agent:
        assert agent.identity and (agent.identity.tenant, agent.identity.agent) == ("acme", "translator")
        announced = await agent.announce()
        assert (announced.name, announced.status) == ("translator", acb.AgentStatus.ONLINE)
        async with agent.heartbeats():
            assert await agent.heartbeat() >= 1
        found = [one.name async for one in agent.discover(capabilities=["summarize", "translate"], metadata={"team": "red"})]
        assert found == ["translator"]
        assert {"asker", "translator"} <= {one.name async for one in agent.agents()}
        one = await agent.agent("translator")
        assert one.capabilities == ("translate", "summarize") and one.metadata == {"team": "red", "rank": "1"} and one.created_at
        with pytest.raises(acb.Refused) as missing:
            await agent.agent("nobody")
        assert missing.value.code is acb.Code.NOT_FOUND
        helper = await agent.register("helper", type="helper", capabilities=["help"], metadata={"a": "b"})
        assert helper.agent.name == "translator.helper" and helper.api_key not in repr(helper)
        async with dev.connect("translator", api_key_file=None, api_key=helper.api_key) as other:
            assert other.identity and other.identity.agent == "translator.helper"
        await agent.unregister("helper")
        with pytest.raises(acb.Refused, match="AGENT_NAME_INVALID"):
            await agent.register("")
        credentials = await agent.credentials()
        assert [(one.agent, one.kind) for one in credentials] == [("translator", acb.CredentialKind.API_KEY)]


async def test_usage_traces_and_the_audit_trail(dev: Dev) -> None:
    async with dev.connect("agent-22") as agent, dev.connect("agent-23") as receiver, dev.connect("auditor") as auditor:
        with acb.correlated("records-1"):
            sent = await agent.send("agent-23", "x", topic="traced")
        async with receiver.session() as session:
            (await soon(session.next())).ack()
        usage = {(one.subject, one.limit): one for one in await agent.usage()}
        assert usage["agent agent-22", "messagesPerMinute"].used >= 1

        async def trace() -> acb.MessageTrace | None:
            found = await agent.message_trace(sent.message_id)
            return found if any(event.kind is acb.TraceKind.ACKNOWLEDGED for event in found.events) else None

        found = await until("it is acknowledged", trace)
        assert found and (found.from_, found.topic, found.correlation_id, found.size) == ("agent-22", "traced", "records-1", 1)
        assert found.recipients == (acb.TraceRecipient("agent-23", True),)

        async def sums() -> list[acb.UsageSum]:
            query = acb.UsageQuery(acb.UsagePeriod.DAY, agent="agent-22", since=datetime.now(UTC) - timedelta(days=1))
            return [one async for one in agent.usage_sums(query)]

        assert sum(one.messages for one in await until("it is summed", sums)) >= 1
        assert await agent.usage_gaps(acb.UsageQuery()) == []
        with pytest.raises(acb.Refused) as denied:
            [one async for one in agent.audit_records()]
        assert denied.value.code is acb.Code.PERMISSION_DENIED

        async def records() -> list[acb.LoggedAuditRecord]:
            return [one async for one in auditor.audit_records(agent="agent-22", operation="ListAuditRecords")] or [
                one async for one in auditor.audit_records(agent="agent-22")
            ]

        logged = await until("there are records", records)
        record = acb.audit_record(logged[0].record)
        assert record and record.agent == "agent-22" and record.operation and acb.audit_record(b"\xff\xff") is None


async def test_the_audit_trail_is_followed_over_broken_connections(dev: Dev) -> None:
    async with wire(dev.endpoints("acme")[0]) as line, dev.connect("author") as author:
        async with dev.connect("auditor", replica=0, through=line.address) as auditor:
            async with auditor.follow_audit(agent="author", operation="CreateContext") as trail:
                assert trail.next_number is not None
                seen: list[tuple[int, acb.AuditPhase]] = []
                for round in range(3):
                    for _ in range(2):
                        await author.share("documents", f"of round {round}")
                    # Of each an intent and an outcome.
                    for _ in range(4):
                        logged = await soon(trail.next())
                        record = acb.audit_record(logged.record)
                        assert record and (record.agent, record.operation) == ("author", "CreateContext")
                        seen.append((logged.number, record.phase))
                    line.cut()
                assert line.connections >= 3
            numbers = [number for number, _ in seen]
            assert numbers == sorted(set(numbers)) and {phase for _, phase in seen} == {acb.AuditPhase.INTENT, acb.AuditPhase.OUTCOME}
            # From where it was, and by who stops waiting now and then.
            follower = await auditor.follow_audit(agent="author", operation="CreateContext", from_number=numbers[0])
            again: list[int] = []
            async for logged in follower:
                again.append(logged.number)
                if len(again) == len(numbers):
                    break
            assert again == numbers and follower.next_number is not None and follower.next_number > numbers[-1]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(follower.next(), 0.2)
            await author.share("documents", "later")
            assert (await soon(follower.next())).number > numbers[-1]
            await follower.close()
            with pytest.raises(acb.Unavailable, match="closed"):
                await follower.next()
        with pytest.raises(acb.Refused) as denied:
            await author.follow_audit()
        assert denied.value.code is acb.Code.PERMISSION_DENIED


def test_the_audit_trail_is_followed_without_await(dev: Dev) -> None:
    connect: Callable[[str], acb.sync.Client] = lambda agent: acb.sync.connect(**dev.options(agent))  # noqa: E731
    with connect("author") as author, connect("auditor") as auditor:
        with auditor.follow_audit(agent="author", operation="CreateContext") as trail:
            author.share("documents", "for the trail")
            logged = next(iter(trail))
            record = acb.audit_record(logged.record)
            assert record and record.operation == "CreateContext" and trail.next_number is not None
