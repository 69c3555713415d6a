"""What drives a session, against a hub that says what a test tells it to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

import acb
from acb import _backoff, _driver, _wire
from acb._backoff import Patience
from acb._calls import Next
from acb._driver import Driver


class Call:
    """One connection, from the hub's side."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.said: asyncio.Queue[Any] = asyncio.Queue()
        self.half_closed = False

    async def write(self, frame: Any) -> None:
        await self.heard.put(frame)

    async def read(self) -> Any:
        said = await self.said.get()
        if isinstance(said, Exception):
            raise said
        return said

    async def done_writing(self) -> None:
        self.half_closed = True
        await self.said.put(grpc.aio.EOF)

    def cancel(self) -> None:
        """Nothing to do."""

    async def hear(self) -> Any:
        """The next frame of the session."""
        async with asyncio.timeout(5):
            frame = await self.heard.get()
        return getattr(frame, frame.WhichOneof("frame"))

    def say(self, **frame: Any) -> None:
        self.said.put_nowait(_wire.new("SessionResponse", **frame))

    def accept(self, sequence: int) -> None:
        accepted = _wire.new("SendMessageResponse", message_id=f"m{sequence}")
        self.say(sent=_wire.new("SessionResponse.Sent", sequence=sequence, accepted=accepted))

    def refuse(self, sequence: int, code: acb.Code, reason: str = "", retry_after: float | None = None) -> None:
        failed = _wire.new("SessionResponse.Failure", code=int(code), reason=reason, message="no")
        if retry_after is not None:
            failed.retry_after.CopyFrom(_wire.duration(retry_after))
        self.say(sent=_wire.new("SessionResponse.Sent", sequence=sequence, failed=failed))

    def deliver(self, number: int, delivery_id: str, *, redelivered: bool = False, attempt: int = 1) -> None:
        message = _wire.new("Message", id=f"m{number}", topic="n", payload=str(number).encode())
        delivery = _wire.new("SessionResponse.Delivery", message=message, delivery_id=delivery_id, redelivered=redelivered, attempt=attempt)
        self.say(delivery=delivery)


class Hub:
    """Stands for the client, and for the hub behind it."""

    def __init__(self) -> None:
        self._closed = False
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.left = 0
        #: Whether each connection was to take over.
        self.take_overs: list[bool] = []
        #: Why there is no line.
        self.silent: acb.Error | None = None
        #: Why sessions are refused, and how often they were.
        self.turns_away: tuple[Next, acb.Error] | None = None
        self.turned_away = 0
        self.asked = asyncio.Event()

    def _patience(self, since: float | None = None) -> Patience:
        return Patience(5, since)

    def _name_replica(self, name: str) -> None:
        """Nothing to do."""

    def _leave(self, line: Any) -> None:
        self.left += 1

    def _judge(self, line: Any, status: Any, renewed: bool) -> tuple[Next, acb.Error]:
        if self.turns_away is not None:
            return self.turns_away
        return Next.LATER, acb.Unavailable("broke")

    @asynccontextmanager
    async def _line(self, by: float | None = None) -> AsyncIterator[Any]:
        self.asked.set()
        if self.silent is not None:
            raise self.silent
        yield self

    def start(self, method: str) -> Call:
        assert method == "MessageService.Session"
        call = Call()
        if self.turns_away is not None:
            self.turned_away += 1
            empty = grpc.aio.Metadata()
            call.said.put_nowait(grpc.aio.AioRpcError(grpc.StatusCode.FAILED_PRECONDITION, empty, empty))
            return call
        call.say(opened=_wire.new("SessionResponse.Opened", session_id="s", replica="r"))
        self.calls.put_nowait(call)
        return call

    async def next_call(self) -> Call:
        async with asyncio.timeout(5):
            call = await self.calls.get()
        opened = await call.hear()
        assert opened.receiver == "program"
        self.take_overs.append(opened.take_over)
        return call


Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    tasks: list[asyncio.Task[None]] = []

    async def start(capacity: int = 100) -> tuple[Hub, Driver, Call]:
        hub: Any = Hub()
        driver = Driver(hub, hub, {"receive": True, "receiver": "program", "take_over": True}, 5.0, capacity)
        tasks.append(asyncio.create_task(driver.run()))
        await asyncio.wait_for(driver.opened, 5)
        return hub, driver, await hub.next_call()

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def message(number: int) -> Any:
    return acb.Message.to_agent("x", number, idempotency_key=f"k{number}").build()


async def test_what_was_not_answered_is_sent_again_first_and_oldest_first(start: Start) -> None:
    hub, driver, call = await start()
    outcomes = [await driver.send(message(number)) for number in range(3)]
    assert [(await call.hear()).sequence for _ in range(3)] == [1, 2, 3]
    call.accept(1)
    assert (await outcomes[0]).message_id == "m1"
    call.said.put_nowait(grpc.aio.EOF)
    call = await hub.next_call()
    late = await driver.send(message(3))
    frames = [await call.hear() for _ in range(3)]
    assert [frame.message.idempotency_key for frame in frames] == ["k1", "k2", "k3"]
    assert [frame.sequence for frame in frames] == [2, 3, 4]
    for frame in frames:
        call.accept(frame.sequence)
    assert (await late).message_id == "m4" and hub.left == 1


async def test_what_connects_again_takes_nothing_over(start: Start) -> None:
    hub, _, call = await start()
    call.said.put_nowait(grpc.aio.EOF)
    await hub.next_call()
    assert hub.take_overs == [True, False]


async def test_who_was_in_its_place_before_an_outage_may_be_gone_after_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_driver, "PRESENT_FOR", 0.5)
    monkeypatch.setattr(_backoff, "MOST", 0.05)
    hub, _, call = await start()
    present = Next.NEVER, acb.Refused(acb.Code.FAILED_PRECONDITION, "RECEIVER_PRESENT", "no")

    async def refused() -> None:
        before = hub.turned_away
        async with asyncio.timeout(5):
            while hub.turned_away == before:
                await asyncio.sleep(0.01)

    hub.turns_away = present
    call.said.put_nowait(grpc.aio.EOF)
    await refused()
    began = time.monotonic()
    hub.turns_away = Next.LATER, acb.Unavailable("the replica is stopping")
    while time.monotonic() - began < _driver.PRESENT_FOR:
        await refused()
    hub.turns_away = present
    await refused()
    hub.turns_away = None
    await hub.next_call()


async def test_what_is_behind_a_refused_message_is_sent_again_under_its_number(start: Start) -> None:
    _, driver, call = await start()
    outcomes = [await driver.send(message(number)) for number in range(4)]
    assert [(await call.hear()).sequence for _ in range(4)] == [1, 2, 3, 4]
    call.accept(1)
    call.refuse(2, acb.Code.NOT_FOUND, "RECIPIENT_NOT_FOUND")
    call.refuse(3, acb.Code.ABORTED)
    late = await driver.send(message(4))
    call.refuse(4, acb.Code.ABORTED)
    with pytest.raises(acb.Refused, match="RECIPIENT_NOT_FOUND"):
        await outcomes[1]
    frames = [await call.hear() for _ in range(3)]
    assert [(frame.sequence, frame.message.idempotency_key) for frame in frames] == [(2, "k2"), (3, "k3"), (4, "k4")]
    for frame in frames:
        call.accept(frame.sequence)
    for outcome in (outcomes[0], outcomes[2], outcomes[3], late):
        assert (await outcome).message_id


async def test_a_limit_is_waited_for_in_order(start: Start) -> None:
    _, driver, call = await start()
    outcomes = [await driver.send(message(number)) for number in range(2)]
    assert [(await call.hear()).sequence for _ in range(2)] == [1, 2]
    call.refuse(1, acb.Code.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED", retry_after=0.05)
    call.refuse(2, acb.Code.ABORTED)
    frames = [await call.hear() for _ in range(2)]
    assert [(frame.sequence, frame.message.idempotency_key) for frame in frames] == [(1, "k0"), (2, "k1")]
    for frame in frames:
        call.accept(frame.sequence)
    assert [(await outcome).message_id for outcome in outcomes] == ["m1", "m2"]


async def test_what_is_in_flight_is_bounded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_driver, "MOST_PENDING", 3)
    _, driver, call = await start()
    for number in range(3):
        await driver.send(message(number))
    waiting = [asyncio.create_task(driver.send(message(number))) for number in (3, 4)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    for number in range(3):
        assert (await call.hear()).sequence == number + 1
        call.accept(number + 1)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert [(await call.hear()).message.idempotency_key for _ in range(2)] == ["k3", "k4"]


async def test_no_more_is_read_than_there_is_room_for(start: Start) -> None:
    _, driver, call = await start(2)
    for number in range(6):
        call.deliver(number, f"d{number}")
    await asyncio.sleep(0.05)
    assert call.said.qsize() == 3, "two wait for the application, one for room"
    seen = [await driver.next() for _ in range(6)]
    assert [received.json() for received in seen if received] == list(range(6))


async def test_redeliveries_are_told_once_and_acknowledged_on_the_new_connection(start: Start) -> None:
    hub, driver, call = await start()
    call.deliver(1, "d1")
    call.deliver(2, "d2")
    first, second = await driver.next(), await driver.next()
    assert first and second
    first.ack()
    assert list((await call.hear()).delivery_ids) == ["d1"]
    call.said.put_nowait(_wire.new("SessionResponse", draining=_wire.new("SessionResponse.Draining")))
    call = await hub.next_call()
    call.deliver(1, "e1", redelivered=True, attempt=2)
    call.deliver(2, "e2", redelivered=True, attempt=2)
    call.deliver(3, "e3", redelivered=True, attempt=2)
    assert list((await call.hear()).delivery_ids) == ["e1"], "it was handled: acknowledged unseen"
    frame = await call.hear()
    assert (frame.DESCRIPTOR.name, list(frame.delivery_ids)) == ("InProgress", ["e2"])
    third = await driver.next()
    assert third and third.json() == 3 and (third.redelivered, third.attempt) == (True, 2)
    third.start()
    frame = await call.hear()
    assert (frame.DESCRIPTOR.name, list(frame.delivery_ids)) == ("Started", ["e3"])
    second.ack()
    assert list((await call.hear()).delivery_ids) == ["e2"]


async def test_the_hub_hears_every_ten_seconds_of_what_came_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acb._inbox.REMIND_EVERY", 0.05)
    _, driver, call = await start()
    call.deliver(1, "d1", redelivered=True, attempt=2)
    received = await driver.next()
    for _ in range(3):
        frame = await call.hear()
        assert (frame.DESCRIPTOR.name, list(frame.delivery_ids)) == ("InProgress", ["d1"])
    assert received
    received.ack()

    async def acknowledged() -> Any:
        while (frame := await call.hear()).DESCRIPTOR.name == "InProgress":
            pass
        return frame

    assert list((await acknowledged()).delivery_ids) == ["d1"]


async def test_closing_flushes_and_ends(start: Start) -> None:
    _, driver, call = await start()
    outcome = await driver.send(message(0))
    call.deliver(1, "d1")
    received = await driver.next()
    assert received
    received.ack()
    driver.close()
    names = {(await call.hear()).DESCRIPTOR.name for _ in range(2)}
    assert names == {"Send", "Ack"} and not call.half_closed
    call.accept(1)
    assert (await outcome).message_id == "m1"

    async def ended() -> None:
        while driver.end is None:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(ended(), 5)
    assert call.half_closed and await driver.next() is None
    with pytest.raises(acb.Unavailable, match="the session is closed"):
        await driver.send(message(1))


async def test_what_is_pending_where_a_replica_drains_is_handed_to_another_one_at_an_orderly_end(start: Start) -> None:
    hub, driver, call = await start()
    outcome = await driver.send(message(0))
    assert (await call.hear()).sequence == 1
    driver.close()
    call.say(draining=_wire.new("SessionResponse.Draining"))
    call = await hub.next_call()
    assert (await call.hear()).message.idempotency_key == "k0"
    call.accept(1)
    assert (await asyncio.wait_for(outcome, 5)).message_id == "m1"


@pytest.mark.parametrize("is_away_first", [True, False])
async def test_an_idle_session_closes_at_once_where_no_hub_is(start: Start, is_away_first: bool) -> None:
    hub, driver, call = await start()
    hub.silent = acb.Unavailable("nobody is there")
    if is_away_first:
        hub.asked.clear()
        call.said.put_nowait(grpc.aio.EOF)
        await asyncio.wait_for(hub.asked.wait(), 5)
        driver.close()
    else:
        driver.close()
        call.said.put_nowait(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone"))
    # Far less than its patience.
    async with asyncio.timeout(2):
        while driver.end is None:
            await asyncio.sleep(0.01)
    assert str(driver.end) == "the session is closed"


async def test_a_session_that_can_not_go_on_tells_everyone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, driver, call = await start()
    outcome = await driver.send(message(0))
    waiting = asyncio.create_task(driver.next())
    refused = acb.Refused(acb.Code.ABORTED, "SESSION_REPLACED", "replaced")
    monkeypatch.setattr(hub, "_judge", lambda *_: (Next.NEVER, refused))
    status = grpc.aio.AioRpcError(grpc.StatusCode.ABORTED, grpc.aio.Metadata(), grpc.aio.Metadata(), "replaced")
    call.said.put_nowait(status)
    with pytest.raises(acb.Refused, match="SESSION_REPLACED"):
        await asyncio.wait_for(outcome, 5)
    assert await asyncio.wait_for(waiting, 5) is None and driver.why_ended().reason == "SESSION_REPLACED"
