"""Connections to the replicas of one hub: TLS with the tenant's CA, one connection at a time, to whichever replica answers."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from . import _wire
from ._error import Error, Unavailable, Untrusted, UsageError, broke

_LOG = logging.getLogger("acb")

CONNECT_TIMEOUT = 3.0
_STATES_THAT_LAST = (
    grpc.ChannelConnectivity.READY,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
    grpc.ChannelConnectivity.SHUTDOWN,
)
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A keepalive ping waits behind a ping that measures the bandwidth, whose answer is given a minute: a line that stands still would be noticed that
    # late. Windows are as large as they would get.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 << 20),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # Trying again is decided here, by what was said and by whether it may be said twice.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A channel that is made anew is a connection that is made anew, and waits for no backoff of the one before.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "acb-sdk-python/0.1.0"),
]
#: What gRPC says where it is the certificate that is at fault.
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "is not in peer certificate")


class Link:
    """A connection that is in use."""

    def __init__(self, number: int, endpoint: str, channel: grpc.aio.Channel, close: Callable[[Link], None]) -> None:
        #: Rises with each connection, so that a late complaint does not drop a newer one.
        self.number = number
        self.endpoint = endpoint
        self.channel = channel
        self.users = 0
        #: Whether the client has turned away from it: it is closed once nothing uses it.
        self.is_left = False
        self._close = close
        self._calls: dict[str, Any] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps it open meanwhile, also after others turned away from it."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            if self.users == 0 and self.is_left:
                self._close(self)

    def call(self, name: str) -> Any:
        """What makes calls of this method."""
        found = self._calls.get(name)
        if found is None:
            method = _wire.method(name)
            kinds = {
                (False, False): self.channel.unary_unary,
                (False, True): self.channel.unary_stream,
                (True, True): self.channel.stream_stream,
            }
            make = kinds[method.client_streaming, method.server_streaming]
            found = make(method.path, request_serializer=method.serialize, response_deserializer=method.deserialize)
            self._calls[name] = found
        return found


class Replicas:
    """The replicas of one hub, and the connection to one of them."""

    def __init__(self, endpoints: Sequence[str], ca_pem: bytes, through: str | None = None) -> None:
        if not endpoints:
            raise UsageError("no endpoint was given: name at least one, such as https://hub.example:8443")
        self._endpoints = [normal(endpoint) for endpoint in endpoints]
        self._credentials = grpc.ssl_channel_credentials(root_certificates=checked(ca_pem))
        #: Where all of them are reached, whatever their names resolve to.
        self._through = through
        self._current: Link | None = None
        self._next = random.randrange(len(self._endpoints))
        self._numbers = 0
        #: What connects now, for all who wait for it: a caller that goes away takes it from nobody.
        self._dialing: asyncio.Task[Link | Error] | None = None
        #: What those said that were tried last.
        self._failures: list[str] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def link(self) -> Link:
        """The current connection, or a new one to the first replica that answers."""
        if self._current is not None:
            return self._current
        if self._dialing is None:
            self._dialing = asyncio.create_task(self._dial(), name="acb-dial")
            self._dialing.add_done_callback(self._dialed)
        dialing = self._dialing
        try:
            found = await asyncio.shield(dialing)
        except asyncio.CancelledError:
            # Closing the client cancels it. Only its own task may be told so.
            task = asyncio.current_task()
            if not dialing.cancelled() or (task is not None and task.cancelling()):
                raise
            raise Unavailable("the client was closed") from None
        if isinstance(found, Error):
            raise found.copy()
        return found

    def _dialed(self, dialing: asyncio.Task[Link | Error]) -> None:
        if self._dialing is dialing:
            self._dialing = None

    async def _dial(self) -> Link | Error:
        failures: list[str] = []
        untrusted = 0
        for _ in self._endpoints:
            endpoint = self._endpoints[self._next % len(self._endpoints)]
            try:
                channel = await self._connect(endpoint)
            except Error as error:
                untrusted += isinstance(error, Untrusted)
                failures.append(f"{endpoint}: {error}")
                self._failures = failures
                self._next += 1
                continue
            self._failures = []
            self._numbers += 1
            self._current = Link(self._numbers, endpoint, channel, self._close)
            _LOG.debug("connected to %s", endpoint)
            return self._current
        # With time another replica may answer, and be trusted. Where all did, and none is, time mends nothing.
        if untrusted == len(self._endpoints):
            return Untrusted(f"the given CA is not that of the hub: {'; '.join(failures)}")
        return self.silent()

    def silent(self) -> Unavailable:
        """That no replica answers, with what those said that were tried so far."""
        said = "; ".join(self._failures)
        return Unavailable(f"no replica of the hub answers{f': {said}' if said else ''}")

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Link]:
        """The connection, for one call. It is kept open as long as a call uses it, also after others turned away from it."""
        link = await self.link()
        with link.held():
            yield link

    def leave(self, link: Link) -> None:
        """Turns away from a connection that failed: the next one goes to the next replica."""
        if self._current is link:
            self._current = None
            self._next += 1
            link.is_left = True
            if link.users == 0:
                self._close(link)

    async def close(self) -> None:
        """Closes the connection, and with it every call that uses it."""
        if self._dialing is not None:
            self._dialing.cancel()
            await asyncio.wait([self._dialing], timeout=CONNECT_TIMEOUT)
        link, self._current = self._current, None
        if link is not None:
            self._close(link)
        # What closes is done in a moment.
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=CONNECT_TIMEOUT)

    def _close(self, link: Link) -> None:
        async def close() -> None:
            with suppress(Exception):
                await link.channel.close()

        try:
            task = asyncio.get_running_loop().create_task(close())
        except RuntimeError:
            return
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _connect(self, endpoint: str) -> grpc.aio.Channel:
        authority = endpoint.removeprefix("https://")
        options = list(_OPTIONS)
        target = f"dns:///{authority}"
        if self._through is not None:
            host = urlsplit(endpoint).hostname or ""
            options += [("grpc.ssl_target_name_override", host), ("grpc.default_authority", authority)]
            target = f"dns:///{self._through}"
        channel = grpc.aio.secure_channel(target, self._credentials, options=options)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                state = channel.get_state(try_to_connect=True)
                while state not in _STATES_THAT_LAST:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
                if state is grpc.ChannelConnectivity.READY:
                    return channel
                await self._cause(channel)
                return channel
        except BaseException as error:
            with suppress(Exception):
                await channel.close()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"no answer within {CONNECT_TIMEOUT:.0f} s") from None
            raise

    async def _cause(self, channel: grpc.aio.Channel) -> None:
        """Raises why the channel does not connect: only a call is told. Where it connects meanwhile the call is answered."""
        method = _wire.method("AuthService.GetJwks")
        call = channel.unary_unary(method.path, request_serializer=method.serialize, response_deserializer=method.deserialize)
        try:
            await call(_wire.new("GetJwksRequest"), wait_for_ready=False)
        except grpc.aio.AioRpcError as status:
            if not broke(status):
                return
            said = status.details() or "the connection broke"
            if any(sign in said for sign in _UNTRUSTED):
                raise Untrusted(said) from None
            raise Unavailable(said) from None


def checked(pem: bytes) -> bytes:
    """The PEM text of certificates, if it is that. gRPC would say so late, and not clearly."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem.decode("ascii"))
        if context.cert_store_stats()["x509"]:
            return pem
    except (ValueError, ssl.SSLError) as error:
        raise UsageError("the CA holds no certificate: give the tenant's ca.crt, as PEM") from error
    raise UsageError("the CA holds no certificate: give the tenant's ca.crt, as PEM")


def normal(text: str) -> str:
    """`https://host:port` from what people write: a scheme may be missing, the port may be."""

    def wrong(what: str) -> UsageError:
        return UsageError(f"{text!r} is not an endpoint: {what}; write https://host:port")

    trimmed = text.strip().removeprefix("https://").rstrip("/")
    if trimmed.startswith("http://"):
        raise wrong("a hub speaks TLS only")
    try:
        parts = urlsplit(f"https://{trimmed}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise wrong(str(error)) from None
    strange = any(character.isspace() or not character.isprintable() for character in trimmed)
    if not host or strange or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise wrong("it needs a host and no path")
    return f"https://{f'[{host}]' if ':' in host else host}:{port or 8443}"
