"""What a session has received and not yet acknowledged, across its connections."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from ._seen import Seen

#: Deliveries that one frame names at most.
MOST_NAMED = 1000
#: How many handled messages are remembered, to drop their redeliveries.
REMEMBERED = 10_000
#: How often the hub hears that the application is still at work: long before it would deliver again, or give up after the last attempt.
REMIND_EVERY = 10.0


class _Open:
    """A message that is with the application now."""

    __slots__ = ("delivery_id", "redelivered")

    def __init__(self, delivery_id: str, redelivered: bool) -> None:
        #: Of the latest delivery.
        self.delivery_id = delivery_id
        #: Whether it may have been delivered before: then its next delivery may be the last.
        self.redelivered = redelivered


class Inbox:
    """All of it belongs to the thread of one event loop; only tickets come from elsewhere."""

    def __init__(self, wake: Callable[[], None], now: Callable[[], float] = time.monotonic) -> None:
        self._wake = wake
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._open: dict[str, _Open] = {}
        self._handled = Seen(REMEMBERED)
        self._acks: list[str] = []
        self._started: list[str] = []
        self._in_progress: list[str] = []
        #: When the hub is to hear of what the application is at work on. Where that is nothing, no timer runs.
        self.remind_at: float | None = None

    def admit(self, message_id: str, delivery_id: str, redelivered: bool) -> Ticket | None:
        """A ticket where the application is to see the message; `None` where it has it, or had it."""
        if message_id in self._handled:
            self._acks.append(delivery_id)
            self._wake()
            return None
        held = self._open.get(message_id)
        if held is not None:
            # Where the log was made anew the same message has a new delivery id, and only that can be acknowledged.
            held.delivery_id = delivery_id
            self._in_progress.append(delivery_id)
            self._wake()
            return None
        held = self._open[message_id] = _Open(delivery_id, redelivered)
        if redelivered and self.remind_at is None:
            self.remind_at = self._now() + REMIND_EVERY
            self._wake()
        return Ticket(self, message_id, held)

    def forget_deliveries(self) -> None:
        """Delivery ids of an earlier connection mean nothing to the next."""
        self._acks.clear()
        self._started.clear()
        self._in_progress.clear()

    def take_acks(self) -> list[str]:
        """What to acknowledge."""
        return _some_of(self._acks)

    def take_started(self) -> list[str]:
        """What the application began with, where it may have been delivered before."""
        return _some_of(self._started)

    def take_in_progress(self) -> list[str]:
        """What came again while it is with the application, and what the application is at work on for long."""
        return _some_of(self._in_progress)

    def remind(self) -> None:
        """The application still has what may have been delivered before.

        The hub asks that by delivering again, but not after the last attempt: what it hears nothing of goes to the dead letters then, while it
        is handled, or waits for its turn.
        """
        # A ticket that is dropped in another thread takes its message away meanwhile.
        worked_at = [held.delivery_id for held in list(self._open.values()) if held.redelivered]
        # What is not taken from here by the connection is not said twice.
        if not self._in_progress:
            self._in_progress.extend(worked_at)
        self.remind_at = self._now() + REMIND_EVERY if worked_at else None

    @property
    def has_news(self) -> bool:
        """Whether there is anything to tell the hub of its deliveries."""
        return bool(self._acks or self._started or self._in_progress)

    def _in_loop(self, act: Callable[[], None]) -> None:
        if threading.get_ident() == self._thread:
            act()
            return
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            # The loop is closed, and the session with it: the message comes again in a later one.
            return

    def _start(self, ticket: Ticket) -> None:
        self._started.append(ticket.held.delivery_id)
        self._wake()

    def _ack(self, ticket: Ticket) -> None:
        if self._open.get(ticket.message_id) is ticket.held:
            del self._open[ticket.message_id]
            self._handled.add(ticket.message_id)
            self._acks.append(ticket.held.delivery_id)
            self._wake()

    def _release(self, ticket: Ticket) -> None:
        if self._open.get(ticket.message_id) is ticket.held:
            self._open.pop(ticket.message_id, None)


def _some_of(ids: list[str]) -> list[str]:
    taken = ids[:MOST_NAMED]
    del ids[:MOST_NAMED]
    return taken


class Ticket:
    """The right to acknowledge one message. Dropped, the message may be delivered again."""

    __slots__ = ("_inbox", "_over", "held", "message_id")

    def __init__(self, inbox: Inbox, message_id: str, held: _Open) -> None:
        self._inbox = inbox
        self._over = False
        self.message_id = message_id
        self.held = held

    def start(self) -> None:
        """The application begins with a message that may have been delivered before: from now on that counts as an attempt."""
        if not self._over:
            self._inbox._in_loop(lambda: self._inbox._start(self))

    def ack(self) -> None:
        """It is handled."""
        if not self._over:
            self._over = True
            self._inbox._in_loop(lambda: self._inbox._ack(self))

    def release(self) -> None:
        """It is not handled, and may come again."""
        if not self._over:
            self._over = True
            self._inbox._release(self)

    def __del__(self) -> None:
        # Where the interpreter ends, this may be all that is left.
        if not getattr(self, "_over", True):
            self.release()
