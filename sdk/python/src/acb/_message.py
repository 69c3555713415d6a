"""Messages: what is sent, and what was received."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload

from . import _payload, _telemetry, _wire
from ._correlation import correlation_id as present_correlation_id
from ._error import PayloadError, UsageError
from ._inbox import Ticket
from ._payload import JSON
from ._time import Length, seconds
from ._types import Address, MessageType, Sent

T = TypeVar("T")

#: The metadata entry in which an answer says that there is none, and why.
FAILURE: Final = "acb-failure"
#: The most of a reason that is sent, in bytes. All metadata of a message may have 16 KiB.
MOST_OF_REASON: Final = 4096
#: Agents that a message can be for.
MOST_RECIPIENTS: Final = 64


class _Nothing:
    """No payload: `None` is one, JSON's null."""

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING: Final = _Nothing()


class MessageFields(TypedDict, total=False):
    """What may be said of a message beside its recipient and its payload."""

    #: What receivers choose their handler by.
    topic: str
    #: Event (the default), command, query or response.
    type: MessageType
    #: What the payload is, where that is not what its type says.
    content_type: str
    #: A shared context that the message is about, instead of embedding it.
    context_id: str
    #: Ties messages of one exchange together.
    correlation_id: str
    #: Sends replies to this agent's mailbox, to be received later.
    reply_to: str
    #: Any further facts.
    metadata: Mapping[str, str]
    #: Goes to the dead letters where nobody took it in this time. At most, and unless said otherwise, 6 days.
    expires_in: Length
    #: A key of the caller's own, where the same message may be made again after a restart. At most 200 bytes.
    idempotency_key: str
    #: The W3C trace context that the message belongs to.
    traceparent: str
    tracestate: str


class Message:
    """A message to send. Each gets an idempotency key when it is made: sent twice, it arrives once.

    ```python
    message = acb.Message.to_all({"ready": True}, topic="status", metadata={"priority": "high"}, expires_in=60)
    ```

    A payload of `str` is text, `bytes` are themselves, everything else is JSON: dicts, lists, numbers, dataclasses, models of pydantic.
    """

    __slots__ = ("_wire",)

    def __init__(self, to: Address | None, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> None:
        unknown = sorted(fields.keys() - MessageFields.__annotations__.keys())
        if unknown:
            raise UsageError(f"a message has no {unknown[0]!r}")
        wire = _wire.new("OutgoingMessage", type=int(fields.get("type", MessageType.EVENT)))
        try:
            if to is not None:
                _check(to)
                wire.to.CopyFrom(to.to_wire())
            if payload is not NOTHING:
                wire.content_type, wire.payload = _payload.encode(payload)
            for name in ("topic", "content_type", "context_id", "correlation_id", "traceparent", "tracestate"):
                if name in fields:
                    setattr(wire, name, fields[name])
            wire.idempotency_key = fields.get("idempotency_key") or str(uuid.uuid4())
            wire.metadata.update(fields.get("metadata") or {})
            if "reply_to" in fields:
                wire.reply_to.agent = fields["reply_to"]
            if "expires_in" in fields:
                wire.expires_at.CopyFrom(_wire.time(_later(seconds(fields["expires_in"], "expires_in"))))
        except (TypeError, ValueError) as error:
            # The protobuf runtime's words for a value of the wrong type, or for text that is no UTF-8.
            raise UsageError(f"the message can't be made: {error}") from None
        self._wire = wire

    def __repr__(self) -> str:
        wire = self._wire
        return f"<acb.Message to {Address.of(wire.to)} topic={wire.topic!r} {len(wire.payload)} bytes>"

    @classmethod
    def to_agent(cls, name: str, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Message:
        """To one agent, by name."""
        return cls(Address(agent=name), payload, **fields)

    @classmethod
    def to_agents(cls, names: Iterable[str], payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Message:
        """To each of these agents, by name: 2 to 64, each once.

        It is for all of them or for none: where one does not exist, nothing is sent.
        """
        return cls(_addressed_to(names), payload, **fields)

    @classmethod
    def to_group(cls, name: str, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Message:
        """To the members of a group."""
        return cls(Address(group=name), payload, **fields)

    @classmethod
    def to_all(cls, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Message:
        """To every other agent of the tenant."""
        return cls(Address(all=True), payload, **fields)

    @classmethod
    def answer(cls, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Message:
        """An answer; where it goes is decided by what it answers."""
        return cls(None, payload, **fields)

    @classmethod
    def failure(cls, reason: str, **fields: Unpack[MessageFields]) -> Message:
        """An answer that says that there is none, and why: `Received.failure` of whoever asked."""
        cut = reason.encode(errors="replace")[:MOST_OF_REASON].decode(errors="ignore")
        fields["metadata"] = {**fields.get("metadata", {}), FAILURE: cut}
        return cls(None, **fields)

    @property
    def idempotency_key(self) -> str:
        """Under which the hub knows it again."""
        return str(self._wire.idempotency_key)

    def build(self, *, query: bool = False) -> Any:
        """The message as it goes to the hub: tied to what it is sent for, where it says nothing else."""
        wire = _wire.new("OutgoingMessage")
        wire.CopyFrom(self._wire)
        if wire.to.WhichOneof("to") is None:
            raise UsageError("the message names no recipient")
        if query:
            wire.type = int(MessageType.QUERY)
        if not wire.correlation_id:
            wire.correlation_id = present_correlation_id() or ""
        _telemetry.fill(wire)
        return wire

    def answering(self, to: Any) -> Message:
        """The same as an answer to this message of the wire: carries correlation and trace on."""
        answer = Message.__new__(Message)
        answer._wire = wire = _wire.new("OutgoingMessage")
        wire.CopyFrom(self._wire)
        if to.reply_to.WhichOneof("to") is None:
            wire.to.agent = getattr(to, "from")
        else:
            wire.to.CopyFrom(to.reply_to)
        wire.type = int(MessageType.RESPONSE)
        wire.topic = wire.topic or to.topic
        wire.correlation_id = wire.correlation_id or to.correlation_id or to.id
        if not wire.traceparent:
            wire.traceparent, wire.tracestate = to.traceparent, to.tracestate
        return answer


def _later(after: float) -> datetime:
    try:
        return datetime.now(UTC) + timedelta(seconds=after)
    except OverflowError:
        raise UsageError(f"expires_in: {after:.0f} s is too long") from None


def _addressed_to(names: Iterable[str]) -> Address:
    if isinstance(names, str):
        raise UsageError("a message names 1 to 64 agents, each by its name: give a list, or use to_agent")
    listed = tuple(names)
    if not listed:
        raise UsageError(f"a message names 1 to {MOST_RECIPIENTS} agents, each by its name")
    return Address(agents=listed)


def _check(to: Address) -> None:
    """The hub would end the session that such a message is sent in."""
    if to.agent == "" or to.group == "":
        raise UsageError("the message names no recipient")
    if not to.agents:
        return
    if len(to.agents) > MOST_RECIPIENTS or not all(to.agents):
        raise UsageError(f"a message names 1 to {MOST_RECIPIENTS} agents, each by its name")
    twice = [name for index, name in enumerate(to.agents) if name in to.agents[:index]]
    if twice:
        raise UsageError(f"agent {twice[0]!r} is named twice")


def recipient(to: str | Iterable[str] | Address) -> Address:
    """Of what callers write: an agent's name, several names, or an address."""
    match to:
        case Address():
            return to
        case str():
            return Address(agent=to)
        case _:
            return _addressed_to(to)


def message_of(to: Message | str | Iterable[str] | Address, payload: object, fields: MessageFields) -> Message:
    """A message that is given, or that is made of its parts."""
    if isinstance(to, Message):
        if payload is not NOTHING or fields:
            raise UsageError("a Message says all of itself: give nothing beside it")
        return to
    return Message(recipient(to), payload, **fields)


def answer_of(answer: object, fields: MessageFields) -> Message:
    """An answer that is given, or that is made of its payload."""
    if isinstance(answer, Message):
        if fields:
            raise UsageError("a Message says all of itself: give nothing beside it")
        return answer
    return Message.answer(answer, **fields)


class View:
    """A message as it came. Its payload is read by `text`, `json` or `decode`."""

    __slots__ = ("_message",)

    def __init__(self, message: Any) -> None:
        self._message = message

    def __repr__(self) -> str:
        return f"<acb.{type(self).__name__} {self.id} from {self.from_!r} topic={self.topic!r} {len(self.payload)} bytes>"

    @property
    def id(self) -> str:
        """A UUIDv7 of the hub that accepted the message."""
        return str(self._message.id)

    @property
    def from_(self) -> str:
        """The sender's name."""
        return str(getattr(self._message, "from"))

    @property
    def to(self) -> Address:
        """Whom it is for."""
        return Address.of(self._message.to)

    @property
    def topic(self) -> str:
        """What receivers choose their handler by."""
        return str(self._message.topic)

    @property
    def type(self) -> MessageType:
        """Event, command, query or response."""
        return MessageType(self._message.type)

    @property
    def content_type(self) -> str:
        """What the payload is."""
        return str(self._message.content_type)

    @property
    def payload(self) -> bytes:
        """The payload, byte for byte."""
        return bytes(self._message.payload)

    @property
    def context_id(self) -> str:
        """The context that it is about; empty where there is none."""
        return str(self._message.context_id)

    @property
    def correlation_id(self) -> str:
        """What ties the message to others: what its sender named, or its own id."""
        return str(self._message.correlation_id or self._message.id)

    @property
    def reply_to(self) -> Address | None:
        """Where an answer goes, where that is not its sender."""
        return Address.of(self._message.reply_to) if self._message.HasField("reply_to") else None

    @property
    def metadata(self) -> Mapping[str, str]:
        """Further facts."""
        return dict(self._message.metadata)

    @property
    def sent_at(self) -> datetime | None:
        """When the hub took it."""
        return _wire.read_time(self._message.sent_at) if self._message.HasField("sent_at") else None

    @property
    def expires_at(self) -> datetime | None:
        """When it expires; of a question, when its caller stops waiting."""
        return _wire.read_time(self._message.expires_at) if self._message.HasField("expires_at") else None

    @property
    def time_left(self) -> timedelta:
        """How long it is still of use. By this machine's clock."""
        expires_at = self.expires_at
        return max(expires_at - datetime.now(UTC), timedelta()) if expires_at else timedelta()

    @property
    def idempotency_key(self) -> str:
        """The sender's key."""
        return str(self._message.idempotency_key)

    @property
    def replayed_from(self) -> str:
        """The id of the message that this one is a replay of, from the dead letters."""
        return str(self._message.replayed_from)

    @property
    def traceparent(self) -> str:
        """The W3C trace context that it belongs to."""
        return str(self._message.traceparent)

    @property
    def failure(self) -> str | None:
        """Why there is no answer, where the message is one that says so: see `Message.failure`."""
        found = self._message.metadata.get(FAILURE)
        return None if found is None else str(found)

    def text(self) -> str:
        """The payload as text."""
        return str(self.decode(str) if self._message.content_type.startswith("text/") else self._read(str, "text/plain"))

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, kind: builtins.type[T]) -> T: ...
    def json(self, kind: Any = Any) -> Any:
        """The payload, decoded from JSON: as dicts and lists, or as a value of this type (a dataclass, a model of pydantic, `list[int]`)."""
        return self._read(kind, JSON)

    @overload
    def decode(self) -> Any: ...
    @overload
    def decode(self, kind: builtins.type[T]) -> T: ...
    def decode(self, kind: Any = Any) -> Any:
        """The payload by its content type: text, JSON, or bytes; as a value of this type, where one is given."""
        return self._read(kind, self.content_type)

    def _read(self, kind: Any, content_type: str) -> Any:
        try:
            return _payload.decode(content_type, self._message.payload, kind)
        except PayloadError as error:
            raise error.during(f"message {self.id} (topic {self.topic!r})") from None


class Received(View):
    """A received message. Until it is acknowledged (`ack`) the hub keeps it, and delivers it again; dropped, it is not acknowledged.

    ```python
    async for message in agent.messages():
        with message:  # acknowledges it at the end, unless something is raised
            print(message.text())
    ```
    """

    __slots__ = ("_replier", "_ticket", "attempt", "redelivered")

    def __init__(self, message: Any, replier: Any, ticket: Ticket | None = None, *, redelivered: bool = False, attempt: int = 1) -> None:
        super().__init__(message)
        self._replier = replier
        self._ticket = ticket
        #: Whether it may have been delivered before. Such are outside of the order.
        self.redelivered = redelivered
        #: The how-manieth delivery this is.
        self.attempt = attempt

    def start(self) -> None:
        """The application begins with it. The hub counts that where it may have been delivered before.

        So a message that ends its agent again and again goes to the dead letters.
        """
        if self._ticket is not None and self.redelivered:
            self._ticket.start()

    def ack(self) -> None:
        """Says that the message was handled: it is not delivered again."""
        if self._ticket is not None:
            self._ticket.ack()

    def release(self) -> None:
        """Says nothing to the hub, so that it delivers the message again: 30 s after it did, or to the next session."""
        if self._ticket is not None:
            self._ticket.release()

    async def reply(self, answer: object = NOTHING, **fields: Unpack[MessageFields]) -> Sent:
        """Answers: to the message's `reply_to`, or else to its sender. A payload, or a `Message.answer(…)`."""
        sent: Sent = await self._replier.send(answer_of(answer, fields).answering(self._message))
        return sent

    def wire(self) -> Any:
        """The message of the wire."""
        return self._message

    def __enter__(self) -> Received:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self.ack()
        else:
            self.release()
