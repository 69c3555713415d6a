"""A session: sends in order, receives and acknowledges, over whichever connection there is at the moment."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack

from ._driver import Driver
from ._error import Error, UsageError
from ._handler import Function, Handlers
from ._message import NOTHING, Message, MessageFields, Received, message_of
from ._time import Length, seconds
from ._types import Address, Sent

_LOG = logging.getLogger("acb")

#: How long an orderly end may take.
CLOSING = 5.0
RECONNECT_FOR = 300.0


class Receipt:
    """Becomes the outcome of a sent message: `await` it. Without its outcome a message may be lost unnoticed."""

    __slots__ = ("_outcome",)

    def __init__(self, outcome: asyncio.Future[Sent]) -> None:
        self._outcome = outcome

    def __await__(self) -> Generator[Any, None, Sent]:
        # Whoever stops waiting does not take the message back.
        return asyncio.shield(self._outcome).__await__()


class Session:
    """Sends, receives and acknowledges on one stream. Use it as `async with agent.session() as session`.

    Where the connection breaks, the session goes on with any replica: what was sent and not yet acknowledged is sent again first, oldest first,
    under the same keys; what was received and handled is not handed over a second time.

    ```python
    async with agent.session() as session:
        @session.on("task")
        async def task(task: Task, message: acb.Received) -> None:
            await message.reply(task.document, topic="done")

        await session.run()
    ```
    """

    def __init__(
        self,
        client: Any,
        *,
        receive: bool = True,
        max_unacknowledged: int = 100,
        filter: str = "",
        take_over: bool = True,
        reconnect_for: Length = RECONNECT_FOR,
        handlers: Handlers | None = None,
    ) -> None:
        if not 1 <= max_unacknowledged <= 1000:
            raise UsageError(f"max_unacknowledged is {max_unacknowledged}: 1 to 1,000 can be")
        self._client = client
        self._opening = {
            "receive": receive,
            "max_unacknowledged": max_unacknowledged,
            "receiver": str(uuid.uuid4()),
            "take_over": take_over,
            "filter": filter,
        }
        self._capacity = max_unacknowledged
        self._reconnect_for = seconds(reconnect_for, "reconnect_for")
        self._handlers = handlers or Handlers()
        self._driver: Driver | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        #: Who handles messages now: `run`, and with a concurrency its tasks.
        self._handling: set[asyncio.Task[Any]] = set()
        self._handled = asyncio.Event()

    async def open(self) -> Self:
        """Opens it. Fails where the hub refuses it, or where none answers within the client's time."""
        if self._driver is not None:
            raise UsageError("the session is open already, or was: make another one")
        self._client._check()
        driver = Driver(self._client, self._client, self._opening, self._reconnect_for, self._capacity)
        self._driver = driver
        self._task = asyncio.create_task(driver.run(), name="acb-session")
        self._client._sessions.add(self)
        try:
            await asyncio.shield(driver.opened)
        except BaseException:
            self._abandon()
            raise
        return self

    def _opened(self) -> Driver:
        if self._driver is None:
            raise UsageError("the session is not open: use `async with agent.session() as session`")
        return self._driver

    @property
    def replica(self) -> str:
        """The name of the replica that holds the session now."""
        return self._opened().replica

    async def send(self, to: Message | str | Iterable[str] | Address, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Sent:
        """Sends one message and waits until it is durable."""
        return await (await self.enqueue(to, payload, **fields))

    async def enqueue(self, to: Message | str | Iterable[str] | Address, payload: object = NOTHING, **fields: Unpack[MessageFields]) -> Receipt:
        """Sends without waiting for what was sent before. Waits only where too much is outstanding (256 messages or 16 MiB).

        Where the hub refuses a message, that one alone fails. What was sent behind it is sent all the same, in order: wait for the outcome where
        the next message makes no sense without the last.
        """
        driver = self._opened()
        self._client._check()
        return Receipt(await driver.send(message_of(to, payload, fields).build()))

    async def next(self) -> Received:
        """The next message, for those who want no handlers. An error is the end of the session."""
        driver = self._opened()
        self._client._check()
        received = await driver.next()
        if received is None:
            raise driver.why_ended()
        received.start()
        return received

    async def __aiter__(self) -> AsyncIterator[Received]:
        """The messages as they come. Ends with `close` or `stop`; an error is the end of the session."""
        while (received := await self._next_or_stopped()) is not None:
            yield received
            del received

    async def _next_or_stopped(self) -> Received | None:
        driver = self._opened()
        if self._stop.is_set():
            return None
        self._client._check()
        received = await driver.next()
        if received is not None:
            received.start()
            return received
        if driver._closing or self._stop.is_set():
            return None
        raise driver.why_ended()

    def on(self, topic: str) -> Callable[[Function], Function]:
        """Registers the handler of a topic: see `Client.on`."""
        return self._handlers.on(topic)

    def on_other(self, function: Function) -> Function:
        """Registers the handler of every topic that has none."""
        return self._handlers.on_other(function)

    async def run(
        self,
        *,
        handler_timeout: Length | None = None,
        concurrency: int = 1,
        view: Callable[[Received], Any] | None = None,
    ) -> None:
        """Hands messages to their handlers until the session ends, or until `stop`.

        One after another, in the order of their arrival; with a `concurrency`, up to so many at a time. A handler that takes longer than
        `handler_timeout` is cancelled, and its message not acknowledged; without one it may take for ever, and the hub is told that it is at work.
        """
        if concurrency < 1:
            raise UsageError(f"concurrency is {concurrency}: 1 or more can be")
        within = None if handler_timeout is None else seconds(handler_timeout, "handler_timeout")
        running: set[asyncio.Task[None]] = set()
        this = asyncio.current_task()
        assert this is not None  # noqa: S101 - a coroutine is run by a task.
        self._handling.add(this)
        try:
            while (received := await self._next_or_stopped()) is not None:
                if concurrency == 1:
                    await self._handlers.handle(received, within, view, self._stop)
                else:
                    task = asyncio.create_task(self._handlers.handle(received, within, view, self._stop))
                    for tasks in (running, self._handling):
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                    if len(running) >= concurrency:
                        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                del received
            if running:
                await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.gather(*running, return_exceptions=True)
            self._handling.discard(this)
            self._handled.set()

    def stop(self) -> None:
        """Has `run`, and whoever iterates, end after what is being handled. Nothing more is handed over."""
        self._stop.set()
        if self._driver is not None:
            self._driver.stop()

    async def close(self) -> None:
        """Ends the session in order: what is being handled comes to its end, and what was acknowledged or sent is handed to the hub.

        For each of the two it waits 5 s at most.

        A session that is only dropped may leave its last acknowledgements behind, so that their messages are delivered again.
        """
        self._stop.set()
        task, driver = self._task, self._driver
        if task is None or driver is None:
            return
        driver.stop()
        try:
            # A handler that closes its own session would wait for itself.
            if self._handling and asyncio.current_task() not in self._handling:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSING):
                        await self._handled.wait()
            driver.close()
            done, _ = await asyncio.wait([task], timeout=CLOSING)
            if not done:
                _LOG.warning("the session did not close in time")
        finally:
            self._abandon()
        with suppress(asyncio.CancelledError, Error):
            await asyncio.wait([task], timeout=CLOSING)

    def _abandon(self) -> None:
        self._client._sessions.discard(self)
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()
