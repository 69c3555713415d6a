"""Backoff, limits, memory: with a clock of their own."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

import acb
from acb._backoff import Limited, Patience
from acb._inbox import Inbox
from acb._seen import Seen


def test_patience_gives_up_within_its_time_and_says_so() -> None:
    patience, now, tries = Patience(20), 100.0, 0
    with pytest.raises(acb.Unavailable, match="gave up after 20 s: refused"):
        while True:
            tries += 1
            now += patience.pause(acb.Unavailable("refused"), now)
    assert now <= 120 and 8 <= tries < 40
    patience.renew()
    assert patience.pause(acb.Unavailable("refused"), 10_000.0) <= 0.05, "what went well for long is tried again all the same"


def test_pauses_grow_to_five_seconds() -> None:
    patience = Patience(1000)
    pauses = [patience.pause(acb.Unavailable("x"), 0.0) for _ in range(12)]
    assert all(0.025 * 2**n <= pause <= 0.05 * 2**n for n, pause in enumerate(pauses[:6]))
    assert all(2.5 <= pause <= 5 for pause in pauses[8:])


def test_a_limit_is_waited_for_as_long_as_it_says_and_not_for_ever() -> None:
    def refused(after: float | None, reason: str = "RATE_LIMIT_EXCEEDED") -> acb.Error:
        length = None if after is None else timedelta(seconds=after)
        return acb.Refused(acb.Code.RESOURCE_EXHAUSTED, reason, "no", retry_after=length)

    limited = Limited()
    assert limited.again_at(refused(None), 0.0) is None
    again = limited.again_at(refused(50), 0.0)
    assert again is not None and 50 <= again <= 51
    assert limited.again_at(refused(60), again) is not None
    assert limited.again_at(refused(60), 112.0) is None
    assert Limited().again_at(refused(86_400), 0.0) is None
    assert Limited().again_at(refused(5, "MONTHLY_LIMIT_EXCEEDED"), 0.0) is None


def test_seen_is_bounded_and_forgets_the_oldest() -> None:
    seen = Seen(2)
    for member in ("a", "b", "b", "c"):
        seen.add(member)
    assert "a" not in seen and "b" in seen and "c" in seen and len(seen) == 2


class Clock:
    """An inbox whose time does not pass by itself."""

    def __init__(self) -> None:
        self.now = 0.0
        self.woken = 0
        self.inbox = Inbox(self.wake, lambda: self.now)

    def wake(self) -> None:
        self.woken += 1


async def test_a_redelivery_of_what_was_handled_is_acknowledged_unseen() -> None:
    inbox = Clock().inbox
    ticket = inbox.admit("m", "d1", False)
    assert ticket is not None
    ticket.ack()
    ticket.ack()
    assert inbox.take_acks() == ["d1"]
    assert inbox.admit("m", "d2", False) is None and inbox.take_acks() == ["d2"]


async def test_a_message_in_hand_is_acknowledged_by_its_latest_delivery() -> None:
    inbox = Clock().inbox
    ticket = inbox.admit("m", "d1", False)
    inbox.forget_deliveries()
    assert inbox.admit("m", "d2", False) is None and inbox.take_in_progress() == ["d2"]
    assert ticket is not None
    ticket.ack()
    assert inbox.take_acks() == ["d2"]


async def test_what_is_begun_is_told_by_its_latest_delivery() -> None:
    inbox = Clock().inbox
    ticket = inbox.admit("m", "d1", False)
    assert ticket is not None and not inbox.has_news
    ticket.start()
    assert inbox.has_news and inbox.take_started() == ["d1"]
    ticket.start()
    inbox.forget_deliveries()
    assert inbox.take_started() == [], "of an earlier connection"


async def test_the_hub_hears_again_of_what_came_again_and_of_nothing_else() -> None:
    clock = Clock()
    inbox = clock.inbox
    first = inbox.admit("n", "d2", False)
    assert first is not None and inbox.remind_at is None, "what comes for the first time costs no timer"
    worked_at = inbox.admit("m", "d1", True)
    assert inbox.remind_at == 10.0
    inbox.remind()
    inbox.remind()
    assert inbox.take_in_progress() == ["d1"]
    assert inbox.admit("m", "d3", True) is None and inbox.take_in_progress() == ["d3"]
    inbox.remind()
    assert inbox.take_in_progress() == ["d3"], "by its latest delivery"
    assert worked_at is not None
    worked_at.ack()
    inbox.remind()
    assert inbox.take_in_progress() == [] and inbox.remind_at is None


async def test_what_was_dropped_or_released_comes_again() -> None:
    inbox = Clock().inbox
    inbox.admit("m", "d1", False)
    assert inbox.take_acks() == []
    ticket = inbox.admit("m", "d2", False)
    assert ticket is not None
    ticket.release()
    ticket.ack()
    other = inbox.admit("m", "d3", False)
    assert other is not None and inbox.take_acks() == []
    # An old ticket takes nothing away from a new one.
    del ticket
    assert inbox.admit("m", "d4", False) is None


async def test_an_acknowledgement_may_come_from_another_thread() -> None:
    clock = Clock()
    ticket = clock.inbox.admit("m", "d1", False)
    assert ticket is not None
    thread = threading.Thread(target=ticket.ack)
    thread.start()
    thread.join()
    assert clock.inbox.take_acks() == [], "it is for the loop to do"
    await asyncio.sleep(0)
    assert clock.inbox.take_acks() == ["d1"]


async def test_a_frame_names_a_thousand_deliveries_at_most() -> None:
    inbox = Clock().inbox
    for number in range(1500):
        ticket = inbox.admit(f"m{number}", f"d{number}", False)
        assert ticket is not None
        ticket.ack()
    assert (len(inbox.take_acks()), len(inbox.take_acks()), inbox.has_news) == (1000, 500, False)
