"""How long to wait before the next try, and when to stop trying."""

from __future__ import annotations

import asyncio
import logging
import random
import time

from ._error import Error

_LOG = logging.getLogger("acb")

#: A call has so much time, however short its client tries again: one that is slow is not one that nobody answers.
SHORTEST = 5.0
FIRST = 0.05
MOST = 5.0
#: How long one message or call is kept back, all in all, while a limit has no room for it.
LIMITED = 120.0
#: When a limit has room again, not everybody comes at once.
SPREAD = 1.0
#: The reason of a refusal where a month is used up. Nothing waits for the next one: not even at its end, when it is near.
MONTH_USED_UP = "MONTHLY_LIMIT_EXCEEDED"


class Patience:
    """Exponential backoff with jitter, within a time that progress renews.

    It runs from the first failure: what went well for long, and then breaks, has all of it. What begins, and was never well, has it from `since` on.
    """

    def __init__(self, within: float, since: float | None = None) -> None:
        self._within = within
        self._until: float | None = None if since is None else since + within
        self._least = 0.0 if since is None else since + SHORTEST
        self._next = FIRST

    def renew(self) -> None:
        """Something succeeded: the full time again."""
        self._until = None
        self._next = FIRST

    @property
    def until(self) -> float | None:
        """Until when to wait for a connection, by the monotonic clock. `None` where nothing has failed yet."""
        return None if self._until is None else max(self._until, self._least)

    def pause(self, error: Error, now: float, ends: float | None = None) -> float:
        """How long to wait before the next try. Raises the error where the time is over, or where it would be over that `ends` says."""
        pause = self._next * (0.5 + random.random() / 2)
        if self._until is None:
            self._until = now + self._within
        if now + pause > self._until:
            raise error.during(f"gave up after {self._within:.0f} s") from error
        if ends is not None and now + pause > ends:
            raise error.during("gave up at the end of its time") from error
        self._next = min(self._next * 2, MOST)
        return pause

    async def wait(self, error: Error, ends: float | None = None) -> None:
        """Waits before the next try, or raises the error where the time is over."""
        pause = self.pause(error, time.monotonic(), ends)
        _LOG.debug("trying again in %.2f s: %s", pause, error)
        await asyncio.sleep(pause)


class Limited:
    """Waits of one message or call for a limit."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: float | None = None

    def again_at(self, error: Error, now: float) -> float | None:
        """When to try again after this error. `None` where it is of no limit, or where the wait would be too long."""
        if error.reason == MONTH_USED_UP or error.retry_after is None:
            return None
        again = now + error.retry_after.total_seconds() + SPREAD * random.random()
        if self._until is None:
            self._until = now + LIMITED
        return again if again <= self._until else None
