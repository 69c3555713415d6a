"""The same client without `await`, for notebooks and scripts: a thread with an event loop does the work.

```python
import acb.sync

with acb.sync.connect() as agent:
    agent.send("worker-a", "hello", topic="greeting")
    for message in agent.messages():
        print(message.text())
        message.ack()
```

It may be used by several threads at once. After a fork it is of no use in the child, and says so: connect in each process.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import copy_context
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from . import _client, _records, _session, _subscription
from ._agents import Registered
from ._credential import ApiKey, Identity, Tokens
from ._dead_letters import Letters, WhichLetters
from ._error import Unavailable, UsageError
from ._handler import Function
from ._mailbox import MOST, Pulled, UnreadCount, UnreadMessages
from ._mailbox import Puller as AsyncPuller
from ._message import NOTHING, Message, MessageFields, View
from ._message import Received as AsyncReceived
from ._records import UsageQuery
from ._subscription import Since
from ._time import Length
from ._transfers import Downloaded, Source, Target, Uploaded, Watcher
from ._types import (
    Address,
    Agent,
    AgentCredential,
    AuditCheckpoint,
    Context,
    ContextEvent,
    DeadLetter,
    DeadLetterOutcome,
    LoggedAuditRecord,
    MessageTrace,
    Position,
    Scheduled,
    ScheduledMessage,
    Scope,
    Sent,
    StreamProgress,
    Usage,
    UsageGap,
    UsageSum,
)

T = TypeVar("T")

#: How long an end in order may take: that of sessions is within it.
_CLOSING = 15.0
_END: Any = object()


class _Portal:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="acb", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for task in (tasks := asyncio.all_tasks(self._loop)):
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def check(self) -> None:
        """Where a call would wait for ever: says why."""
        if os.getpid() != self._process:
            raise UsageError("this process was forked after the client connected: connect in each process, after the fork")
        if threading.current_thread() is self._thread:
            raise UsageError("this is the client's own event loop, which would wait for itself: make the handler a plain function (def)")
        if self._loop.is_closed() or not self._thread.is_alive():
            raise UsageError("the client is closed")

    def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """Runs it in the loop, and waits. Interrupted, it is cancelled."""
        self.check()
        context = copy_context()

        async def run() -> T:
            # In the caller's context: its correlation id, its trace.
            return await asyncio.get_running_loop().create_task(_awaited(make), context=context)

        running = run()
        try:
            future = asyncio.run_coroutine_threadsafe(running, self._loop)
        except RuntimeError:
            running.close()
            raise UsageError("the client is closed") from None
        try:
            return future.result()
        except CancelledError:
            raise Unavailable("the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def iterate(self, make: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """The items, each as it is asked for."""
        iterator = make()

        async def step() -> T:
            return await anext(iterator, _END)

        try:
            while (item := self.call(step)) is not _END:
                yield item
                del item
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None and self._thread.is_alive() and os.getpid() == self._process:
                self.call(close)

    def close(self) -> None:
        """Ends the thread."""
        if os.getpid() == self._process and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSING)


async def _awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


class Received(View):
    """A received message: see `acb.Received`."""

    __slots__ = ("_portal", "_received", "attempt", "redelivered")

    def __init__(self, received: AsyncReceived, portal: _Portal) -> None:
        super().__init__(received.wire())
        self._received = received
        self._portal = portal
        #: Whether it may have been delivered before. Such are outside of the order.
        self.redelivered = received.redelivered
        #: The how-manieth delivery this is.
        self.attempt = received.attempt

    def ack(self) -> None:
        """Says that the message was handled: it is not delivered again."""
        self._received.ack()

    def release(self) -> None:
        """Says nothing to the hub, so that it delivers the message again."""
        self._received.release()

    def reply(self, answer: object = NOTHING, **fields: Unpack[MessageFields]) -> Sent:
        """Answers: to the message's `reply_to`, or else to its sender. A payload, or a `Message.answer(…)`."""
        return self._portal.call(lambda: self._received.reply(answer, **fields))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._received.__exit__(kind, error, traceback)


class Receipt:
    """The outcome of a sent message: `result()` waits for it."""

    def __init__(self, receipt: _session.Receipt, portal: _Portal) -> None:
        self._receipt = receipt
        self._portal = portal

    def result(self) -> Sent:
        """Waits until it is durable, or refused."""
        return self._portal.call(lambda: self._receipt)


class Session:
    """Sends, receives and acknowledges on one stream: see `acb.Session`."""

    def __init__(self, session: _session.Session, portal: _Portal) -> None:
        self._session = session
        self._portal = portal

    @property
    def replica(self) -> str:
        """The name of the replica that holds the session now."""
        return self._session.replica

    def send(self, to: Message | str | Iterable[str] | Address, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Sent:
        """Sends one message and waits until it is durable."""
        return self._portal.call(lambda: self._session.send(to, payload, **fields))

    def enqueue(self, to: Message | str | Iterable[str] | Address, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Receipt:
        """Sends without waiting for what was sent before. Waits only where too much is outstanding."""
        return Receipt(self._portal.call(lambda: self._session.enqueue(to, payload, **fields)), self._portal)

    def next(self) -> Received:
        """The next message. An error is the end of the session."""
        return Received(self._portal.call(self._session.next), self._portal)

    def __iter__(self) -> Iterator[Received]:
        for received in self._portal.iterate(self._session.__aiter__):
            yield Received(received, self._portal)

    def close(self) -> None:
        """Ends the session in order."""
        self._portal.call(self._session.close)

    def __enter__(self) -> Self:
        self._portal.call(self._session.open)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class Subscription:
    """Changes of the contexts of one type: see `acb.Subscription`."""

    def __init__(self, subscription: _subscription.Subscription, portal: _Portal) -> None:
        self._subscription = subscription
        self._portal = portal

    @property
    def positions(self) -> list[Position]:
        """Where the subscription stands, to go on later with `subscribe(…, since=positions)`."""
        return self._subscription.positions

    def next(self) -> ContextEvent:
        """The next change. After an error the subscription is over."""
        return self._portal.call(self._subscription.next)

    def __iter__(self) -> Iterator[ContextEvent]:
        while True:
            yield self.next()

    def close(self) -> None:
        """Ends it."""
        self._portal.call(self._subscription.close)

    def __enter__(self) -> Self:
        self._portal.call(self._subscription._open)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class AuditFollower:
    """Audit records as they are logged: see `acb.AuditFollower`."""

    def __init__(self, follower: _records.AuditFollower, portal: _Portal) -> None:
        self._follower = follower
        self._portal = portal

    @property
    def next_number(self) -> int | None:
        """The number to go on from later, with `follow_audit(from_number=…)`. `None` until the hub has said it."""
        return self._follower.next_number

    def next(self) -> LoggedAuditRecord:
        """The next record that matches, once there is one. After an error the follower is over."""
        return self._portal.call(self._follower.next)

    def __iter__(self) -> Iterator[LoggedAuditRecord]:
        while True:
            yield self.next()

    def close(self) -> None:
        """Ends it."""
        self._portal.call(self._follower.close)

    def __enter__(self) -> Self:
        self._portal.call(self._follower._open)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class Puller:
    """Receives by single calls: see `acb.Puller`."""

    def __init__(self, puller: AsyncPuller, portal: _Portal) -> None:
        self._puller = puller
        self._portal = portal

    def pull(self, max_messages: int = 0, *, wait: Length = MOST) -> list[Pulled]:
        """At most so many messages: those that wait, or else the next ones that come within `wait`."""
        return self._portal.call(lambda: self._puller.pull(max_messages, wait=wait))

    def acknowledge(self, pulled: Pulled | Iterable[Pulled]) -> None:
        """Says that these were handled: they are not delivered again."""
        self._portal.call(lambda: self._puller.acknowledge(pulled))

    def in_progress(self, pulled: Pulled) -> None:
        """Says that one that came again is still worked at."""
        self._portal.call(lambda: self._puller.in_progress(pulled))


class Client:
    """One tenant's hub, seen as one agent: see `acb.Client`, whose methods are here without `await`."""

    def __init__(self, client: _client.Client, portal: _Portal) -> None:
        self._client = client
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._client).replace("acb.", "acb.sync.", 1)

    @property
    def identity(self) -> Identity:
        """Whom this client speaks for."""
        return self._client.identity

    @property
    def tokens(self) -> Tokens:
        """The current tokens."""
        return self._client.tokens

    # Messages.

    def send(self, to: Message | str | Iterable[str] | Address, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Sent:
        """Sends one message and waits until it is durable."""
        return self._portal.call(lambda: self._client.send(to, payload, **fields))

    def request(
        self,
        to: Message | str | Address,
        payload: object = NOTHING,
        *,
        within: Length = _client.REPLY_WITHIN,
        **fields: Unpack[MessageFields],
    ) -> Received:
        """Sends a query and waits for its reply, at most for `within` (up to 5 minutes)."""
        return Received(self._portal.call(lambda: self._client.request(to, payload, within=within, **fields)), self._portal)

    def session(self, **options: Any) -> Session:
        """A session: `with agent.session() as session`. The options are those of `acb.Client.session`."""
        return Session(self._client.session(**options), self._portal)

    def messages(self, **options: Any) -> Iterator[Received]:
        """The messages of this agent as they come. The options are those of `acb.Client.messages`."""
        for received in self._portal.iterate(lambda: self._client.messages(**options)):
            yield Received(received, self._portal)
            del received

    def on(self, topic: str) -> Callable[[Function], Function]:
        """Registers the handler of a topic, for `run`: see `acb.Client.on`. Its message is an `acb.sync.Received`."""
        return self._client.on(topic)

    def on_other(self, function: Function) -> Function:
        """Registers the handler of every topic that has none."""
        return self._client.on_other(function)

    def run(self, **options: Any) -> None:
        """Hands messages to the handlers of `on`, until `stop`. The options are those of `acb.Client.run`."""
        self._portal.call(lambda: self._client.run(view=lambda received: Received(received, self._portal), **options))

    def stop(self) -> None:
        """Has `run` and `messages` end after what is being handled. It may come from any thread, or from a handler."""
        self._portal._loop.call_soon_threadsafe(self._client.stop)

    def schedule(self, message: Message, after: Length) -> Scheduled:
        """Has a message sent after this time, 7 days at most."""
        return self._portal.call(lambda: self._client.schedule(message, after))

    def scheduled(self, *, all: bool = False) -> Iterator[ScheduledMessage]:
        """What waits to be sent."""
        return self._portal.iterate(lambda: self._client.scheduled(all=all))

    def cancel_scheduled(self, message_id: str) -> bool:
        """Cancels a scheduled message. Whether it had been cancelled before."""
        return self._portal.call(lambda: self._client.cancel_scheduled(message_id))

    # The mailbox.

    def puller(self, *, receiver: str | None = None, take_over: bool = True) -> Puller:
        """Receives by single calls."""
        return Puller(self._client.puller(receiver=receiver, take_over=take_over), self._portal)

    def unread(self, from_: str = "", *, filter: str = "") -> Iterator[View]:
        """The unread messages of the mailbox."""
        return self._portal.iterate(lambda: self._client.unread(from_, filter=filter))

    def count_unread(self, from_: str = "") -> UnreadCount:
        """How much is unread."""
        return self._portal.call(lambda: self._client.count_unread(from_))

    def wait_for_unread(self, from_: str = "", *, after: str = "", within: Length = MOST, filter: str = "") -> UnreadMessages:
        """The unread messages after a position, or else those that come next."""
        return self._portal.call(lambda: self._client.wait_for_unread(from_, after=after, within=within, filter=filter))

    def watch_unread(self, from_: str = "", *, filter: str = "") -> Iterator[View]:
        """Follows what is unread, taken by nobody."""
        return self._portal.iterate(lambda: self._client.watch_unread(from_, filter=filter))

    def dead_letters(self, letters: Letters | None = None) -> Iterator[DeadLetter]:
        """The dead letters that match."""
        return self._portal.iterate(lambda: self._client.dead_letters(letters))

    def dead_letter(self, id: str) -> tuple[DeadLetter, Received]:
        """A dead letter and its message."""
        letter, received = self._portal.call(lambda: self._client.dead_letter(id))
        return letter, Received(received, self._portal)

    def replay_dead_letters(self, which: WhichLetters, to: Address | None = None) -> Iterator[DeadLetterOutcome]:
        """Sends dead letters again."""
        return self._portal.iterate(lambda: self._client.replay_dead_letters(which, to))

    def drop_dead_letters(self, which: WhichLetters) -> Iterator[DeadLetterOutcome]:
        """Drops dead letters."""
        return self._portal.iterate(lambda: self._client.drop_dead_letters(which))

    # Contexts.

    def share(
        self,
        context_type: str,
        payload: object,
        *,
        scope: Scope | None = None,
        ttl: Length | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        idempotency_key: str | None = None,
    ) -> Context:
        """Shares a payload of at most 1 MiB as a context of this type."""
        return self._portal.call(
            lambda: self._client.share(
                context_type,
                payload,
                scope=scope,
                ttl=ttl,
                metadata=metadata,
                content_type=content_type,
                idempotency_key=idempotency_key,
            )
        )

    def context(self, id: str) -> Context:
        """A context by its id, with its payload where that is inline."""
        return self._portal.call(lambda: self._client.context(id))

    def update(
        self,
        read_context: Context,
        payload: object = NOTHING,
        *,
        metadata: Mapping[str, str | None] | None = None,
        content_type: str | None = None,
        ttl: Length | None = None,
    ) -> Context:
        """Makes a new version of a context that was read."""
        return self._portal.call(lambda: self._client.update(read_context, payload, metadata=metadata, content_type=content_type, ttl=ttl))

    def set_access(self, id: str, scope: Scope) -> Context:
        """Replaces who may read a context of one's own."""
        return self._portal.call(lambda: self._client.set_access(id, scope))

    def delete_context(self, id: str) -> None:
        """Deletes a context of one's own."""
        self._portal.call(lambda: self._client.delete_context(id))

    def contexts(self, context_type: str = "", *, filter: str = "") -> Iterator[Context]:
        """Every context of a type that may be read, without payloads."""
        return self._portal.iterate(lambda: self._client.contexts(context_type, filter=filter))

    def subscribe(self, context_type: str, *, filter: str = "", since: Since = None) -> Subscription:
        """Changes of the contexts of a type: `with agent.subscribe("documents") as documents`."""
        return Subscription(self._client.subscribe(context_type, filter=filter, since=since), self._portal)

    def upload(
        self,
        context_type: str,
        source: Source,
        *,
        scope: Scope | None = None,
        ttl: Length | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        progress: Watcher | None = None,
        upload_id: str | None = None,
    ) -> Uploaded:
        """Streams a file, bytes or an open file into a context of this type: 1 byte to 100 MiB."""
        return self._portal.call(
            lambda: self._client.upload(
                context_type,
                source,
                scope=scope,
                ttl=ttl,
                metadata=metadata,
                content_type=content_type,
                progress=progress,
                upload_id=upload_id,
            )
        )

    def upload_progress(self, upload_id: str) -> StreamProgress:
        """How far an upload of this agent is."""
        return self._portal.call(lambda: self._client.upload_progress(upload_id))

    def download(self, context_id: str, target: Target, *, progress: Watcher | None = None) -> Downloaded:
        """Writes the payload of a context, streamed or inline, to a file."""
        return self._portal.call(lambda: self._client.download(context_id, target, progress=progress))

    def payload(self, context_id: str) -> bytes:
        """The payload of a context, streamed or inline, in memory."""
        return self._portal.call(lambda: self._client.payload(context_id))

    # Agents, and what is kept about their work.

    def announce(self) -> Agent:
        """Announces this agent as online."""
        return self._portal.call(self._client.announce)

    def register(
        self,
        name: str,
        *,
        type: str = "",
        capabilities: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        location: str = "",
    ) -> Registered:
        """Registers another agent of this agent's role."""
        return self._portal.call(lambda: self._client.register(name, type=type, capabilities=capabilities, metadata=metadata, location=location))

    def unregister(self, name: str = "") -> None:
        """Takes the calling agent offline, or removes one that it registered."""
        self._portal.call(lambda: self._client.unregister(name))

    def heartbeat(self) -> float:
        """Sends one heartbeat; says in how many seconds the next is due."""
        return self._portal.call(self._client.heartbeat)

    @contextmanager
    def heartbeats(self) -> Iterator[None]:
        """Sends heartbeats as the hub wants them: `with agent.heartbeats(): …`."""
        held: AbstractAsyncContextManager[None] = self._client.heartbeats()
        self._portal.call(held.__aenter__)
        try:
            yield
        finally:
            self._portal.call(lambda: held.__aexit__(None, None, None))

    def agent(self, name: str) -> Agent:
        """An agent of the tenant, by name."""
        return self._portal.call(lambda: self._client.agent(name))

    def agents(self) -> Iterator[Agent]:
        """Every agent of the tenant."""
        return self._portal.iterate(self._client.agents)

    def discover(self, *, type: str = "", capabilities: Iterable[str] = (), metadata: Mapping[str, str] | None = None) -> Iterator[Agent]:
        """The agents that match every given criterion."""
        return self._portal.iterate(lambda: self._client.discover(type=type, capabilities=capabilities, metadata=metadata))

    def credentials(self, agent: str = "") -> list[AgentCredential]:
        """The credentials of the agent. Never a secret."""
        return self._portal.call(lambda: self._client.credentials(agent))

    def usage(self, agent: str = "") -> list[Usage]:
        """The limits of the agent and of its tenant, with what was used of each."""
        return self._portal.call(lambda: self._client.usage(agent))

    def usage_sums(self, query: UsageQuery) -> Iterator[UsageSum]:
        """What agents have sent, by period and then by agent."""
        return self._portal.iterate(lambda: self._client.usage_sums(query))

    def usage_gaps(self, query: UsageQuery) -> list[UsageGap]:
        """Where the sums lack something."""
        return self._portal.call(lambda: self._client.usage_gaps(query))

    def message_trace(self, message_id: str) -> MessageTrace:
        """One message, without its content, and what happened to it."""
        return self._portal.call(lambda: self._client.message_trace(message_id))

    def audit_records(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        agent: str = "",
        operation: str = "",
        from_number: int = 0,
    ) -> Iterator[LoggedAuditRecord]:
        """The audit records that match, by number."""
        return self._portal.iterate(
            lambda: self._client.audit_records(since=since, until=until, agent=agent, operation=operation, from_number=from_number)
        )

    def follow_audit(self, *, agent: str = "", operation: str = "", from_number: int | None = None) -> AuditFollower:
        """Audit records as they are logged: `with agent.follow_audit() as trail`. From this number on, and without it from now on."""
        return AuditFollower(self._client.follow_audit(agent=agent, operation=operation, from_number=from_number), self._portal)

    def audit_checkpoint(self) -> AuditCheckpoint:
        """The latest checkpoint of the audit trail."""
        return self._portal.call(self._client.audit_checkpoint)

    # The end.

    def close(self) -> None:
        """Ends its sessions in order, and its thread."""
        # In a child after a fork there is nothing that could be ended.
        if os.getpid() != self._portal._process or not self._portal._thread.is_alive():
            return
        try:
            self._portal.call(self._client.close)
        finally:
            self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def connect(
    server: str | Iterable[str] | None = None,
    *,
    ca: str | bytes | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    system_roots: bool = False,
    api_key: str | ApiKey | None = None,
    api_key_file: str | os.PathLike[str] | None = None,
    token_file: str | os.PathLike[str] | None = None,
    tokens: Tokens | None = None,
    profile: str | None = None,
    retry_for: Length = 30.0,
    through: str | None = None,
) -> Client:
    """Connects and authenticates: `with acb.sync.connect() as agent`. See `acb.connect`."""
    connecting = _client.connect(
        server,
        ca=ca,
        ca_file=ca_file,
        system_roots=system_roots,
        api_key=api_key,
        api_key_file=api_key_file,
        token_file=token_file,
        tokens=tokens,
        profile=profile,
        retry_for=retry_for,
        through=through,
    )
    portal = _Portal()
    try:
        return Client(portal.call(lambda: connecting), portal)
    except BaseException:
        portal.close()
        raise
