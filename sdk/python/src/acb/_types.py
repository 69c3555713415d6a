"""What the hub answers with, as Python's values: what is not set is `None` or empty, times have a zone."""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from functools import cache
from typing import Any, Self

from . import _wire


class _WireEnum(IntEnum):
    """A value that a newer hub knows and this version does not is there all the same, with its number."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member


class MessageType(_WireEnum):
    """What a message is."""

    UNSPECIFIED = 0
    EVENT = 1
    COMMAND = 2
    QUERY = 3
    RESPONSE = 4


class AgentStatus(_WireEnum):
    """Whether an agent is there."""

    UNSPECIFIED = 0
    ONLINE = 1
    OFFLINE = 2
    UNKNOWN = 3


class EventKind(_WireEnum):
    """What happened to a context."""

    UNSPECIFIED = 0
    CREATED = 1
    UPDATED = 2
    DELETED = 3
    #: These two only say where a subscription stands: `Subscription` keeps them to itself.
    SUBSCRIBED = 4
    BOOKMARK = 5
    #: It was updated, and does not match the filter any more, or is not for this agent any more.
    LEFT = 6


class ScopeKind(_WireEnum):
    """Who may read a context."""

    UNSPECIFIED = 0
    PUBLIC = 1
    PRIVATE = 2
    GROUP = 3
    SHARED = 4


class DeadLetterReason(_WireEnum):
    """Why a message is a dead letter."""

    UNSPECIFIED = 0
    EXPIRED = 1
    ATTEMPTS = 2
    SENDER_REFUSED = 3
    RECIPIENT_GONE = 4


class DeadLetterState(_WireEnum):
    """What became of a dead letter."""

    UNSPECIFIED = 0
    OPEN = 1
    REPLAYED = 2
    DROPPED = 3


class CredentialKind(_WireEnum):
    """What an agent proves itself with."""

    UNSPECIFIED = 0
    API_KEY = 1
    SERVICE_ACCOUNT = 2


class UsagePeriod(_WireEnum):
    """By what usage is summed."""

    UNSPECIFIED = 0
    HOUR = 1
    DAY = 2
    MONTH = 3


class TraceKind(_WireEnum):
    """What happened to a message."""

    UNSPECIFIED = 0
    ACCEPTED = 1
    DELIVERED = 2
    REDELIVERED = 3
    ACKNOWLEDGED = 4
    DEAD = 5


class AuditPhase(_WireEnum):
    """At which point of a call an audit record was written."""

    UNSPECIFIED = 0
    INTENT = 1
    OUTCOME = 2
    BEGIN = 3
    END = 4
    REFUSALS = 5
    GAP = 6


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message goes: exactly one of these."""

    agent: str | None = None
    group: str | None = None
    #: Every agent of the tenant but the sender.
    all: bool = False
    #: The waiting caller of one request: its agent and its id.
    request: tuple[str, str] | None = None
    #: Each of these agents.
    agents: tuple[str, ...] = ()

    def to_wire(self) -> Any:
        """As the hub reads it."""
        if self.agent is not None:
            return _wire.new("Address", agent=self.agent)
        if self.group is not None:
            return _wire.new("Address", group=self.group)
        if self.agents:
            return _wire.new("Address", agents=_wire.new("AgentNames", names=self.agents))
        if self.request is not None:
            agent, request_id = self.request
            return _wire.new("Address", request=_wire.new("RequestAddress", agent=agent, request_id=request_id))
        return _wire.new("Address", all=True)

    @classmethod
    def of(cls, wire: Any) -> Address:
        """From what the hub says."""
        match wire.WhichOneof("to"):
            case "agent":
                return cls(agent=wire.agent)
            case "group":
                return cls(group=wire.group)
            case "agents":
                return cls(agents=tuple(wire.agents.names))
            case "request":
                return cls(request=(wire.request.agent, wire.request.request_id))
            case _:
                return cls(all=wire.all)


@dataclass(frozen=True, slots=True)
class Scope:
    """Who may read a context: all agents of the tenant unless said otherwise."""

    scope: ScopeKind = ScopeKind.PUBLIC
    groups: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()

    @classmethod
    def public(cls) -> Scope:
        """All agents of the tenant."""
        return cls()

    @classmethod
    def private(cls) -> Scope:
        """Its creator."""
        return cls(ScopeKind.PRIVATE)

    @classmethod
    def to_groups(cls, *groups: str) -> Scope:
        """The members of these groups."""
        return cls(ScopeKind.GROUP, groups=groups)

    @classmethod
    def to_agents(cls, *agents: str) -> Scope:
        """These agents, by name."""
        return cls(ScopeKind.SHARED, agents=agents)

    def to_wire(self) -> Any:
        """As the hub reads it."""
        return _wire.new("Access", scope=int(self.scope), groups=self.groups, agents=self.agents)


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent of the tenant, as its hub knows it."""

    id: str
    name: str
    type: str
    capabilities: tuple[str, ...]
    groups: tuple[str, ...]
    location: str
    metadata: Mapping[str, str]
    role: str
    status: AgentStatus
    tenant: str
    created_at: datetime | None
    #: `None` for an agent that was never seen.
    last_seen_at: datetime | None
    #: It may do nothing until it is resumed.
    suspended: bool


@dataclass(frozen=True, slots=True)
class PayloadRef:
    """Where a streamed payload is."""

    backend: str
    key: str
    size: int
    chunk_count: int
    chunk_size: int


@dataclass(frozen=True, slots=True)
class Context:
    """A shared context: a typed, versioned payload with a scope."""

    id: str
    type: str
    #: The name of the agent that created it.
    creator: str
    #: Empty where it was streamed: `payload_ref` is set then.
    payload: bytes = field(repr=False)
    payload_ref: PayloadRef | None
    metadata: Mapping[str, str]
    #: From 1; one more at each update.
    version: int
    content_type: str
    schema_id: str
    schema_version: str
    created_at: datetime | None
    updated_at: datetime | None
    expires_at: datetime | None
    #: SHA-256 of the payload.
    checksum: bytes = field(repr=False)
    access: Scope | None
    #: Bytes of the payload.
    size: int


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place of one partition of the log."""

    epoch: int
    partition: int
    offset: int

    def to_wire(self) -> Any:
        """As the hub reads it."""
        return _wire.new("Position", epoch=self.epoch, partition=self.partition, offset=self.offset)


@dataclass(frozen=True, slots=True)
class ContextEvent:
    """A change of a context. Of what was deleted or left, the context has its id, type and version alone."""

    kind: EventKind
    context: Context | None
    position: Position | None
    positions: tuple[Position, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that is durable."""

    #: Of the first message with its idempotency key.
    message_id: str
    #: Whether it had been sent before.
    deduplicated: bool


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A message that is sent later."""

    #: The message keeps this id when it is sent.
    message_id: str
    due_at: datetime | None
    #: Whether it had been scheduled before.
    deduplicated: bool


@dataclass(frozen=True, slots=True)
class ScheduledMessage:
    """A message that waits, without its content."""

    message_id: str
    #: The sender's name when it was scheduled.
    from_: str
    to: Address | None
    topic: str
    type: MessageType
    size: int
    due_at: datetime | None
    scheduled_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that nobody took, without its content."""

    id: str
    message_id: str
    reason: DeadLetterReason
    attempts: int
    sender: str
    recipient: Address | None
    topic: str
    type: MessageType
    size: int
    sent_at: datetime | None
    expires_at: datetime | None
    #: When it became a letter.
    dead_at: datetime | None
    state: DeadLetterState
    #: The id of the message that it was sent again as; empty where it was not.
    replayed_as: str
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadLetterFailure:
    """Why a dead letter was not replayed or dropped."""

    code: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DeadLetterOutcome:
    """What became of one dead letter."""

    id: str
    state: DeadLetterState
    replayed_as: str
    #: Whether it was so before this call.
    before: bool
    #: `None` where it did not fail. The other letters of the call went on.
    failure: DeadLetterFailure | None


@dataclass(frozen=True, slots=True)
class Usage:
    """One limit, and what was used of it."""

    #: Whose limit it is: `agent` and its name, or `tenant` and its name.
    subject: str
    limit: str
    #: `None`: there is no limit.
    most: int | None
    used: int
    resets_at: datetime | None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What one agent sent in one period."""

    starts_at: datetime | None
    agent_id: str
    agent: str
    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class UsageGap:
    """A place at which the sums are too low."""

    found_at: datetime | None
    what: str
    records: int | None


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """What happened to a message."""

    time: datetime | None
    kind: TraceKind
    replica: str
    agent: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class TraceRecipient:
    """One of those whom a message is for."""

    agent: str
    acknowledged: bool


@dataclass(frozen=True, slots=True)
class MessageTrace:
    """A message, without its content, and what happened to it."""

    message_id: str
    from_: str
    to: Address | None
    topic: str
    type: MessageType
    size: int
    correlation_id: str
    traceparent: str
    accepted_at: datetime | None
    logged_at: datetime | None
    expires_at: datetime | None
    place: str
    events: tuple[TraceEvent, ...]
    recipients: tuple[TraceRecipient, ...]
    more_recipients: int
    more_events: bool


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What an audit record says."""

    version: int
    call: bytes
    phase: AuditPhase
    #: Microseconds since 1970.
    at: int
    replica: str
    operation: str
    agent_id: bytes
    agent: str
    key: str
    object: str
    object_version: int
    bytes: int
    source: str
    outcome: str
    reason: str
    correlation_id: str
    count: int
    #: Of what the operator did, what changed.
    change: str


@dataclass(frozen=True, slots=True)
class LoggedAuditRecord:
    """An audit record, as it is in the log."""

    #: The number of its leaf.
    number: int
    #: An `AuditRecord`, byte for byte as in the log: see `audit_record`.
    record: bytes = field(repr=False)
    leaf_hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuditCheckpoint:
    """The latest checkpoint of the audit trail, and the keys that signed one."""

    note: str
    size: int
    signed_at: datetime | None
    verifiers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AgentCredential:
    """What an agent proves itself with, as the hub knows it. Never a secret."""

    agent: str
    agent_id: str
    kind: CredentialKind
    name: str
    created_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far an upload is."""

    upload_id: str
    next_chunk: int
    chunk_count: int
    chunk_size: int
    bytes_stored: int
    size: int
    context_id: str
    replica: str


_TYPES: dict[str, Any] = {
    "Access": Scope,
    "Agent": Agent,
    "AuditRecord": AuditRecord,
    "Context": Context,
    "ContextEvent": ContextEvent,
    "Credential": AgentCredential,
    "DeadLetter": DeadLetter,
    "DeadLetterOutcome": DeadLetterOutcome,
    "DeadLetterOutcome.Failure": DeadLetterFailure,
    "GetAuditCheckpointResponse": AuditCheckpoint,
    "LoggedAuditRecord": LoggedAuditRecord,
    "MessageTrace": MessageTrace,
    "PayloadRef": PayloadRef,
    "Position": Position,
    "ScheduleMessageResponse": Scheduled,
    "ScheduledMessage": ScheduledMessage,
    "SendMessageResponse": Sent,
    "StreamProgress": StreamProgress,
    "TraceEvent": TraceEvent,
    "TraceRecipient": TraceRecipient,
    "Usage": Usage,
    "UsageGap": UsageGap,
    "UsageSum": UsageSum,
}

_ENUMS: dict[str, type[_WireEnum]] = {
    "AgentStatus": AgentStatus,
    "AuditPhase": AuditPhase,
    "ContextEvent.Kind": EventKind,
    "Credential.Kind": CredentialKind,
    "DeadLetterReason": DeadLetterReason,
    "DeadLetterState": DeadLetterState,
    "MessageType": MessageType,
    "Scope": ScopeKind,
    "TraceEvent.Kind": TraceKind,
    "UsagePeriod": UsagePeriod,
}

_Reader = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _reader(of: Any) -> _Reader:
    """How one value of a field is read."""
    if of.enum_type is not None:
        return _ENUMS[of.enum_type.full_name.removeprefix("acb.v1.")]
    if of.message_type is None:
        return _same
    name = of.message_type.full_name
    known: dict[str, _Reader] = {
        "google.protobuf.Timestamp": _wire.read_time,
        "google.protobuf.Duration": _wire.read_duration,
        "acb.v1.Address": Address.of,
    }
    return known.get(name, read)


def _is_repeated(of: Any) -> bool:
    # Its old name is deprecated in newer versions of protobuf, and its new one is not in older ones.
    repeated = getattr(of, "is_repeated", None)
    return bool(of.label == of.LABEL_REPEATED if repeated is None else repeated)


@cache
def _plan(name: str, descriptor: Any) -> tuple[Any, list[tuple[str, str, _Reader]]]:
    kind = _TYPES[name]
    wanted = {one.name for one in dataclasses.fields(kind)}
    plan: list[tuple[str, str, _Reader]] = []
    for of in descriptor.fields:
        attribute = f"{of.name}_" if keyword.iskeyword(of.name) else of.name
        if attribute not in wanted:
            continue
        one = _reader(of)
        if of.message_type is not None and of.message_type.GetOptions().map_entry:
            plan.append((attribute, of.name, _of_map))
        elif _is_repeated(of):
            plan.append((attribute, of.name, _of_many(one)))
        else:
            plan.append((attribute, of.name, one))
    assert {attribute for attribute, _, _ in plan} == wanted, name  # noqa: S101 - a test reads every type once.
    return kind, plan


def _of_map(value: Any) -> dict[str, Any]:
    return dict(value)


def _of_many(one: _Reader) -> _Reader:
    return lambda values: tuple(map(one, values))


@cache
def _optional(descriptor: Any) -> frozenset[str]:
    return frozenset(of.name for of in descriptor.fields if of.has_presence)


def read(wire: Any) -> Any:
    """The value of a message of the contract."""
    descriptor = wire.DESCRIPTOR
    kind, plan = _plan(descriptor.full_name.removeprefix("acb.v1."), descriptor)
    optional = _optional(descriptor)
    return kind(**{attribute: None if name in optional and not wire.HasField(name) else one(getattr(wire, name)) for attribute, name, one in plan})


def types() -> list[str]:
    """The messages of the contract that have a type here."""
    return sorted(_TYPES)
