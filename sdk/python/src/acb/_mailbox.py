"""The agent's mailbox without a session: looked into, or taken from by single calls."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from . import _wire
from ._calls import ATTEMPT, Calls
from ._message import Received, View
from ._page import every
from ._time import Length, seconds

#: The longest wait of one call.
MOST = 20.0
#: How much longer than the hub the client waits.
SLACK = 10.0
#: Deliveries that one call names at most.
MOST_NAMED = 1000


@dataclass(frozen=True, slots=True)
class UnreadCount:
    """How much is unread."""

    #: In all; at most 10,000 are counted.
    messages: int
    #: By the sender's name; empty for senders that are gone.
    by_sender: dict[str, int]
    #: Whether there are more than were counted.
    more: bool


@dataclass(frozen=True, slots=True)
class UnreadMessages:
    """What a wait came to."""

    #: None where none came in time.
    messages: tuple[View, ...]
    #: Where to go on.
    position: str


class Pulled(Received):
    """A message that was pulled. Until it is acknowledged by its puller the hub keeps it, and gives it out again."""

    __slots__ = ("delivery_id",)

    def __init__(self, delivery: Any, replier: Any) -> None:
        super().__init__(delivery.message, replier, redelivered=delivery.redelivered, attempt=delivery.attempt)
        #: What to acknowledge.
        self.delivery_id: str = delivery.delivery_id


class Puller:
    """Receives by single calls, for a program that holds no session. What holds for a session holds for these.

    ```python
    puller = agent.puller()
    while pulled := await puller.pull(10, wait=20):
        for message in pulled:
            print(message.topic)
        await puller.acknowledge(pulled)
    ```
    """

    def __init__(self, calls: Any, receiver: str, take_over: bool) -> None:
        self._calls = calls
        self._receiver = receiver
        self._take_over = take_over

    async def pull(self, max_messages: int = 0, *, wait: Length = MOST) -> list[Pulled]:
        """At most so many messages (1,000; 0 stands for 32): those that wait, or else the next ones that come within `wait`.

        Of that the hub waits 20 s at most. One call at a time.
        """
        within = min(seconds(wait, "wait"), MOST)
        request = _wire.new(
            "PullMessagesRequest",
            max_messages=max_messages,
            wait=_wire.duration(within),
            receiver=self._receiver,
            take_over=self._take_over,
        )
        response = await self._calls._call("pull messages", "MailboxService.PullMessages", request, within=within + SLACK)
        # From now on whoever takes over from this one does so for good.
        self._take_over = False
        return [Pulled(delivery, self._calls) for delivery in response.deliveries]

    async def acknowledge(self, pulled: Pulled | Iterable[Pulled]) -> None:
        """Says that these were handled: they are not delivered again."""
        ids = [one.delivery_id for one in ([pulled] if isinstance(pulled, Pulled) else pulled)]
        for start in range(0, len(ids), MOST_NAMED):
            await self._tell(delivery_ids=ids[start : start + MOST_NAMED])

    async def in_progress(self, pulled: Pulled) -> None:
        """Says that one that came again is still worked at: that delivery is no attempt, and the next one is put off by 30 s."""
        await self._tell(in_progress_delivery_ids=[pulled.delivery_id])

    async def _tell(self, **said: Any) -> None:
        request = _wire.new("AcknowledgeMessagesRequest", receiver=self._receiver, **said)
        await self._calls._call("acknowledge messages", "MailboxService.AcknowledgeMessages", request)


class Mailbox(Calls):
    """The calls of the mailbox."""

    def puller(self, *, receiver: str | None = None, take_over: bool = True) -> Puller:
        """Receives by single calls.

        `receiver` names the program, where a new process of it is to go on in the place of an older one. `take_over` says whether to end the
        session of another program that receives for this agent: otherwise the first call is refused with `RECEIVER_PRESENT`.
        """
        return Puller(self, receiver or str(uuid.uuid4()), take_over)

    def unread(self, from_: str = "", *, filter: str = "") -> AsyncIterator[View]:
        """The unread messages of the mailbox, of all senders or of one; page after page as they are taken.

        `filter` is a CEL expression over `message`, such as `message.topic == "orders"`. Nothing is acknowledged, and no session ends.
        """

        def fetch(token: str) -> Any:
            request = _wire.new("ListUnreadRequest", page_token=token, filter=filter, **{"from": from_})
            return self._call("list unread", "MailboxService.ListUnread", request)

        return every(fetch, "messages", View)

    async def count_unread(self, from_: str = "") -> UnreadCount:
        """How much is unread, of all senders or of one."""
        request = _wire.new("CountUnreadRequest", **{"from": from_})
        count = await self._call("count unread", "MailboxService.CountUnread", request)
        return UnreadCount(count.messages, dict(count.by_sender), count.more)

    async def wait_for_unread(self, from_: str = "", *, after: str = "", within: Length = MOST, filter: str = "") -> UnreadMessages:
        """The unread messages after a position of an earlier answer (empty: from the oldest on), or else those that come next.

        None within `within`, of which the hub waits 20 s at most.
        """
        wait = min(seconds(within, "within"), MOST)
        request = _wire.new("WaitForUnreadRequest", after=after, timeout=_wire.duration(wait), filter=filter, **{"from": from_})
        found = await self._call("wait for unread", "MailboxService.WaitForUnread", request, within=max(wait + SLACK, ATTEMPT))
        return UnreadMessages(tuple(map(View, found.messages)), found.position)

    async def watch_unread(self, from_: str = "", *, filter: str = "") -> AsyncGenerator[View, None]:
        """Follows what is unread, from the oldest on: each message once, as it comes, taken by nobody."""
        position = ""
        while True:
            found = await self.wait_for_unread(from_, after=position, filter=filter)
            position = found.position
            for message in found.messages:
                yield message
