"""A replica that drains, and one that is killed: what is said goes on over the other."""

from __future__ import annotations

import os
import signal

import pytest

import acb

from .world import Dev, soon

EACH = 150


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_session_goes_on_where_its_replica_ends(dev: Dev, how: signal.Signals) -> None:
    await dev.until_whole("fragile")
    async with dev.connect("sender", "fragile") as sender, dev.connect("receiver", "fragile") as receiver:
        async with sender.session(receive=False) as out, receiver.session() as inbox:
            ended = inbox.replica
            receipts, came = [], []

            async def take() -> None:
                with await soon(inbox.next()) as message:
                    came.append((message.json(int), message.redelivered))

            for number in range(EACH):
                receipts.append(await soon(out.enqueue("receiver", number)))
                if number == EACH // 3:
                    await take()
                    os.kill(dev.pods("fragile")[ended]["pid"], how)
            for receipt in receipts:
                await soon(receipt)
            while len(came) < EACH:
                await take()
            fresh = [number for number, redelivered in came if not redelivered]
            assert fresh == sorted(fresh) and sorted(number for number, _ in came) == list(range(EACH)), "each came once"
            assert inbox.replica != ended
    await dev.until_whole("fragile")


async def test_an_upload_goes_on_with_the_other_replica(dev: Dev) -> None:
    await dev.until_whole("fragile")
    data = os.urandom(16 << 20)
    async with dev.connect("sender", "fragile") as sender, dev.connect("receiver", "fragile") as receiver:
        killed: list[str] = []

        def watch(progress: acb.Progress) -> None:
            if progress.bytes >= 5 << 20 and not killed:
                killed.append(sender.replica or "")
                os.kill(dev.pods("fragile")[killed[0]]["pid"], signal.SIGKILL)

        uploaded = await soon(sender.upload("documents", data, progress=watch))
        assert (uploaded.resumed_from_chunk or 0) >= 5 and uploaded.replicas[0] == killed[0] != uploaded.replicas[-1]
        assert await soon(receiver.payload(uploaded.context.id)) == data
    await dev.until_whole("fragile")
