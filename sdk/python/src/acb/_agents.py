"""Who else is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from . import _wire
from ._calls import Calls
from ._error import Code, Error, Refused
from ._page import every
from ._types import Agent, AgentCredential, read

_LOG = logging.getLogger("acb")


@dataclass(frozen=True, slots=True)
class Registered:
    """An agent that was registered for another one, and the only look at its key."""

    agent: Agent
    #: What it logs in with. The hub keeps no copy, and does not say it again.
    api_key: str = field(repr=False)


class Agents(Calls):
    """The calls of the registry."""

    async def announce(self) -> Agent:
        """Announces this agent as online."""
        return (await self._register()).agent

    async def register(
        self,
        name: str,
        *,
        type: str = "",
        capabilities: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        location: str = "",
    ) -> Registered:
        """Registers another agent of this agent's role, in a tenant whose registration is `Open`.

        It may do what this agent may, and ends with it. Called again under the same name it describes the agent anew, and gives it another key:
        the one before ends.
        """
        if not name:
            raise Refused(Code.INVALID_ARGUMENT, "AGENT_NAME_INVALID", "register: say the new agent's name")
        return await self._register(name=name, type=type, capabilities=list(capabilities), metadata=dict(metadata or {}), location=location)

    async def _register(self, **said: Any) -> Registered:
        response = await self._call("register", "AgentRegistry.Register", _wire.new("RegisterRequest", **said))
        return Registered(read(response.agent), response.api_key)

    async def unregister(self, name: str = "") -> None:
        """Takes the calling agent offline where `name` is empty, or removes one that it registered."""
        await self._call("unregister", "AgentRegistry.Unregister", _wire.new("UnregisterRequest", name=name))

    async def heartbeat(self) -> float:
        """Sends one heartbeat; says in how many seconds the next is due."""
        response = await self._call("heartbeat", "AgentRegistry.Heartbeat", _wire.new("HeartbeatRequest"))
        return float(max(response.interval_seconds, 1))

    @asynccontextmanager
    async def heartbeats(self) -> AsyncIterator[None]:
        """Sends heartbeats as the hub wants them: `async with agent.heartbeats(): …`."""
        task = asyncio.create_task(self._heartbeats(), name="acb-heartbeats")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _heartbeats(self) -> None:
        interval = 10.0
        while True:
            try:
                # Half of it, so that a late one is not too late.
                interval = await self.heartbeat() / 2
            except Error as error:
                _LOG.warning("a heartbeat failed: %s", error)
            await asyncio.sleep(max(interval, 1.0))

    async def agent(self, name: str) -> Agent:
        """An agent of the tenant, by name."""
        found: Agent = read(await self._call("get agent", "AgentRegistry.GetAgent", _wire.new("GetAgentRequest", name=name)))
        return found

    def agents(self) -> AsyncIterator[Agent]:
        """Every agent of the tenant; page after page as they are taken."""
        return every(
            lambda token: self._call("list agents", "AgentRegistry.ListAgents", _wire.new("ListAgentsRequest", page_token=token)),
            "agents",
        )

    def discover(self, *, type: str = "", capabilities: Iterable[str] = (), metadata: Mapping[str, str] | None = None) -> AsyncIterator[Agent]:
        """The agents that match every given criterion; page after page as they are taken."""
        said: dict[str, Any] = {"type": type, "capabilities": list(capabilities), "metadata": dict(metadata or {})}
        return every(
            lambda token: self._call("discover", "AgentRegistry.Discover", _wire.new("DiscoverRequest", page_token=token, **said)),
            "agents",
        )

    async def credentials(self, agent: str = "") -> list[AgentCredential]:
        """The credentials of the agent: which there are, since when, until when, and when each was last used. Never a secret.

        With the role admin those of another agent, by its name, or of all where it is empty.
        """
        pages = every(
            lambda token: self._call(
                "list credentials",
                "CredentialService.ListCredentials",
                _wire.new("ListCredentialsRequest", agent=agent, page_size=500, page_token=token),
            ),
            "credentials",
        )
        return [credential async for credential in pages]
