"""How long to wait before the next try, and when to stop trying."""

from __future__ import annotations

import asyncio
import logging
import random
import time

from ._error import Error

_LOG = logging.getLogger("acb")

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

    It runs from the first failure: what went well for long, and then breaks, has all of it.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._until: float | None = None
        self._next = FIRST

    def renew(self) -> None:
        """Something succeeded: the full time again."""
        self._until = None
        self._next = FIRST

    def pause(self, error: Error, now: float) -> float:
        """How long to wait before the next try. Raises the error where the time is over."""
        pause = self._next * (0.5 + random.random() / 2)
        if self._until is None:
            self._until = now + self._within
        if now + pause > self._until:
            raise error.during(f"gave up after {self._within:.0f} s") from error
        self._next = min(self._next * 2, MOST)
        return pause

    async def wait(self, error: Error) -> None:
        """Waits before the next try, or raises the error where the time is over."""
        pause = self.pause(error, time.monotonic())
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
