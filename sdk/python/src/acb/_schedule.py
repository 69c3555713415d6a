"""Messages that are sent later."""

from __future__ import annotations

from collections.abc import AsyncIterator

from . import _wire
from ._calls import Calls
from ._message import Message
from ._page import every
from ._time import Length, seconds
from ._types import Scheduled, ScheduledMessage, read


class Schedule(Calls):
    """The calls of the schedule."""

    async def schedule(self, message: Message, after: Length) -> Scheduled:
        """Has a message sent after this time, 7 days at most.

        It is checked now; whether its sender may still send it, and its recipient receive it, is asked when it is due. By the clock of the hub's
        PostgreSQL: this machine's need not be right.
        """
        request = _wire.new("ScheduleMessageRequest", message=message.build(), deliver_after=_wire.duration(seconds(after, "after")))
        scheduled: Scheduled = read(await self._call("schedule", "ScheduleService.ScheduleMessage", request))
        return scheduled

    def scheduled(self, *, all: bool = False) -> AsyncIterator[ScheduledMessage]:
        """What waits to be sent, in the order in which it is due: of this agent, or of `all`, which takes the role `admin`."""
        return every(
            lambda token: self._call(
                "list scheduled messages",
                "ScheduleService.ListScheduledMessages",
                _wire.new("ListScheduledMessagesRequest", all=all, page_token=token),
            ),
            "scheduled_messages",
        )

    async def cancel_scheduled(self, message_id: str) -> bool:
        """Cancels a scheduled message. Whether it had been cancelled before."""
        request = _wire.new("CancelScheduledMessageRequest", message_id=message_id)
        return bool((await self._call("cancel scheduled message", "ScheduleService.CancelScheduledMessage", request)).before)
