"""A stream of answers that is opened again where it breaks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Generator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import grpc.aio

from ._backoff import Limited
from ._calls import ATTEMPT, Calls, Line, Next
from ._error import Error, TimedOut, Unavailable

_LOG = logging.getLogger("acb")

#: What was open for so long was not opened in vain, also where nothing came.
STEADY = 10.0


class Reopened:
    """One stream of a call whose first answer comes at once. What is made of it keeps where it is, and opens it from there.

    Use it as `async with`, or await it and `close` it.
    """

    _method = ""

    def __init__(self, calls: Calls, name: str) -> None:
        self._calls = calls
        #: What errors say that was done.
        self._name = name
        self._stream: tuple[Line, Any] | None = None
        self._held = AsyncExitStack()
        self._patience = calls._patience(time.monotonic())
        self._limited = Limited()
        self._renewed = False
        self._opened_at = 0.0
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

    async def close(self) -> None:
        """Ends it."""
        self._closed = True
        await self._let_go()

    def _request(self) -> Any:
        """What the stream is opened with, now."""
        raise NotImplementedError

    def _begin(self, first: Any) -> bool:
        """Takes the first answer. Says whether it is one."""
        raise NotImplementedError

    async def _answer(self) -> Any:
        """The next answer after the first. After an error it is over."""
        while True:
            line, call = await self._ensure_open()
            try:
                answer = await call.read()
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
            if answer is grpc.aio.EOF:
                self._calls._leave(line)
                await self._pause(Unavailable("the hub closed the stream"))
                continue
            self._patience.renew()
            return answer

    async def _ensure_open(self) -> tuple[Line, Any]:
        while self._stream is None:
            if self._closed:
                raise Unavailable(f"{self._name}: it is closed")
            try:
                line = await self._held.enter_async_context(self._calls._line(self._patience.until))
            except Error as error:
                if not error.is_retryable:
                    raise error.during(self._name) from None
                await self._pause(error)
                continue
            call = line.start(self._method, self._request())
            self._held.callback(call.cancel)
            try:
                async with asyncio.timeout(ATTEMPT):
                    first = await call.read()
            except grpc.aio.AioRpcError as status:
                await self._recover(line, status)
            except TimeoutError:
                self._calls._leave(line)
                await self._pause(TimedOut("the hub did not open the stream in time"))
            except BaseException:
                await self._let_go()
                raise
            else:
                if first is grpc.aio.EOF or not self._begin(first):
                    self._calls._leave(line)
                    await self._pause(Unavailable("the hub did not open the stream"))
                    continue
                self._renewed, self._limited, self._opened_at = False, Limited(), time.monotonic()
                self._stream = (line, call)
        return self._stream

    async def _recover(self, line: Line, status: grpc.aio.AioRpcError) -> None:
        then, error = self._calls._judge(line, status, self._renewed)
        if then is Next.LATER:
            await self._pause(error)
            return
        await self._let_go()
        if then is Next.AGAIN:
            self._renewed = True
            return
        # Such as too many streams: those of a replica that died count for a while.
        again = self._limited.again_at(error, time.monotonic())
        if again is None:
            raise error.during(self._name)
        _LOG.warning("waiting for a limit: %s", error)
        await asyncio.sleep(max(0.0, again - time.monotonic()))

    async def _pause(self, error: Error) -> None:
        await self._let_go()
        try:
            await self._patience.wait(error)
        except Error as over:
            raise over.during(self._name) from None

    async def _let_go(self) -> None:
        if self._stream is not None and time.monotonic() - self._opened_at >= STEADY:
            self._patience.renew()
        self._stream = None
        await self._held.aclose()
