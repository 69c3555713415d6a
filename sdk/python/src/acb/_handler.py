"""Handlers of received messages, by topic."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import typing
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from . import _telemetry
from ._correlation import correlated
from ._error import Error, UsageError
from ._message import Received, View, answer_of

_LOG = logging.getLogger("acb")

Function = TypeVar("Function", bound=Callable[..., Any])

#: Threads of handlers that outlived their time, and still run. With so many, the next message waits until one of them ends.
MOST_LATE = 8
#: A loop that runs nothing for so long is held up by a handler.
BLOCKED = 5.0
_LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class _Handler:
    call: Callable[..., Any]
    #: What its first argument is; `Received` for the message itself.
    kind: Any
    #: How many arguments it takes.
    arguments: int
    is_async: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> _Handler:
        try:
            parameters = [
                one
                for one in inspect.signature(function).parameters.values()
                if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty
            ]
        except (TypeError, ValueError):
            raise UsageError(f"{function!r} can't be a handler") from None
        name = getattr(function, "__qualname__", repr(function))
        if not 1 <= len(parameters) <= 2:
            raise UsageError(f"a handler takes a payload, or a payload and its message: {name} takes {len(parameters)} arguments")
        try:
            hints = typing.get_type_hints(function if inspect.isroutine(function) else type(function).__call__)
        except NameError as error:
            # Types that are defined in a function are not found by their names.
            raise UsageError(f"the types of handler {name} can't be read: {error}; define them at the top of a module") from None
        kind = hints.get(parameters[0].name, Any)
        if isinstance(kind, type) and issubclass(kind, View) and len(parameters) == 2:
            raise UsageError(f"handler {name}: the payload comes first, then the message")
        call = function if inspect.isroutine(function) else type(function).__call__.__get__(function)
        return cls(function, kind, len(parameters), inspect.iscoroutinefunction(call))

    def takes(self, received: Received) -> tuple[Any, ...]:
        if isinstance(self.kind, type) and issubclass(self.kind, View):
            return (received,)
        payload: Any = received.decode(self.kind)
        return (payload,) if self.arguments == 1 else (payload, received)


class Handlers:
    """Who handles which topic.

    A handler takes the payload, decoded to the type of its first argument, and (where it has a second one) the message. A first argument of type
    `Received` is the message itself. What it returns, other than `None`, is sent as the answer. A plain function runs in a thread, so that it may
    block.
    """

    def __init__(self) -> None:
        self._by_topic: dict[str, _Handler] = {}
        self._other: _Handler | None = None
        self._threads = _Threads()

    def on(self, topic: str) -> Callable[[Function], Function]:
        """Registers the handler of a topic."""

        def register(function: Function) -> Function:
            self._by_topic[topic] = _Handler.of(function)
            return function

        return register

    def on_other(self, function: Function) -> Function:
        """Registers the handler of every topic that has none."""
        self._other = _Handler.of(function)
        return function

    def __bool__(self) -> bool:
        return bool(self._by_topic) or self._other is not None

    async def handle(
        self,
        received: Received,
        within: float | None = None,
        view: Callable[[Received], Any] | None = None,
        stopped: asyncio.Event | None = None,
    ) -> None:
        """Handles one message; acknowledges it where its handler succeeded within this time. `view` is how a handler sees it.

        What has not begun when it is `stopped` does not begin.
        """
        handler = self._by_topic.get(received.topic, self._other)
        if handler is None:
            _LOG.warning("no handler for topic %r: message %s is not acknowledged", received.topic, received.id)
            received.release()
            return
        watch = _Watch(received.topic)
        limit: asyncio.Timeout | None = None
        try:
            with correlated(received.correlation_id), _telemetry.handled(received.wire()):
                arguments = tuple(view(one) if view and one is received else one for one in handler.takes(received))
                if not handler.is_async and not await self._threads.room(received.topic, stopped):
                    received.release()
                    return
                async with asyncio.timeout(within) as limit:
                    answer = await self._run(handler, arguments)
                if answer is not None:
                    await received.reply(answer_of(answer, {}))
        except asyncio.CancelledError:
            received.release()
            raise
        except Exception as error:
            if limit is not None and limit.expired():
                why, trace = f"it took longer than {within:.0f} s", False
            else:
                # The errors of the SDK say all that there is to say. Of others the trace says where.
                why, trace = repr(error), not isinstance(error, Error)
            _LOG.error("the handler of topic %r failed: message %s is not acknowledged: %s", received.topic, received.id, why, exc_info=trace)
            received.release()
        else:
            received.ack()
        finally:
            watch.end()

    async def _run(self, handler: _Handler, arguments: tuple[Any, ...]) -> Any:
        if handler.is_async:
            return await handler.call(*arguments)
        answer = await self._threads.run(handler.call, arguments)
        # Such as of a lambda, or a partial, that calls a coroutine function.
        return await answer if isinstance(answer, Awaitable) else answer


class _Watch:
    """Says that a handler held the loop up: until it let go, the hub heard nothing of this agent."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._loop = asyncio.get_running_loop()
        self._look_again()

    def _look_again(self) -> None:
        self._due = self._loop.time() + _LOOK_EVERY
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._judge()
        self._look_again()

    def _judge(self) -> None:
        if (late := self._loop.time() - self._due) >= BLOCKED:
            _LOG.warning(
                "the event loop stood still for %.0f s while topic %r was handled: a handler that blocks has to be a plain function (def)",
                late,
                self._topic,
            )

    def end(self) -> None:
        """The handler is done."""
        self._timer.cancel()
        self._judge()


class _Threads:
    """Calls functions that may block, each in a thread of its own: one that never returns keeps neither the loop nor the program from ending.

    A thread can't be stopped. One that outlives its time goes on, and those that do are bounded.
    """

    def __init__(self) -> None:
        self._late = 0
        self._ended = asyncio.Event()

    async def room(self, topic: str, stopped: asyncio.Event | None) -> bool:
        """Waits where too many outlived their time. Whether there is room: there is none where it is stopped meanwhile."""
        if self._late >= MOST_LATE:
            _LOG.warning("%d threads of handlers run on after their time: a message of topic %r waits for the end of one", self._late, topic)
        while self._late >= MOST_LATE:
            self._ended.clear()
            waits = [asyncio.ensure_future(event.wait()) for event in (self._ended, stopped) if event is not None]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if stopped is not None and stopped.is_set():
                return False
        return True

    async def run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        is_late = False

        def tell(result: Any, error: BaseException | None) -> None:
            if is_late:
                self._late -= 1
                self._ended.set()
            if outcome.done():
                return
            if error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)

        def run() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = context.run(function, *arguments)
            except StopIteration as stop:
                # A future can't hold one.
                error = RuntimeError(f"the handler raised {stop!r}")
            except BaseException as failed:
                error = failed
            # Where the loop is closed nobody waits for it any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, result, error)

        threading.Thread(target=run, name="acb-handler", daemon=True).start()
        try:
            return await outcome
        except asyncio.CancelledError:
            # Cancelled, it has not told its outcome, or that came in the same moment.
            if outcome.cancelled():
                is_late = True
                self._late += 1
            raise
