"""Follows the contexts of one type, over broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

import grpc.aio

from . import _wire
from ._calls import ATTEMPT, Calls, Line, Next
from ._error import Error, TimedOut, Unavailable
from ._types import ContextEvent, EventKind, Position, read

#: Where a subscription starts: `None` with the next change, `"start"` with the oldest that the log still holds, a time with the first that the
#: log took then or later, positions after these.
Since = None | Literal["start"] | datetime | Iterable[Position]


class Subscription:
    """Changes of the contexts of one type. Where the connection breaks it goes on after the last one, with any replica.

    With a filter, an event of kind `LEFT` tells of a context that matched, and does not since an update.

    ```python
    async with agent.subscribe("documents") as documents:
        async for event in documents:
            print(event.kind.name, event.context)
    ```

    Once it is entered nothing more is missed. `await agent.subscribe(…)` opens it without a block; then `close` it.
    """

    def __init__(self, calls: Calls, context_type: str, filter: str, since: Since) -> None:
        self._calls = calls
        self._type = context_type
        self._filter = filter
        self._from: Literal["start"] | datetime | None = None
        self._positions: dict[int, Position] = {}
        #: Whether the hub has said where this subscription stands. Without a position that is before the first record of the log.
        self._stands = False
        if since is None or isinstance(since, str | datetime):
            self._from = since
        else:
            self._positions = {position.partition: position for position in since}
            self._stands = True
        self._stream: tuple[Line, Any] | None = None
        self._held = AsyncExitStack()
        self._patience = calls._patience()
        self._renewed = False
        self._closed = False

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def _open(self) -> Self:
        await self._ensure_open()
        return self

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[ContextEvent]:
        while not self._closed:
            yield await self.next()

    @property
    def positions(self) -> list[Position]:
        """Where the subscription stands, to go on later with `subscribe(…, since=positions)`."""
        return sorted(self._positions.values(), key=lambda position: position.partition)

    async def close(self) -> None:
        """Ends it."""
        self._closed = True
        await self._let_go()

    async def next(self) -> ContextEvent:
        """The next change. After an error the subscription is over."""
        while True:
            line, call = await self._ensure_open()
            try:
                wire = await call.read()
            except grpc.aio.AioRpcError as status:
                await self._recover(line, status)
                continue
            except asyncio.CancelledError:
                # Cancelling a read ends the call: the next one goes on from here.
                await self._let_go()
                task = asyncio.current_task()
                if self._calls._closed and not (task and task.cancelling()):
                    raise Unavailable("the client was closed") from None
                raise
            if wire is grpc.aio.EOF:
                self._calls._leave(line)
                await self._pause(Unavailable("the hub closed the subscription"))
                continue
            self._patience.renew()
            event = self._note(wire)
            # The two that only say where the subscription stands.
            if event.kind not in (EventKind.SUBSCRIBED, EventKind.BOOKMARK):
                return event

    def _note(self, wire: Any) -> ContextEvent:
        event: ContextEvent = read(wire)
        self._stands = True
        for position in (*event.positions, *([event.position] if event.position else [])):
            self._positions[position.partition] = position
        return event

    async def _ensure_open(self) -> tuple[Line, Any]:
        while self._stream is None:
            if self._closed:
                raise Unavailable("the subscription is closed")
            try:
                line = await self._held.enter_async_context(self._calls._line())
            except Error as error:
                if not error.is_retryable:
                    raise error.during(self._name()) from None
                await self._pause(error)
                continue
            call = line.start("ContextService.Subscribe", self._request())
            self._held.callback(call.cancel)
            try:
                async with asyncio.timeout(ATTEMPT):
                    first = await call.read()
            except grpc.aio.AioRpcError as status:
                await self._recover(line, status)
            except TimeoutError:
                self._calls._leave(line)
                await self._pause(TimedOut("the hub did not open the subscription in time"))
            except BaseException:
                await self._let_go()
                raise
            else:
                if first is grpc.aio.EOF or first.kind != EventKind.SUBSCRIBED:
                    self._calls._leave(line)
                    await self._pause(Unavailable("the hub did not open the subscription"))
                    continue
                self._note(first)
                self._renewed = False
                self._stream = (line, call)
        return self._stream

    def _request(self) -> Any:
        request = _wire.new("SubscribeRequest", type=self._type, filter=self._filter)
        if self._stands:
            request.after.SetInParent()
            request.after.positions.extend(position.to_wire() for position in self.positions)
        elif self._from == "start":
            request.start = True
        elif isinstance(self._from, datetime):
            request.time.CopyFrom(_wire.time(self._from))
        else:
            request.now = True
        return request

    async def _recover(self, line: Line, status: grpc.aio.AioRpcError) -> None:
        then, error = self._calls._judge(line, status, self._renewed)
        if then is Next.AGAIN:
            self._renewed = True
            await self._let_go()
        elif then is Next.LATER:
            await self._pause(error)
        else:
            await self._let_go()
            raise error.during(self._name())

    async def _pause(self, error: Error) -> None:
        await self._let_go()
        try:
            await self._patience.wait(error)
        except Error as over:
            raise over.during(self._name()) from None

    async def _let_go(self) -> None:
        self._stream = None
        await self._held.aclose()

    def _name(self) -> str:
        return f"subscribe to {self._type!r}"
