"""Follows the contexts of one type, over broken connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, Literal

from . import _wire
from ._calls import Calls
from ._reopened import Reopened
from ._types import ContextEvent, EventKind, Position, read

#: Where a subscription starts: `None` with the next change, `"start"` with the oldest that the log still holds, a time with the first that the
#: log took then or later, positions after these.
Since = None | Literal["start"] | datetime | Iterable[Position]


class Subscription(Reopened):
    """Changes of the contexts of one type. Where the connection breaks it goes on after the last one, with any replica.

    With a filter, an event of kind `LEFT` tells of a context that matched, and does not since an update.

    ```python
    async with agent.subscribe("documents") as documents:
        async for event in documents:
            print(event.kind.name, event.context)
    ```

    Once it is entered nothing more is missed. `await agent.subscribe(…)` opens it without a block; then `close` it.
    """

    _method = "ContextService.Subscribe"

    def __init__(self, calls: Calls, context_type: str, filter: str, since: Since) -> None:
        super().__init__(calls, f"subscribe to {context_type!r}")
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

    async def __aiter__(self) -> AsyncIterator[ContextEvent]:
        while not self._closed:
            yield await self.next()

    @property
    def positions(self) -> list[Position]:
        """Where the subscription stands, to go on later with `subscribe(…, since=positions)`."""
        return sorted(self._positions.values(), key=lambda position: position.partition)

    async def next(self) -> ContextEvent:
        """The next change. After an error the subscription is over."""
        while True:
            event = self._note(await self._answer())
            # The two that only say where the subscription stands.
            if event.kind not in (EventKind.SUBSCRIBED, EventKind.BOOKMARK):
                return event

    def _begin(self, first: Any) -> bool:
        if first.kind != EventKind.SUBSCRIBED:
            return False
        self._note(first)
        return True

    def _note(self, wire: Any) -> ContextEvent:
        event: ContextEvent = read(wire)
        self._stands = True
        for position in (*event.positions, *([event.position] if event.position else [])):
            self._positions[position.partition] = position
        return event

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
