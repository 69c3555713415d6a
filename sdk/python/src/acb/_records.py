"""What the hub keeps about the work of agents: usage, traces of messages, the audit trail."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import _wire
from ._calls import Calls
from ._error import Code, Refused
from ._page import every
from ._reopened import Reopened
from ._types import (
    AuditCheckpoint,
    AuditRecord,
    LoggedAuditRecord,
    MessageTrace,
    Usage,
    UsageGap,
    UsagePeriod,
    UsageSum,
    read,
)

#: Sums, or records, to a call.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which sums of usage; what is not said is not asked for.

    ```python
    bill = acb.UsageQuery(acb.UsagePeriod.MONTH, agent="planner")
    ```
    """

    by: UsagePeriod = UsagePeriod.HOUR
    #: Only that of this agent, which may be gone. Of another than oneself with the role admin or auditor.
    agent: str = ""
    #: Only from the period on that this time is in.
    since: datetime | None = None
    #: Only periods that begin before this time.
    until: datetime | None = None

    def request(self, page_size: int, page_token: str = "") -> Any:
        """As the hub reads it."""
        wire = _wire.new("ListUsageRequest", agent=self.agent, by=int(self.by), page_size=page_size, page_token=page_token)
        if self.since is not None:
            getattr(wire, "from").CopyFrom(_wire.time(self.since))
        if self.until is not None:
            wire.to.CopyFrom(_wire.time(self.until))
        return wire


def audit_record(record: bytes) -> AuditRecord | None:
    """What the bytes of a record say. `None` where a newer hub wrote them, or nobody that is one."""
    try:
        found: AuditRecord = read(_wire.parse("AuditRecord", record))
    except ValueError:
        return None
    return found if found.version == 1 else None


class AuditFollower(Reopened):
    """Audit records as they are logged. Where the connection breaks it goes on after the last one, with any replica.

    ```python
    async with agent.follow_audit(operation="GetContext") as trail:
        async for logged in trail:
            print(logged.number, acb.audit_record(logged.record))
    ```

    Once it is entered nothing more is missed. `await agent.follow_audit(…)` opens it without a block; then `close` it.
    """

    _method = "AuditService.FollowAuditRecords"

    def __init__(self, calls: Calls, agent: str, operation: str, from_number: int | None) -> None:
        super().__init__(calls, "follow audit records")
        self._asked = {"agent": agent, "operation": operation}
        #: Where to go on after what came.
        self._next = from_number
        #: What came, and was not asked for yet.
        self._waiting: deque[LoggedAuditRecord] = deque()

    async def __aiter__(self) -> AsyncIterator[LoggedAuditRecord]:
        while not self._closed:
            yield await self.next()

    @property
    def next_number(self) -> int | None:
        """The number to go on from later, with `follow_audit(from_number=…)`, after the record that came last. `None` until the hub has said it."""
        return self._waiting[0].number if self._waiting else self._next

    async def next(self) -> LoggedAuditRecord:
        """The next record that matches, once there is one. After an error the follower is over."""
        # What came with the last one, and was not asked for, is left to who goes on from its number.
        while self._closed or not self._waiting:
            page = await self._answer()
            self._waiting.extend(map(read, page.records))
            self._next = page.next
        return self._waiting.popleft()

    def _begin(self, first: Any) -> bool:
        self._next = first.next
        return True

    def _request(self) -> Any:
        return _wire.new("FollowAuditRecordsRequest", first=self._next, **self._asked)


class Records(Calls):
    """The calls of usage, traces and audit."""

    async def usage(self, agent: str = "") -> list[Usage]:
        """The limits of the agent and of its tenant, with what was used of each in this minute or month.

        Of another agent, by its name, with the role admin.
        """
        response = await self._call("get usage", "UsageService.GetUsage", _wire.new("GetUsageRequest", agent=agent))
        return [read(one) for one in response.usage]

    def usage_sums(self, query: UsageQuery) -> AsyncIterator[UsageSum]:
        """What agents have sent, by period and then by agent; page after page as they are taken. The sums are some seconds behind."""
        return every(lambda token: self._call("list usage", "UsageService.ListUsage", query.request(PAGE, token)), "sums")

    async def usage_gaps(self, query: UsageQuery) -> list[UsageGap]:
        """Where the sums lack something, as far as that was found in the time that the query is about: the latest first."""
        return [read(gap) for gap in (await self._call("list usage", "UsageService.ListUsage", query.request(1))).gaps]

    async def message_trace(self, message_id: str) -> MessageTrace:
        """One message, without its content, and what happened to it.

        Of what this agent sent or is to receive, and with the roles admin and auditor of all.
        """
        request = _wire.new("GetMessageTraceRequest", message_id=message_id)
        trace: MessageTrace = read((await self._call("get message trace", "TraceService.GetMessageTrace", request)).trace)
        return trace

    def audit_records(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        agent: str = "",
        operation: str = "",
        from_number: int = 0,
    ) -> AsyncIterator[LoggedAuditRecord]:
        """The audit records that match, by number; page after page as they are taken. Takes the role `auditor` or `admin`."""

        def fetch(token: str) -> Any:
            request = _wire.new(
                "ListAuditRecordsRequest",
                agent=agent,
                operation=operation,
                first=from_number,
                page_size=PAGE,
                page_token=token,
            )
            if since is not None:
                request.since.CopyFrom(_wire.time(since))
            if until is not None:
                request.until.CopyFrom(_wire.time(until))
            return self._call("list audit records", "AuditService.ListAuditRecords", request)

        return every(fetch, "records")

    def follow_audit(self, *, agent: str = "", operation: str = "", from_number: int | None = None) -> AuditFollower:
        """Follows the audit trail: from this number on, and without it from now on. Takes the role `auditor` or `admin`. See `AuditFollower`."""
        return AuditFollower(self, agent, operation, from_number)

    async def audit_checkpoint(self) -> AuditCheckpoint:
        """The latest checkpoint of the audit trail, and the keys that signed one. Takes the role `auditor` or `admin`."""
        request = _wire.new("GetAuditCheckpointRequest")
        checkpoint: AuditCheckpoint = read(await self._call("get audit checkpoint", "AuditService.GetAuditCheckpoint", request))
        return checkpoint

    async def audit_inclusion(self, number: int, size: int) -> list[bytes]:
        """The hashes that prove that a record is in the tree of this size. Takes the role `auditor` or `admin`."""
        return await self._proof(inclusion=_wire.new("AuditInclusion", number=number, size=size))

    async def audit_consistency(self, first: int, second: int) -> list[bytes]:
        """The hashes that prove that a tree is the beginning of a larger one."""
        return await self._proof(consistency=_wire.new("AuditConsistency", first=first, second=second))

    async def audit_prefix(self, size: int) -> list[bytes]:
        """The hashes of the subtrees of the first so many records."""
        return await self._proof(prefix=size)

    async def _proof(self, **claim: Any) -> list[bytes]:
        answer = await self._call("get audit proof", "AuditService.GetAuditProof", _wire.new("GetAuditProofRequest", **claim))
        hashes = list(answer.hashes)
        if any(len(one) != 32 for one in hashes):
            raise Refused(Code.INTERNAL, "", "get audit proof: the hub answered with what are no hashes")
        return hashes
