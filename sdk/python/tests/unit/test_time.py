"""A call's own time bounds all of it, and who waits for the same shares it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import acb
from acb import _calls, _replica, _wire
from acb._auth import Auth
from acb._client import Client
from acb._credential import ApiKey, Tokens
from acb._replica import Replicas

ENDPOINTS = ["https://one.example", "https://two.example"]


class Silent:
    """Replicas that take a connection, and say nothing."""

    def __init__(self, length: float) -> None:
        self.length = length
        self.dialed = 0

    async def connect(self, endpoint: str) -> Any:
        self.dialed += 1
        await asyncio.sleep(self.length)
        raise acb.Unavailable("no answer")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Silent:
    made = Silent(0.1)
    monkeypatch.setattr(_replica, "checked", lambda pem: pem)
    monkeypatch.setattr(Replicas, "_connect", lambda _, endpoint: made.connect(endpoint))
    return made


async def test_those_who_wait_for_a_connection_share_it(silent: Silent) -> None:
    replicas = Replicas(ENDPOINTS, b"")
    waiting = [asyncio.create_task(replicas.link()) for _ in range(20)]
    await asyncio.sleep(0.02)
    # The first one begins it, and leaving does not end it.
    waiting.pop(0).cancel()
    failed = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert silent.dialed == 2
    assert all(isinstance(error, acb.Unavailable) and "two.example:8443: no answer" in str(error) for error in failed)
    assert len(set(map(id, failed))) == len(failed), "each has an error of its own"


async def test_closing_ends_what_connects(silent: Silent) -> None:
    silent.length = 60.0
    replicas = Replicas(ENDPOINTS, b"")
    waiting = asyncio.create_task(replicas.link())
    await asyncio.sleep(0.01)
    await asyncio.wait_for(replicas.close(), 2)
    with pytest.raises(acb.Unavailable, match="the client was closed"):
        await asyncio.wait_for(waiting, 2)


async def test_connecting_is_within_the_time_of_a_call(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_calls, "SHORTEST", 0.3)
    silent.length = 60.0
    client = Client(ENDPOINTS, b"", ApiKey("acb_0123456789ab_c2VjcmV0c2VjcmV0"), retry_for=0.3)
    began = time.monotonic()
    calls = [client.request("x", within=0.2), *(client.send("x", "y") for _ in range(5)), client.agent("x")]
    failed = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert time.monotonic() - began < 2 and silent.dialed == 1
    assert all(isinstance(error, acb.Unavailable) and "no replica of the hub answers" in str(error) for error in failed), failed
    await client.close()


async def test_pauses_and_further_tries_are_within_the_time_of_a_request(silent: Silent) -> None:
    client = Client(ENDPOINTS, b"", ApiKey("acb_0123456789ab_c2VjcmV0c2VjcmV0"), retry_for=60)
    began = time.monotonic()
    with pytest.raises(acb.Unavailable, match=r"one\.example:8443: no answer"):
        await asyncio.wait_for(client.request("x", within=0.9), 10)
    assert time.monotonic() - began < 2 and silent.dialed > 2
    await client.close()


class Answering:
    """A connection whose hub exchanges tokens slowly, and never the same refresh token twice."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()

    def held(self) -> Any:
        return _replica.Link.held(self)  # type: ignore[arg-type]

    users = 0
    is_left = False

    def call(self, method: str) -> Any:
        async def answer(request: Any, metadata: Any) -> Any:
            self.asked.append(request.refresh_token)
            await self.may_answer.wait()
            response = _wire.new("TokenResponse", access_token="t", refresh_token="next")
            response.access_token_expires_at.CopyFrom(_wire.time(datetime.now(UTC) + timedelta(hours=1)))
            return response

        return answer


async def test_a_renewal_goes_on_where_who_began_it_goes_away() -> None:
    auth, link = Auth(Tokens("old", datetime.now(UTC), "once")), Answering()
    first = asyncio.create_task(auth.bearer(link))  # type: ignore[arg-type]
    second = asyncio.create_task(auth.bearer(link))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not second.done() and link.users == 1, "the connection is kept for it"
    link.may_answer.set()
    assert await asyncio.wait_for(second, 5) == ("Bearer t", 0)
    assert link.asked == ["once"] and auth.tokens and auth.tokens.refresh == "next" and link.users == 0


async def test_a_close_that_is_cancelled_closes_all_the_same(silent: Silent) -> None:
    client = Client(ENDPOINTS, b"", ApiKey("acb_0123456789ab_c2VjcmV0c2VjcmV0"))

    class Slow:
        async def close(self) -> None:
            await asyncio.sleep(60)

    client._sessions.add(Slow())  # type: ignore[arg-type]
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(acb.UsageError, match="the client is closed"):
        await client.send("x", "y")
