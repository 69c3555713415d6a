"""Dead letters: messages that nobody took."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import _wire
from ._calls import ATTEMPT, Calls
from ._message import Received
from ._page import every
from ._types import Address, DeadLetter, DeadLetterOutcome, DeadLetterReason, read

#: The most that one call names.
MOST_NAMED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """Which dead letters; what is not said is not asked for. Without anything: all open ones that the caller may see.

    ```python
    failed = acb.Letters(reason=acb.DeadLetterReason.ATTEMPTS, from_="planner", to=acb.Address(agent="worker-1"))
    ```
    """

    #: Only those that became letters for this reason.
    reason: DeadLetterReason = DeadLetterReason.UNSPECIFIED
    #: Only what this agent sent.
    from_: str = ""
    #: Only what was in this mailbox: of an agent, a group, or all.
    to: Address | None = None
    #: Only those that became letters at this time or later.
    since: datetime | None = None
    #: Only those that became letters before this time.
    until: datetime | None = None
    #: Also those that were replayed or dropped.
    include_settled: bool = False

    def to_wire(self) -> Any:
        """As the hub reads it."""
        wire = _wire.new("DeadLetterFilter", reason=int(self.reason), sender=self.from_, include_settled=self.include_settled)
        if self.to is not None:
            wire.recipient.CopyFrom(self.to.to_wire())
        if self.since is not None:
            wire.since.CopyFrom(_wire.time(self.since))
        if self.until is not None:
            wire.until.CopyFrom(_wire.time(self.until))
        return wire


#: What something is done with: dead letters by their ids, or all open ones that match.
WhichLetters = Letters | str | Iterable[str]


def selections(which: WhichLetters) -> list[Any]:
    """The calls of a selection. Named letters are so many to a call; those of a filter go on by their page token."""
    if isinstance(which, Letters):
        return [_wire.new("DeadLetterSelection", filter=which.to_wire())]
    ids = [which] if isinstance(which, str) else list(which)
    return [_wire.new("DeadLetterSelection", ids=ids[start : start + MOST_NAMED]) for start in range(0, len(ids), MOST_NAMED)]


class DeadLetters(Calls):
    """The calls of dead letters."""

    def dead_letters(self, letters: Letters | None = None) -> AsyncIterator[DeadLetter]:
        """The dead letters that match, in the order in which their messages were accepted; page after page as they are taken."""
        wanted = (letters or Letters()).to_wire()
        return every(
            lambda token: self._call(
                "list dead letters",
                "DeadLetterService.ListDeadLetters",
                _wire.new("ListDeadLettersRequest", filter=wanted, page_token=token),
            ),
            "dead_letters",
        )

    async def dead_letter(self, id: str) -> tuple[DeadLetter, Received]:
        """A dead letter and its message."""
        response = await self._call("get dead letter", "DeadLetterService.GetDeadLetter", _wire.new("GetDeadLetterRequest", id=id))
        return read(response.dead_letter), Received(response.message, self)

    async def replay_dead_letters(self, which: WhichLetters, to: Address | None = None) -> AsyncIterator[DeadLetterOutcome]:
        """Sends dead letters again, as new messages from their first senders: to whom they were for, or to another agent.

        The latter takes the role `admin`. What becomes of each is an item, a failure too: the others go on. A letter that was sent again is not
        sent once more.
        """
        said = {} if to is None else {"to": to.to_wire()}
        async for outcome in self._settle("replay dead letters", "ReplayDeadLetters", which, said):
            yield outcome

    async def drop_dead_letters(self, which: WhichLetters) -> AsyncIterator[DeadLetterOutcome]:
        """Drops dead letters. What becomes of each is an item, a failure too: the others go on."""
        async for outcome in self._settle("drop dead letters", "DropDeadLetters", which, {}):
            yield outcome

    async def _settle(self, what: str, method: str, which: WhichLetters, said: dict[str, Any]) -> AsyncIterator[DeadLetterOutcome]:
        for selection in selections(which):
            while True:
                request = _wire.new(f"{method}Request", selection=selection, **said)
                page = await self._call(what, f"DeadLetterService.{method}", request, within=ATTEMPT * 2)
                for outcome in page.outcomes:
                    yield read(outcome)
                if selection.ids or not page.next_page_token:
                    break
                selection.page_token = page.next_page_token
