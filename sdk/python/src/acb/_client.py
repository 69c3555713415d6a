"""The client: one tenant's hub, seen as one agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Self, Unpack

from . import _telemetry, _wire
from ._agents import Agents
from ._config import AnyPath, Arguments, find
from ._contexts import Contexts
from ._credential import ApiKey, Tokens
from ._dead_letters import DeadLetters
from ._error import Code, Refused, UsageError
from ._handler import Function, Handlers
from ._mailbox import Mailbox
from ._message import NOTHING, Message, MessageFields, Received, message_of
from ._records import Records
from ._schedule import Schedule
from ._session import RECONNECT_FOR, Session
from ._time import Length, seconds
from ._transfers import Transfers
from ._types import Address, Sent

#: How much longer than the hub the client waits for a reply.
REPLY_SLACK = 1.0
#: How long a question waits where its caller says nothing.
REPLY_WITHIN = 30.0


class Client(Agents, Contexts, DeadLetters, Mailbox, Records, Schedule, Transfers):
    """One tenant's hub, seen as one agent: what `acb.connect` gives.

    ```python
    async with acb.connect() as agent:
        await agent.send("worker-a", "hello", topic="greeting")
        async for message in agent.messages():
            print(message.from_, message.text())
            message.ack()
    ```

    All of it belongs to the event loop that it was connected in. Where a call fails it raises an `acb.Error`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sessions: set[Session] = set()
        self._handlers = Handlers()

    # Messages.

    async def send(self, to: Message | str | Iterable[str] | Address, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Sent:
        """Sends one message and waits until it is durable.

        It is tried again on other replicas under the same idempotency key, so that it is in the log once. `to` is an agent's name, several names,
        an `Address`, or a whole `Message`. For many messages in order, and in flight together, open a `session`.

        ```python
        sent = await agent.send("worker-a", {"document": "readme"}, topic="task")
        await agent.send(acb.Message.to_group("workers", {"document": "readme"}, topic="task"))
        ```
        """
        message = message_of(to, payload, fields).build()
        with _telemetry.traced(message.traceparent, message.tracestate):
            response = await self._call("send", "MessageService.SendMessage", _wire.new("SendMessageRequest", message=message))
        return Sent(response.message_id, response.deduplicated)

    async def request(
        self,
        to: Message | str | Address,
        payload: object = NOTHING,
        *,
        within: Length = REPLY_WITHIN,
        **fields: Unpack[MessageFields],
    ) -> Received:
        """Sends a query and waits for its reply, at most for `within` (up to 5 minutes).

        ```python
        answer = await agent.request("librarian", "isolation", topic="lookup", within=10)
        print(answer.failure or answer.json(list[str]))
        ```
        """
        message = message_of(to, payload, fields).build(query=True)
        length = seconds(within, "within")
        until = time.monotonic() + length

        def request() -> Any:
            # The hub takes an empty timeout for a mistake of the caller.
            left = max(until - time.monotonic(), 0.001)
            return _wire.new("RequestRequest", message=message, timeout=_wire.duration(left))

        with _telemetry.traced(message.traceparent, message.tracestate):
            response = await self._call("request", "MessageService.Request", request, within=length + REPLY_SLACK, until=until, slack=REPLY_SLACK)
        if not response.HasField("reply"):
            raise Refused(Code.INTERNAL, "", "request: the hub answered without a reply")
        return Received(response.reply, self)

    def session(
        self,
        *,
        receive: bool = True,
        max_unacknowledged: int = 100,
        filter: str = "",
        take_over: bool = True,
        reconnect_for: Length = RECONNECT_FOR,
    ) -> Session:
        """A session that sends, receives and acknowledges on one stream: `async with agent.session() as session`.

        An agent has one session that receives: a newer one ends the older, unless it is told not to.

        `receive`: one that only sends takes nothing from the mailbox, and ends no other session of the agent. `max_unacknowledged`: how many
        messages may be with the application at once, 1 to 1,000. `filter`: those messages alone that match, a CEL expression over `message`, such
        as `message.topic == "orders"`; others stay unread. `take_over`: whether to end the session of another program that receives for this
        agent; otherwise this one is refused with `RECEIVER_PRESENT`. `reconnect_for`: how long to try to connect again before the session ends.
        """
        return Session(
            self,
            receive=receive,
            max_unacknowledged=max_unacknowledged,
            filter=filter,
            take_over=take_over,
            reconnect_for=reconnect_for,
        )

    async def messages(
        self,
        *,
        max_unacknowledged: int = 100,
        filter: str = "",
        take_over: bool = True,
        reconnect_for: Length = RECONNECT_FOR,
    ) -> AsyncGenerator[Received, None]:
        """The messages of this agent as they come, on a session of their own: see `session`. Acknowledge each with `ack`, or handle it in `with`.

        One that is neither acknowledged nor released stays with the program as long as anything refers to it; then it comes again.
        """
        session = self.session(max_unacknowledged=max_unacknowledged, filter=filter, take_over=take_over, reconnect_for=reconnect_for)
        async with session:
            while (received := await session._next_or_stopped()) is not None:
                yield received
                del received

    def on(self, topic: str) -> Callable[[Function], Function]:
        """Registers the handler of a topic, for `run`.

        It takes the payload, decoded to the type of its first argument (a dataclass, a model of pydantic, `dict`, `list[int]`, `str`, `bytes`), and
        the message where it has a second argument. A first argument of type `acb.Received` is the message itself. What it returns, other than
        `None`, is sent as the answer. Where it raises, or its payload can't be decoded, that is logged and the message is not acknowledged, so
        that it comes again. A plain function (`def`) runs in a thread, and may block.

        ```python
        @agent.on("square")
        async def square(number: int) -> int:
            return number * number

        await agent.run()
        ```
        """
        return self._handlers.on(topic)

    def on_other(self, function: Function) -> Function:
        """Registers the handler of every topic that has none."""
        return self._handlers.on_other(function)

    async def run(
        self,
        *,
        handler_timeout: Length | None = None,
        concurrency: int = 1,
        max_unacknowledged: int = 100,
        filter: str = "",
        take_over: bool = True,
        reconnect_for: Length = RECONNECT_FOR,
        view: Callable[[Received], Any] | None = None,
    ) -> None:
        """Hands messages to the handlers of `on`, until `stop` or the end of the session, which is an error. See `Session.run` and `session`."""
        if not self._handlers:
            raise UsageError("there is no handler: register one with @agent.on(topic)")
        session = Session(
            self,
            max_unacknowledged=max_unacknowledged,
            filter=filter,
            take_over=take_over,
            reconnect_for=reconnect_for,
            handlers=self._handlers,
        )
        async with session:
            await session.run(handler_timeout=handler_timeout, concurrency=concurrency, view=view)

    def stop(self) -> None:
        """Has `run` and `messages` end after what is being handled, such as from `loop.add_signal_handler(signal.SIGTERM, agent.stop)`."""
        for session in list(self._sessions):
            session.stop()

    # The end.

    async def close(self) -> None:
        """Ends its sessions in order, and closes the connection. `async with` does that by itself."""
        if self._closed:
            return
        try:
            if self._sessions:
                await asyncio.gather(*(session.close() for session in list(self._sessions)))
        finally:
            # Also where whoever closes it waits no longer.
            self._closed = True
            await self._replicas.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()


class Connecting:
    """A client that is to be: `async with acb.connect() as agent`, or `agent = await acb.connect()` and `await agent.close()`."""

    def __init__(self, said: Arguments, retry_for: float, through: str | None) -> None:
        self._said = said
        self._retry_for = retry_for
        self._through = through
        self._client: Client | None = None

    async def _connect(self) -> Client:
        config = await asyncio.to_thread(find, self._said)
        client = Client(config.servers, config.ca, config.credential, retry_for=self._retry_for, through=self._through)
        try:
            await client._connect()
        except BaseException:
            await client.close()
            raise
        return client

    def __await__(self) -> Generator[Any, None, Client]:
        return self._connect().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._connect()
        return self._client

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._client is not None:
            await self._client.close()


def connect(
    server: str | Iterable[str] | None = None,
    *,
    ca: str | bytes | None = None,
    ca_file: AnyPath | None = None,
    system_roots: bool = False,
    api_key: str | ApiKey | None = None,
    api_key_file: AnyPath | None = None,
    token_file: AnyPath | None = None,
    tokens: Tokens | None = None,
    profile: str | None = None,
    retry_for: Length = 30.0,
    through: str | None = None,
) -> Connecting:
    """Connects and authenticates: `async with acb.connect() as agent`.

    Without arguments it finds its hub by the environment, the profile of `acb login`, or the files of its pod: docs/sdk-config.md.

    `server`: the replicas of the hub, as `https://host:port`, several with commas or as a list. The client starts with any, and goes to the next
    where one fails. `ca`, `ca_file`: the tenant's CA, as PEM; no other is trusted, unless `system_roots` adds those of the system. One of `api_key`,
    `api_key_file`, `token_file` (the projected token of a Kubernetes ServiceAccount, read each time that a token is needed), and `tokens` that were
    exchanged elsewhere. `profile`: one of `acb login`, in the place of all of these.

    `retry_for`: how long a call is tried while no replica answers, with all that belongs to it, such as connecting; 5 s at least. Transfers count it
    from their last progress. `through`: connects to this `host:port`, such as that of a port-forward, rather than to those of the server, whose names
    the certificate has to be for all the same.
    """
    said = Arguments(
        server=server,
        ca=ca,
        ca_file=ca_file,
        system_roots=system_roots,
        api_key=api_key,
        api_key_file=api_key_file,
        token_file=token_file,
        tokens=tokens,
        profile=profile,
    )
    return Connecting(said, seconds(retry_for, "retry_for"), through)
