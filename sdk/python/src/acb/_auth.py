"""Keeps a valid access token: exchanged, refreshed before its end, and renewed where a hub no longer takes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc.aio

from . import _telemetry, _wire
from ._correlation import header
from ._credential import ApiKey, Credential, Identity, TokenFile, Tokens
from ._error import CORRELATION_HEADER, Code, Error, Refused, TimedOut, Unavailable, UsageError, broke, of_status
from ._replica import Link

ATTEMPT = 10.0
SHORTEST = 30.0
#: RFC 8693.
JWT = "urn:ietf:params:oauth:token-type:jwt"
#: More than a hub looks at.
MAX_TOKEN_FILE = 64 * 1024

Metadata = list[tuple[str, str]]


def metadata(bearer: str | None = None) -> Metadata:
    """What a request that is made now carries."""
    said: Metadata = []
    if bearer is not None:
        said.append(("authorization", bearer))
    if (correlation_id := header()) is not None:
        said.append((CORRELATION_HEADER, correlation_id))
    said.extend(_telemetry.headers())
    return said


class _Denied(Exception):
    """What a request to the auth service ended as."""

    def __init__(self, error: Error, *, broken: Link | None = None, unreadable: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        #: The connection that is at fault, if one is.
        self.link = broken
        #: Whether the same may be answered otherwise later.
        self.may_pass = broken is not None or unreadable or error.is_retryable


@dataclass(slots=True)
class _Held:
    tokens: Tokens
    bearer: str
    identity: Identity
    #: When to renew it, by this process's own clock: a hub's clock may differ.
    renew_at: float
    ends_at: float
    serial: int


class Auth:
    """The tokens of one client."""

    def __init__(self, credential: Credential, now: Callable[[], float] = time.monotonic) -> None:
        self._credential = credential
        self._held: _Held | None = None
        #: What renews the token now, for all who wait for it. A caller that goes away does not end it: the hub may have used up the refresh token,
        #: and would take its second use for a theft.
        self._renewing: asyncio.Task[_Held | _Denied] | None = None
        self.now = now

    def __repr__(self) -> str:
        return f"Auth({self._credential!r})"

    @property
    def identity(self) -> Identity | None:
        """Whom the tokens speak for."""
        return self._held.identity if self._held else None

    @property
    def tokens(self) -> Tokens | None:
        """The current tokens."""
        return self._held.tokens if self._held else None

    async def bearer(self, link: Link) -> tuple[str, int]:
        """The token for the next request, and its serial number.

        Callers that come while it is renewed wait for that. Raises where there is none.
        """
        if (held := self._held) is not None and self.now() < held.renew_at:
            return held.bearer, held.serial
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renewal(link), name="acb-token")
            self._renewing.add_done_callback(self._renewed)
        outcome = await asyncio.shield(self._renewing)
        if isinstance(outcome, _Held):
            return outcome.bearer, outcome.serial
        held = self._held
        # A token that still holds is better than none.
        if held is not None and self.now() < held.ends_at and outcome.may_pass:
            return held.bearer, held.serial
        error = outcome.error.copy()
        raise Broken(error, outcome.link) if outcome.link is not None else error

    async def _renewal(self, link: Link) -> _Held | _Denied:
        with link.held():
            held = self._held
            try:
                response = await self._renew(link)
                self._held = self._hold(response, held.serial + 1 if held else 0)
            except _Denied as denied:
                return denied
            except Error as error:
                return _Denied(error)
            return self._held

    def _renewed(self, renewing: asyncio.Task[_Held | _Denied]) -> None:
        self._renewing = None
        # Its callers may all be gone.
        if not renewing.cancelled():
            renewing.exception()

    def spoil(self, serial: int) -> None:
        """The hub did not take this token: the next request gets a new one."""
        if self._held is not None and self._held.serial == serial:
            self._held.renew_at = self._held.ends_at = self.now()

    async def _renew(self, link: Link) -> Any:
        credential, held = self._credential, self._held
        if isinstance(credential, TokenFile):
            return await self._exchange_file(link, credential)
        if held is not None and held.tokens.refresh:
            try:
                return await self._refresh(link, held.tokens.refresh)
            except _Denied as denied:
                # The family was revoked or has ended: the key may still be good.
                if not isinstance(credential, ApiKey) or denied.link is not None or denied.error.code is not Code.UNAUTHENTICATED:
                    raise
        if isinstance(credential, ApiKey):
            request = _wire.new("ExchangeTokenRequest", api_key=credential.expose())
            return await self._answer(link, "AuthService.ExchangeToken", request)
        return await self._refresh(link, credential.refresh)

    async def _refresh(self, link: Link, token: str) -> Any:
        return await self._answer(link, "AuthService.RefreshToken", _wire.new("RefreshTokenRequest", refresh_token=token))

    async def _exchange_file(self, link: Link, credential: TokenFile) -> Any:
        def read() -> str:
            with credential.path.open("rb") as file:
                return file.read(MAX_TOKEN_FILE).decode("ascii")

        try:
            token = await asyncio.to_thread(read)
        except (OSError, ValueError) as error:
            # The next look may find it: a token that is held meanwhile goes on. What is in the file is never said.
            why = error if isinstance(error, OSError) else "it is no text"
            raise _Denied(UsageError(f"the token of the ServiceAccount, {credential.path}: {why}"), unreadable=True) from None
        request = _wire.new("ExchangeSubjectTokenRequest", subject_token=token.strip(), subject_token_type=JWT)
        return await self._answer(link, "AuthService.ExchangeSubjectToken", request)

    async def _answer(self, link: Link, method: str, request: Any) -> Any:
        try:
            async with asyncio.timeout(ATTEMPT):
                return await link.call(method)(request, metadata=metadata())
        except grpc.aio.AioRpcError as status:
            if broke(status):
                raise _Denied(of_status(status), broken=link) from None
            raise _Denied(of_status(status).during("authentication")) from None
        except TimeoutError:
            raise _Denied(TimedOut(f"authentication: no answer within {ATTEMPT:.0f} s"), broken=link) from None
        except grpc.aio.UsageError:
            raise _Denied(Unavailable("the connection was closed"), broken=link) from None
        except asyncio.CancelledError:
            # What is closed under a call cancels it. Only this task itself may be told so.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _Denied(Unavailable("the connection was closed"), broken=link) from None

    def _hold(self, response: Any, serial: int) -> _Held:
        if not response.access_token or not all("!" <= character <= "~" for character in response.access_token):
            raise Refused(Code.INTERNAL, "", "authentication: the hub answered with a malformed token")
        expires_at = _wire.read_time(response.access_token_expires_at) or datetime.fromtimestamp(0, UTC)
        lifetime = max((expires_at - datetime.now(UTC)).total_seconds(), SHORTEST)
        now = self.now()
        return _Held(
            tokens=Tokens(access=response.access_token, access_expires_at=expires_at, refresh=response.refresh_token),
            bearer=f"Bearer {response.access_token}",
            identity=Identity(tenant=response.tenant, agent=response.agent, agent_id=response.agent_id),
            renew_at=now + lifetime * 0.8,
            ends_at=now + lifetime,
            serial=serial,
        )


class Broken(Exception):
    """The connection failed while a token was asked for."""

    def __init__(self, error: Error, link: Link) -> None:
        super().__init__(str(error))
        self.error = error
        self.link = link
