"""Who one is: keys, tokens over a long time, and hubs that are not the right ones."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import acb
import acb.sync

from .world import Dev, soon


async def test_a_long_session_goes_on_while_its_tokens_are_renewed(dev: Dev) -> None:
    """The client's clock is put forward, the hub's is not: an access token holds for an hour, and is renewed after 48 minutes."""
    async with dev.connect("agent-43") as agent, agent.session() as session:
        seen = [agent.tokens]
        clock = agent._auth.now
        for round in range(3):
            agent._auth.now = lambda ahead=(round + 1) * 50 * 60: clock() + ahead  # type: ignore[misc]
            await agent.send("agent-43", round)
            with await soon(session.next()) as message:
                assert message.json(int) == round
            tokens = agent.tokens
            assert tokens and all(old and old.access != tokens.access and old.refresh != tokens.refresh for old in seen)
            seen.append(tokens)


async def test_a_token_that_the_hub_does_not_take_is_renewed_once(dev: Dev) -> None:
    async with dev.connect("agent-43") as agent:
        held = agent._auth._held
        assert held
        held.bearer = "Bearer spoiled"
        assert (await agent.agent("agent-43")).name == "agent-43"
        assert agent._auth._held and agent._auth._held.serial == 1
        # The family of its refresh token has ended, too: the key is still good.
        agent._auth._held.tokens = acb.Tokens("x", agent._auth._held.tokens.access_expires_at, "invented")
        agent._auth._held.bearer = "Bearer spoiled"
        assert (await agent.agent("agent-43")).name == "agent-43"


async def test_tokens_alone_are_enough(dev: Dev) -> None:
    async with dev.connect("agent-43") as agent:
        tokens = agent.tokens
        assert tokens
        async with dev.connect("agent-43", api_key_file=None, tokens=tokens) as other:
            assert other.identity == agent.identity and other.tokens and other.tokens.refresh != tokens.refresh
        invented = acb.Tokens(tokens.access, tokens.access_expires_at, "invented-secret")
        with pytest.raises(acb.Refused) as refused:
            await dev.connect("agent-43", api_key_file=None, tokens=invented)
        assert refused.value.code is acb.Code.UNAUTHENTICATED and "invented-secret" not in str(refused.value)


async def test_many_callers_renew_a_token_once(dev: Dev) -> None:
    async with dev.connect("agent-43") as agent:
        held = agent._auth._held
        assert held
        agent._auth.spoil(held.serial)
        await asyncio.gather(*(agent.agent("agent-43") for _ in range(20)))
        assert agent._auth._held and agent._auth._held.serial == held.serial + 1


async def test_what_is_not_the_right_hub_is_said(dev: Dev, tmp_path: Path) -> None:
    with pytest.raises(acb.Untrusted, match="the given CA is not that of the hub"):
        await soon(dev.connect("agent-43", ca_file=dev.ca_file("fragile"))._connect())
    with pytest.raises(acb.Refused) as refused:
        await soon(dev.connect("agent-43", api_key_file=None, api_key="acb_0123456789ab_c2VjcmV0c2VjcmV0")._connect())
    assert refused.value.code is acb.Code.UNAUTHENTICATED and "c2VjcmV0" not in str(refused.value)
    with pytest.raises(acb.Refused):
        await soon(dev.connect("agent-43", api_key_file=dev.key_file("fragile", "sender"))._connect())
    with pytest.raises(acb.Unavailable, match="gave up after 1 s"):
        await soon(dev.connect("agent-43", server="https://127.0.0.1:1", retry_for=1)._connect())
    token = tmp_path / "token"
    with pytest.raises(acb.UsageError, match="the token of the ServiceAccount"):
        await soon(dev.connect("agent-43", api_key_file=None, token_file=token)._connect())
    token.write_text("eyJhbGciOiJub25lIn0.secret.x\n")
    with pytest.raises(acb.Refused) as refused:
        await soon(dev.connect("agent-43", api_key_file=None, token_file=token)._connect())
    assert refused.value.code is acb.Code.UNAUTHENTICATED and "secret" not in str(refused.value)


async def test_one_replica_that_does_not_answer_is_passed_over(dev: Dev) -> None:
    async with dev.connect("agent-43", server=["https://127.0.0.1:1", dev.endpoints("acme")[0]]) as agent:
        assert await agent.endpoint() == dev.endpoints("acme")[0]
        assert (await agent.agent("agent-43")).name == "agent-43"


async def test_a_proxy_of_the_environment_is_used(dev: Dev, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.split()[1])
        host, _, port = asked[-1].rpartition(":")
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            target.close()

        with suppress(asyncio.CancelledError):
            await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    async with dev.connect("agent-43", replica=0) as agent:
        assert (await agent.agent("agent-43")).name == "agent-43"
    assert asked == [dev.endpoints("acme")[0].removeprefix("https://")]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with dev.connect("agent-43", replica=0):
        assert len(asked) == 1
    server.close()


def test_the_environment_and_a_profile_are_enough(dev: Dev) -> None:
    code = "import acb.sync; agent = acb.sync.connect(); print(agent.identity.agent); agent.close()"
    ran = subprocess.run([sys.executable, "-c", code], env=dev.environment("agent-44"), capture_output=True, text=True, timeout=60)
    assert (ran.stdout.strip(), ran.returncode) == ("agent-44", 0), ran.stderr
    config = dev.home / "config.yaml"
    around = {"PATH": "/usr/bin:/bin", "HOME": str(dev.home), "ACB_CONFIG": str(config)}
    login = [str(dev.program), "login", "acme/agent-45", "--state", str(dev.home / "state"), "--output", "json"]
    kept = json.loads(subprocess.run(login, env=around, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert kept
    ran = subprocess.run([sys.executable, "-c", code], env=around, capture_output=True, text=True, timeout=60)
    assert (ran.stdout.strip(), ran.returncode) == ("agent-45", 0), ran.stderr
