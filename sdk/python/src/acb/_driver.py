"""What drives a session: one connection after another, and what has to outlive each of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from typing import Any

import grpc.aio

from . import _wire
from ._backoff import Limited, Patience
from ._calls import ATTEMPT, Calls, Line, Next
from ._error import Code, Error, Refused, TimedOut, Unavailable, broke
from ._inbox import Inbox
from ._message import Received
from ._types import Sent

_LOG = logging.getLogger("acb")

MOST_PENDING = 256
MOST_PENDING_BYTES = 16 << 20
#: A connection that lasted so long was of use.
STEADY = 10.0
#: A session that was open, and finds another program in its place, tries again for so long: a hub knows a session for 10 s after its replica was
#: killed, and so also that of a program which took over and is gone.
PRESENT_FOR = 15.0
#: The reason of such a refusal.
RECEIVER_PRESENT = "RECEIVER_PRESENT"

#: What passes by itself, at the same replica or at another.
_PASSING = (Code.RESOURCE_EXHAUSTED, Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN)


class _Pending:
    """A message that is sent, or to be sent, and not acknowledged."""

    __slots__ = ("bytes", "limited", "message", "outcome", "sequence")

    def __init__(self, message: Any, outcome: asyncio.Future[Sent]) -> None:
        self.sequence = 0
        self.bytes = message.ByteSize()
        self.message = message
        self.outcome = outcome
        self.limited = Limited()


class _Broken(Exception):
    """The session can go on with another connection."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


class _Unwanted(Exception):
    """Nobody wants the session any more."""


class Driver:
    """Holds what is pending and what was received, and moves both over whichever connection there is."""

    def __init__(self, calls: Calls, replier: Any, opening: dict[str, Any], reconnect_for: float, capacity: int) -> None:
        self._calls = calls
        self._replier = replier
        #: How each connection begins: that the receiver is the same is how the hub knows the session again.
        self._opening = opening
        self._reconnect_for = reconnect_for
        self._capacity = capacity
        self._wake = asyncio.Event()
        self.inbox = Inbox(self._wake.set)
        self._deliveries: deque[Received] = deque()
        self._delivered = asyncio.Event()
        self._taken = asyncio.Event()
        #: Oldest first. Outlives connections.
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._room = asyncio.Event()
        self._sending = asyncio.Lock()
        #: How many of `_pending` were written on the current connection.
        self._written = 0
        #: The number of a message that the hub refused on the current connection. It fails what was written behind that, until it has seen the
        #: number again.
        self._refused: int | None = None
        #: A limit has no room before that: nothing more is sent on this session until then, so that its order stays.
        self._limited_until: float | None = None
        self._next_sequence = 1
        #: Whether the present connection has brought anything yet: a message, or the outcome of one.
        self._progressed = False
        self._renewed = False
        #: Since when each try has found another program in its place.
        self._present_since: float | None = None
        self._closing = False
        self._stopped = False
        #: Whether a hub holds the session now.
        self._connected = False
        self._task: asyncio.Task[Any] | None = None
        #: Why the session ended, once it did.
        self.end: Error | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: The name of the replica that holds the session now.
        self.replica = ""

    # What the session asks.

    async def send(self, message: Any) -> asyncio.Future[Sent]:
        """Takes a message; waits where too much is outstanding."""
        async with self._sending:
            while len(self._pending) >= MOST_PENDING or self._pending_bytes >= MOST_PENDING_BYTES:
                if self.end is not None or self._closing:
                    break
                self._room.clear()
                await self._room.wait()
            if self.end is not None or self._closing:
                raise self.why_ended()
            pending = _Pending(message, asyncio.get_running_loop().create_future())
            pending.sequence = self._next_sequence
            self._next_sequence += 1
            self._pending.append(pending)
            self._pending_bytes += pending.bytes
            self._wake.set()
            return pending.outcome

    async def next(self) -> Received | None:
        """The next message; `None` at the end."""
        while not self._deliveries:
            if self.end is not None or self._closing or self._stopped:
                return None
            self._delivered.clear()
            await self._delivered.wait()
        received = self._deliveries.popleft()
        self._taken.set()
        return received

    def stop(self) -> None:
        """Hands nothing more over."""
        self._stopped = True
        self._deliveries.clear()
        self._delivered.set()

    def close(self) -> None:
        """Has it end in order: what was acknowledged or sent is handed to the hub first."""
        self._closing = True
        # What the application has not begun with, it does not get any more.
        self._deliveries.clear()
        for event in (self._wake, self._delivered, self._taken, self._room):
            event.set()
        # Nothing is left to be said: nobody has to be found to say it to.
        if self._task is not None and not self._connected and self._is_done():
            self._task.cancel()

    def _is_done(self) -> bool:
        """Whether an orderly end has nothing more to hand to the hub. What an earlier connection delivered can't be acknowledged on another."""
        return self._closing and not self._pending

    def why_ended(self) -> Error:
        """The error of who wants something of it afterwards."""
        return self.end.copy() if self.end is not None else Unavailable("the session is closed")

    # What the task does.

    async def run(self) -> None:
        """Until it ends. Its error is `end`."""
        error: Error = Unavailable("the session was ended with its program")
        self._task = asyncio.current_task()
        try:
            error = await self._run()
        except asyncio.CancelledError:
            if self._is_done():
                error = Unavailable("the session is closed")
            raise
        except Error as failed:
            error = failed
        except Exception as failed:
            # A defect of this program: whoever waits is told, rather than left to wait.
            _LOG.exception("the session failed")
            error = Refused(Code.INTERNAL, "", f"the session failed: {failed!r}")
        finally:
            self._finish(error)

    def _finish(self, error: Error) -> None:
        self.end = error
        if not self.opened.done():
            self.opened.set_exception(error.during("session"))
            # Its opener may have been cancelled meanwhile: then nobody looks.
            self.opened.exception()
        for pending in self._pending:
            self._tell(pending, error)
        self._pending.clear()
        self._pending_bytes = 0
        for event in (self._delivered, self._taken, self._room):
            event.set()

    async def _run(self) -> Error:
        patience = self._calls._patience(time.monotonic())
        while True:
            if self._is_done():
                return Unavailable("the session is closed")
            try:
                async with self._calls._line(patience.until) as line:
                    call = await self._open(line)
                    self._connected = True
                    try:
                        if self.opened.done():
                            _LOG.info(
                                "session reconnected to %s, %d messages are sent again",
                                self.replica,
                                len(self._pending),
                            )
                        else:
                            patience = Patience(self._reconnect_for)
                            self.opened.set_result(None)
                        self._progressed = False
                        began = time.monotonic()
                        try:
                            await self._converse(line, call)
                        finally:
                            # A hub that opens sessions and then fails what they are for is not tried again and again at once.
                            if self._progressed or time.monotonic() - began >= STEADY:
                                patience.renew()
                    finally:
                        self._connected = False
                        call.cancel()
            except _Unwanted:
                return Unavailable("the session is closed")
            except _Broken as broken:
                _LOG.debug("session broke: %s", broken.error)
                if broken.error.reason != RECEIVER_PRESENT:
                    # Whoever was in its place may have gone since.
                    self._present_since = None
                if not self._is_done():
                    await patience.wait(broken.error)
            except Error as error:
                if not error.is_retryable:
                    raise
                self._present_since = None
                if not self._is_done():
                    await patience.wait(error)

    async def _open(self, line: Line) -> Any:
        call = line.start("MessageService.Session")
        try:
            async with asyncio.timeout(ATTEMPT):
                # Where the hub refuses at once, reading says why.
                with suppress(_Deaf):
                    await self._write(call, open=_wire.new("SessionRequest.Open", **self._opening))
                first = await self._read(line, call)
        except TimeoutError:
            call.cancel()
            self._calls._leave(line)
            raise _Broken(TimedOut("the hub did not open the session in time")) from None
        except BaseException:
            call.cancel()
            raise
        if first is None or first.WhichOneof("frame") != "opened":
            call.cancel()
            self._calls._leave(line)
            raise _Broken(Unavailable("the hub closed the session at once"))
        self._renewed = False
        # Who takes over from now on does it after this session: connected again, it must not end that one.
        self._opening = {**self._opening, "take_over": False}
        self._calls._name_replica(first.opened.replica)
        self.replica = first.opened.replica
        self.inbox.forget_deliveries()
        self._written = 0
        self._refused = None
        return call

    async def _converse(self, line: Line, call: Any) -> None:
        """Both directions, until the first of them ends."""
        listening = asyncio.create_task(self._listen(line, call))
        speaking = asyncio.create_task(self._speak(call))
        directions = (listening, speaking)
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():
                # A closed outbound half shows its reason on the inbound one.
                await asyncio.wait([listening], timeout=ATTEMPT)
            if listening.done():
                listening.result()
            with suppress(_Deaf):
                speaking.result()
            self._calls._leave(line)
            raise _Broken(Unavailable("the hub closed the session"))
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _listen(self, line: Line, call: Any) -> None:
        while True:
            response = await self._read(line, call)
            if response is None:
                if self._is_done():
                    raise _Unwanted
                self._calls._leave(line)
                raise _Broken(Unavailable("the hub closed the session"))
            match response.WhichOneof("frame"):
                case "sent":
                    try:
                        self._settle(response.sent)
                    except _Broken:
                        self._calls._leave(line)
                        raise
                case "delivery":
                    await self._admit(response.delivery)
                case "held_back":
                    _LOG.warning(
                        "the hub holds messages of partition %d back until older ones are acknowledged: %d are not",
                        response.held_back.partition,
                        response.held_back.unacknowledged,
                    )
                case "draining":
                    self._calls._leave(line)
                    # What is sent and not answered is handed to another replica first.
                    if self._is_done():
                        raise _Unwanted
                    raise _Broken(Unavailable("the replica is stopping"))
                case _:
                    continue

    async def _speak(self, call: Any) -> None:
        while True:
            self._wake.clear()
            while (frame := self._next_frame()) is not None:
                await self._write(call, **frame)
            if self._closing and not self._pending:
                await call.done_writing()
                # The hub ends the stream once all of it is settled.
                await asyncio.Event().wait()
            if self._wake.is_set():
                continue
            await self._woken()

    async def _woken(self) -> None:
        """Waits until there may be something to say."""
        now = time.monotonic()
        due = [at for at in (self.inbox.remind_at, self._limited_until) if at is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(due) - now) if due else None):
                await self._wake.wait()
        if self._limited_until is not None and time.monotonic() >= self._limited_until:
            self._limited_until = None
        if self.inbox.remind_at is not None and time.monotonic() >= self.inbox.remind_at:
            self.inbox.remind()

    def _may_send(self) -> bool:
        return self._refused is None and self._limited_until is None

    def _next_frame(self) -> dict[str, Any] | None:
        if ids := self.inbox.take_acks():
            return {"ack": _wire.new("SessionRequest.Ack", delivery_ids=ids)}
        if ids := self.inbox.take_started():
            return {"started": _wire.new("SessionRequest.Started", delivery_ids=ids)}
        if ids := self.inbox.take_in_progress():
            return {"in_progress": _wire.new("SessionRequest.InProgress", delivery_ids=ids)}
        if not self._may_send() or self._written >= len(self._pending):
            return None
        pending = self._pending[self._written]
        self._written += 1
        return {"send": _wire.new("SessionRequest.Send", sequence=pending.sequence, message=pending.message)}

    def _settle(self, sent: Any) -> None:
        """Settles what the hub answered for. Raises where it has to connect again, and to send everything that is left again."""
        index = next((index for index, pending in enumerate(self._pending) if pending.sequence == sent.sequence), None)
        if index is None:
            return
        pending = self._pending[index]
        # The hub answers in order: nothing that is on its way comes after this.
        is_last = index + 1 == self._written
        outcome: Sent | Error
        match sent.WhichOneof("outcome"):
            case "accepted":
                self._progressed = True
                outcome = Sent(sent.accepted.message_id, sent.accepted.deduplicated)
            case "failed":
                failed = sent.failed
                after = _wire.read_duration(failed.retry_after) if failed.HasField("retry_after") else None
                outcome = Refused(Code.of(failed.code), failed.reason, failed.message, retry_after=after)
                if outcome.code is Code.UNAVAILABLE:
                    raise _Broken(outcome)
            case _:
                outcome = Refused(Code.INTERNAL, "", "the hub answered without an outcome")
        if isinstance(outcome, Error):
            # Not in the log, and for no reason of its own: it is sent again below, and its caller has nothing to mend.
            is_aborted = self._refused is not None and outcome.code is Code.ABORTED
            limited = pending.limited.again_at(outcome, time.monotonic())
            if limited is not None:
                _LOG.warning("waiting for a limit: %s", outcome)
                self._limited_until = max(self._limited_until or 0.0, limited)
            if self._refused is None:
                self._refused = sent.sequence
            stays = is_aborted or limited is not None
        else:
            stays = False
        if not stays:
            del self._pending[index]
            self._pending_bytes -= pending.bytes
            self._written = max(0, self._written - 1)
            self._tell(pending, outcome)
            self._room.set()
        if is_last and self._refused is not None:
            self._number_anew(self._refused)
            self._refused = None
        self._wake.set()

    def _number_anew(self, first: int) -> None:
        self._written = 0
        self._next_sequence = first
        for pending in self._pending:
            pending.sequence = self._next_sequence
            self._next_sequence += 1

    def _tell(self, pending: _Pending, outcome: Sent | Error) -> None:
        if pending.outcome.done():
            return
        if isinstance(outcome, Error):
            pending.outcome.set_exception(outcome.copy())
            # A caller that dropped its receipt does not want to know.
            pending.outcome.exception()
        else:
            pending.outcome.set_result(outcome)

    async def _admit(self, delivery: Any) -> None:
        self._progressed = True
        if self._closing:
            return
        ticket = self.inbox.admit(delivery.message.id, delivery.delivery_id, delivery.redelivered)
        if ticket is None:
            return
        # While the application has no room for it, nothing more is read.
        while len(self._deliveries) >= self._capacity and not self._closing:
            self._taken.clear()
            await self._taken.wait()
        self._deliveries.append(Received(delivery.message, self._replier, ticket, redelivered=delivery.redelivered, attempt=delivery.attempt))
        self._delivered.set()

    # The connection.

    async def _read(self, line: Line, call: Any) -> Any:
        try:
            response = await call.read()
        except grpc.aio.AioRpcError as status:
            raise self._ended(line, status) from None
        except asyncio.CancelledError:
            # What is closed under a call cancels it. Only this task itself may be told so.
            task = asyncio.current_task()
            if task is None or task.cancelling() or not self._calls._closed:
                raise
            raise _Unwanted from None
        return None if response is grpc.aio.EOF else response

    async def _write(self, call: Any, **frame: Any) -> None:
        try:
            await call.write(_wire.new("SessionRequest", **frame))
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError, grpc.aio.UsageError):
            raise _Deaf from None

    def _ended(self, line: Line, status: grpc.aio.AioRpcError) -> Exception:
        then, error = self._calls._judge(line, status, self._renewed)
        if then is Next.AGAIN:
            self._renewed = True
            return _Broken(Unavailable("the access token was renewed"))
        if then is Next.LATER:
            return _Broken(error)
        if broke(status) or error.code in _PASSING:
            self._calls._leave(line)
            return _Broken(error)
        return _Broken(error) if self._may_be_left_over(error) else error

    def _may_be_left_over(self, error: Error) -> bool:
        """Whether the program that receives in this one's place may be gone, and the hub not know it yet."""
        if not self.opened.done() or error.reason != RECEIVER_PRESENT:
            return False
        now = time.monotonic()
        if self._present_since is None:
            self._present_since = now
        return now - self._present_since < PRESENT_FOR


class _Deaf(Exception):
    """The hub reads no more: why is on the other half."""
