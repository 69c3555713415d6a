"""A real hub: `acb dev`, with two tenants of two replicas each. Nobody touches those of `acme`; those of `fragile` a test ends."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import acb
from acb._client import Connecting

T = TypeVar("T")

#: More than anything here takes on a busy machine.
LONG = 60.0
ROOT = Path(__file__).resolve().parents[4]

#: Tests share the tenant, never an agent that receives.
ACME = {
    "supervisor": "{type: supervisor, role: AgentFull, groups: [team], publishes: [documents], subscribes: [documents]}",
    "worker-a": "{type: worker, role: AgentFull, groups: [team, workers], capabilities: [summarize], subscribes: [documents]}",
    "worker-b": "{type: worker, role: AgentFull, groups: [team, workers], capabilities: [summarize], subscribes: [documents]}",
    "asker": "{type: person, role: AgentFull, subscribes: [documents]}",
    "author": "{type: author, role: AgentFull, publishes: [documents], subscribes: [documents]}",
    "reader": "{type: reader, role: AgentFull, subscribes: [documents]}",
    "admin": "{type: person, role: Admin}",
    "auditor": "{type: person, role: Auditor}",
    "translator": "{type: linguist, role: AgentFull, capabilities: [translate, summarize], attributes: {team: red, rank: '1'}}",
    "limited": "{type: limited, role: AgentFull, groups: [limited]}",
} | {f"agent-{number}": "{type: worker, role: AgentFull}" for number in range(53)}
FRAGILE = {
    "sender": "{type: worker, role: AgentFull, publishes: [documents]}",
    "receiver": "{type: worker, role: AgentFull, subscribes: [documents]}",
}
LIMIT = """---
apiVersion: acb.dev/v1alpha1
kind: Quota
metadata: {name: limited, namespace: acb-acme}
spec: {selector: {groups: [limited]}, limits: {messagesPerMonth: 3}}
"""


def _tenant(name: str, registration: str, agents: dict[str, str]) -> str:
    head = (
        f"apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: {name}}}\n"
        f"spec: {{tier: Enterprise, registration: {registration}, hub: {{replicas: 2}}, contextTypes: [{{name: documents}}]}}\n"
    )
    agent = "---\napiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {}, namespace: acb-{}}}\nspec: {}\n"
    return head + "".join(agent.format(one, name, spec) for one, spec in agents.items())


def _end_with_this_process() -> None:
    """What a killed test run leaves behind ends with it: PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Dev:
    """A running `acb dev`. It ends with `close`."""

    def __init__(self) -> None:
        program = Path(os.environ.get("ACB_BIN") or ROOT / "target/debug/acb")
        if not program.exists():
            raise RuntimeError(f"{program} is not there: run `make build`, or set ACB_BIN")
        self.program = program
        self.home = Path(tempfile.mkdtemp(prefix="acb-python-"))
        # As root PostgreSQL runs as another user, who has to get in.
        self.home.chmod(0o755)
        resources = self.home / "resources"
        resources.mkdir()
        (resources / "acme.yaml").write_text(_tenant("acme", "Open", ACME) + LIMIT)
        (resources / "fragile.yaml").write_text(_tenant("fragile", "Declared", FRAGILE))
        ready = self.home / "ready.json"
        self._log = (self.home / "dev.log").open("w")
        self._process = subprocess.Popen(
            [program, "dev", "-f", resources, "--state", self.home / "state", "--ready-file", ready],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            preexec_fn=_end_with_this_process,
        )
        deadline = time.monotonic() + 2 * LONG
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.home / "dev.log").read_text()
                self.close()
                raise RuntimeError(f"acb dev did not become ready:\n{said}")
            time.sleep(0.1)
        self.access: dict[str, Any] = json.loads(ready.read_text())

    def close(self) -> None:
        """Ends it, and removes what it made."""
        self._process.terminate()
        try:
            self._process.wait(LONG)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def endpoints(self, tenant: str) -> list[str]:
        """The replicas of a tenant's hub."""
        return str(self.access[tenant]["server"]).split(",")

    def ca_file(self, tenant: str) -> str:
        """The file of a tenant's CA."""
        return str(self.access[tenant]["caFile"])

    def key_file(self, tenant: str, agent: str) -> str:
        """The file of an agent's key."""
        return str(self.access[tenant]["apiKeyFiles"][agent])

    def options(self, agent: str, tenant: str = "acme", replica: int | None = None) -> dict[str, Any]:
        """What `connect` takes."""
        endpoints = self.endpoints(tenant)
        return {
            "server": endpoints if replica is None else endpoints[replica],
            "ca_file": self.ca_file(tenant),
            "api_key_file": self.key_file(tenant, agent),
        }

    def environment(self, agent: str, tenant: str = "acme") -> dict[str, str]:
        """What a program of an agent is started with."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("ACB_")},
            "HOME": str(self.home),
            "ACB_SERVER": ",".join(self.endpoints(tenant)),
            "ACB_CA_FILE": self.ca_file(tenant),
            "ACB_API_KEY_FILE": self.key_file(tenant, agent),
        }

    def connect(self, agent: str, tenant: str = "acme", replica: int | None = None, **more: Any) -> Connecting:
        """An agent, over all replicas of its tenant or over one."""
        return acb.connect(**(self.options(agent, tenant, replica) | more))

    def pods(self, tenant: str) -> dict[str, Any]:
        """The replicas of a tenant, by name: process ids, and whether they are ready."""
        running = json.loads((self.home / "state/running.json").read_text())
        pods: dict[str, Any] = running["deployments"][f"acbhub-{tenant}/hub"]["pods"]
        return pods

    async def until_whole(self, tenant: str) -> None:
        """Waits until all replicas of a tenant are there again."""

        async def is_whole() -> bool:
            pods = self.pods(tenant)
            return len(pods) == 2 and all(pod["ready"] for pod in pods.values())

        await until(f"the replicas of {tenant} are there again", is_whole)


async def until(what: str, look: Callable[[], Awaitable[T]]) -> T:
    """Waits for what is not false."""
    deadline = time.monotonic() + LONG
    while not (found := await look()):
        assert time.monotonic() < deadline, f"waiting until {what}"
        await asyncio.sleep(0.05)
    return found


async def soon(awaitable: Awaitable[T]) -> T:
    """Waits for it, and not for ever."""
    async with asyncio.timeout(LONG):
        return await awaitable


class Wire:
    """A connection to a replica that can be cut, or stand still."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("https://").rpartition(":")
        self._to = (host, int(port))
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.bytes_up = 0
        self.bytes_down = 0
        self.connections = 0
        #: Cuts once so many bytes went up, or down.
        self.cut_after_up: int | None = None
        self.cut_after_down: int | None = None
        self.address = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        self._open |= {writer, up_writer}

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, up: bool) -> None:
            with suppress(OSError):
                while data := await source.read(65536):
                    await self._flows.wait()
                    self.bytes_up += len(data) if up else 0
                    self.bytes_down += 0 if up else len(data)
                    target.write(data)
                    await target.drain()
                    if up and self.cut_after_up is not None and self.bytes_up >= self.cut_after_up:
                        self.cut_after_up = None
                        self.cut()
                    if not up and self.cut_after_down is not None and self.bytes_down >= self.cut_after_down:
                        self.cut_after_down = None
                        self.cut()
            target.close()

        # What the test's end cancels is of no interest to it.
        with suppress(asyncio.CancelledError):
            await asyncio.gather(pump(reader, up_writer, True), pump(up_reader, writer, False))
        self._open -= {writer, up_writer}

    def cut(self) -> None:
        """Cuts all connections. New ones are possible."""
        for writer in self._open:
            writer.transport.abort()

    def stall(self) -> None:
        """Nothing goes through any more, and nothing is said of it."""
        self._flows.clear()

    def resume(self) -> None:
        """It goes through again."""
        self._flows.set()


@asynccontextmanager
async def wire(endpoint: str) -> AsyncIterator[Wire]:
    """A wire to a replica: connect with `through=wire.address`."""
    made = Wire(endpoint)
    server = await asyncio.start_server(made._serve, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        made.resume()
        made.cut()
        await asyncio.sleep(0)
