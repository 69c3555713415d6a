"""Calls to one tenant's hub, as one agent: each on whichever replica answers, with a token, and again where that helps and is allowed."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc.aio

from ._auth import Auth, Broken, metadata
from ._backoff import SHORTEST, Limited, Patience
from ._correlation import of_call
from ._credential import Credential, Identity, Tokens
from ._error import Code, Error, Refused, TimedOut, Unavailable, UsageError, broke, of_status
from ._replica import CONNECT_TIMEOUT, Link, Replicas

_LOG = logging.getLogger("acb")

ATTEMPT = 15.0
RETRY_FOR = 30.0


@dataclass(slots=True)
class Line:
    """An authenticated connection for one call."""

    link: Link
    bearer: str
    serial: int

    def start(self, method: str, request: Any = None) -> Any:
        """Begins a call: with its request, or one that is written to."""
        call = self.link.call(method)
        return call(metadata=metadata(self.bearer)) if request is None else call(request, metadata=metadata(self.bearer))


class Next(Enum):
    """What to do about a failed call."""

    #: Try again at once, with a new token.
    AGAIN = 1
    #: Try again after a pause, on whichever replica answers.
    LATER = 2
    #: It would fail again.
    NEVER = 3


class Calls:
    """What every noun of the client uses."""

    def __init__(
        self,
        endpoints: list[str],
        ca_pem: bytes,
        credential: Credential,
        *,
        retry_for: float = RETRY_FOR,
        through: str | None = None,
    ) -> None:
        self._replicas = Replicas(endpoints, ca_pem, through)
        self._auth = Auth(credential)
        self._retry_for = retry_for
        self._replica: str | None = None
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        identity = self._auth.identity
        return f"<acb.{type(self).__name__} {identity.tenant}/{identity.agent}>" if identity else f"<acb.{type(self).__name__}>"

    @property
    def identity(self) -> Identity:
        """Whom this client speaks for."""
        if self._auth.identity is None:
            raise UsageError("the client is not connected yet")
        return self._auth.identity

    @property
    def tokens(self) -> Tokens:
        """The current tokens."""
        if self._auth.tokens is None:
            raise UsageError("the client is not connected yet")
        return self._auth.tokens

    @property
    def replica(self) -> str | None:
        """The name of the replica that last answered a session or a transfer."""
        return self._replica

    async def endpoint(self) -> str:
        """The address of the replica that the client is connected to."""
        self._check()
        return (await self._replicas.link()).endpoint

    def _check(self) -> None:
        """Where it would otherwise hang, or end the program: says what is wrong."""
        if os.getpid() != self._process:
            raise UsageError("this process was forked after the client connected: connect in each process, after the fork")
        if self._closed:
            raise UsageError("the client is closed")
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("the client belongs to another event loop, or to one that is closed: connect inside of the loop that uses it")

    def _patience(self, since: float | None = None) -> Patience:
        return Patience(self._retry_for, since)

    def _name_replica(self, name: str) -> None:
        if name:
            self._replica = name

    async def _connect(self) -> None:
        patience = self._patience(time.monotonic())
        while True:
            try:
                async with self._line(patience.until):
                    return
            except Error as error:
                if not error.is_retryable:
                    raise
                await patience.wait(error)

    @asynccontextmanager
    async def _line(self, by: float | None = None) -> AsyncIterator[Line]:
        """An authenticated connection. Waits for it until `by`, of the monotonic clock."""
        self._check()
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(None if by is None else by - time.monotonic()) as limit:
                    link = await held.enter_async_context(self._replicas.use())
                    try:
                        bearer, serial = await self._auth.bearer(link)
                    except Broken as broken:
                        self._replicas.leave(broken.link)
                        raise broken.error from None
            except TimeoutError:
                if not limit.expired():
                    raise
                raise self._replicas.silent() from None
            yield Line(link, bearer, serial)

    def _leave(self, line: Line) -> None:
        """Goes to another replica with the next call."""
        self._replicas.leave(line.link)

    def _judge(self, line: Line, status: grpc.aio.AioRpcError, renewed: bool) -> tuple[Next, Error]:
        """What to do after `status`; `renewed` says whether a new token was tried already."""
        error = of_status(status)
        if broke(status):
            self._leave(line)
            return Next.LATER, error
        if error.code is Code.UNAUTHENTICATED and not renewed:
            self._auth.spoil(line.serial)
            return Next.AGAIN, error
        return Next.NEVER, error

    async def _call(
        self,
        what: str,
        method: str,
        request: Any | Callable[[], Any],
        *,
        again: bool = True,
        within: float | None = None,
        until: float | None = None,
        slack: float = 0.0,
    ) -> Any:
        """Makes a unary call, again where that helps.

        `again` says that twice is as good as once: otherwise it is tried again only as long as it certainly was not done. `within` is how long one
        attempt may take. `until` is when its caller waits no longer, for whatever it is, but for `slack` more where the hub has the request.
        """
        with of_call() as correlation_id:
            patience, limited, renewed = self._patience(), Limited(), False
            # All of it together: connecting, the token, each attempt, the pauses between them.
            ends = until if until is not None else time.monotonic() + max(self._retry_for, within or SHORTEST)
            within = within or ATTEMPT
            while True:
                try:
                    async with self._line(ends) as line:
                        asked = time.monotonic()
                        try:
                            if asked >= ends:
                                raise _Final(TimedOut("its time was over before it was asked"))
                            async with asyncio.timeout(min(within, ends + slack - asked)) as limit:
                                return await line.start(method, request() if callable(request) else request)
                        except grpc.aio.AioRpcError as status:
                            then, error = self._judge(line, status, renewed)
                            if then is Next.AGAIN:
                                renewed = True
                                continue
                            if then is Next.NEVER or not again:
                                pause_until = limited.again_at(error, time.monotonic())
                                if pause_until is None or (until is not None and pause_until > until):
                                    raise _Final(error) from None
                                _LOG.warning("waiting for a limit: %s", error)
                                # The token may have ended by then.
                                renewed = False
                                pause = max(0.0, pause_until - time.monotonic())
                                if until is None:
                                    ends += pause
                                await asyncio.sleep(pause)
                                continue
                        except TimeoutError:
                            if not limit.expired():
                                raise
                            waited = time.monotonic() - asked
                            # An attempt that had hardly any time left says nothing of the replica.
                            if waited >= min(within, CONNECT_TIMEOUT):
                                self._leave(line)
                            error = TimedOut(f"no answer within {waited:.1f} s")
                            if not again:
                                raise _Final(error) from None
                        except grpc.aio.UsageError:
                            self._leave(line)
                            error = Unavailable("the connection was closed")
                        except asyncio.CancelledError:
                            # What is closed under a call cancels it. Only its own task may be told so.
                            if not self._closed or _is_cancelled():
                                raise
                            raise _Final(Unavailable("the client was closed")) from None
                except _Final as final:
                    raise _of_call(final.error.during(what), correlation_id) from None
                except Error as failed:
                    if not failed.is_retryable:
                        raise _of_call(failed.during(what), correlation_id) from None
                    error = failed
                try:
                    await patience.wait(error, ends)
                except Error as over:
                    raise _of_call(over.during(what), correlation_id) from None


class _Final(Exception):
    """The call is over."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


def _of_call(error: Error, correlation_id: str) -> Error:
    if isinstance(error, Refused) and not error.correlation_id:
        error.correlation_id = correlation_id
    return error


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
