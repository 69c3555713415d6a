"""Large contexts in and out: at the edges of chunks, over broken connections, in several processes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import uuid
from pathlib import Path

import pytest

import acb

from .world import Dev, soon, until, wire

MIB = 1 << 20


@pytest.mark.parametrize("size", [1, MIB - 1, MIB, MIB + 1, 9 * MIB + 7])
async def test_what_goes_in_comes_out(dev: Dev, size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    up: list[acb.Progress] = []
    down: list[acb.Progress] = []
    async with dev.connect("author") as author, dev.connect("reader") as reader:
        uploaded = await soon(author.upload("documents", source, metadata={"a": "b"}, content_type="x/y", ttl=3600, progress=up.append))
        assert (uploaded.bytes, uploaded.sha256, uploaded.context.size) == (size, hashlib.sha256(data).digest(), size)
        assert (uploaded.resumed_from_chunk, uploaded.context.metadata, uploaded.context.content_type) == (None, {"a": "b"}, "x/y")
        downloaded = await soon(reader.download(uploaded.context.id, target, progress=down.append))
        assert target.read_bytes() == data and (downloaded.bytes, downloaded.sha256) == (size, uploaded.sha256)
        assert (up[-1], down[-1]) == (acb.Progress(size, size), acb.Progress(size, size))
        assert [step.bytes for step in up] == sorted(step.bytes for step in up)
        assert await soon(reader.payload(uploaded.context.id)) == data
        assert sorted(one.name for one in tmp_path.iterdir()) == ["source", "target"]


async def test_what_is_inline_is_downloaded_too(dev: Dev) -> None:
    async with dev.connect("author") as author:
        context = await author.share("documents", "small")
        target = io.BytesIO()
        assert (await author.download(context.id, target)).bytes == 5 and target.getvalue() == b"small"


async def test_transfers_go_on_where_their_connection_is_cut(dev: Dev) -> None:
    data = os.urandom(12 * MIB)
    async with wire(dev.endpoints("acme")[0]) as line, dev.connect("author", replica=0, through=line.address) as author:
        line.cut_after_up = 6 * MIB
        uploaded = await soon(author.upload("documents", data))
        assert uploaded.resumed_from_chunk is not None and 1 <= uploaded.resumed_from_chunk <= 6
        line.cut_after_down = line.bytes_down + 6 * MIB
        target = io.BytesIO()
        downloaded = await soon(author.download(uploaded.context.id, target))
        assert target.getvalue() == data and [one.from_chunk >= 1 for one in downloaded.resumptions] == [True]


async def test_another_process_goes_on_with_an_upload(dev: Dev) -> None:
    data, upload_id = os.urandom(5 * MIB), str(uuid.uuid4())
    async with dev.connect("author") as author:
        reached = asyncio.Event()

        def watch(progress: acb.Progress) -> None:
            if progress.bytes >= 2 * MIB:
                reached.set()

        first = asyncio.create_task(author.upload("documents", data, upload_id=upload_id, progress=watch))
        await soon(reached.wait())
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    async with dev.connect("author") as author:
        stored = await author.upload_progress(upload_id)
        assert stored.next_chunk >= 2 and not stored.context_id
        uploaded = await soon(author.upload("documents", data, upload_id=upload_id))
        assert uploaded.sha256 == hashlib.sha256(data).digest() and (uploaded.resumed_from_chunk or 0) >= 2
        # The answer may have been lost: the same once more is the same context.
        assert (await soon(author.upload("documents", data, upload_id=upload_id))).context.id == uploaded.context.id


async def test_what_can_not_be_transferred_is_said(dev: Dev, tmp_path: Path) -> None:
    async with dev.connect("author") as author:
        with pytest.raises(acb.UsageError, match="0 bytes"):
            await author.upload("documents", b"")
        with pytest.raises(acb.UsageError, match="not a file"):
            await author.upload("documents", tmp_path)
        with pytest.raises(acb.UsageError, match="not a file"):
            await author.upload("documents", tmp_path / "none")
        with pytest.raises(acb.Refused, match=r"CONTEXT_TYPE|PERMISSION|NOT"):
            await soon(author.upload("unknown", b"x"))
        target = tmp_path / "target"
        with pytest.raises(acb.Refused) as missing:
            await author.download(str(uuid.uuid4()), target)
        assert missing.value.code is acb.Code.NOT_FOUND and list(tmp_path.iterdir()) == []

        class Shrinking(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                return super().read(size) if self.tell() < 2 * MIB else b""

        with pytest.raises(acb.LocalError, match="was it changed"):
            await soon(author.upload("documents", Shrinking(bytes(4 * MIB))))
        context = await author.share("documents", "x")
        closed = io.BytesIO()
        closed.close()
        with pytest.raises(acb.LocalError, match="writing"):
            await author.download(context.id, closed)


async def test_a_cancelled_download_leaves_nothing(dev: Dev, tmp_path: Path) -> None:
    async with dev.connect("author") as author:
        uploaded = await soon(author.upload("documents", os.urandom(8 * MIB)))
        begun = asyncio.Event()
        downloading = asyncio.create_task(author.download(uploaded.context.id, tmp_path / "x", progress=lambda _: begun.set()))
        await soon(begun.wait())
        downloading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await downloading

        async def is_empty() -> bool:
            return not list(tmp_path.iterdir())

        await until("no part is left", is_empty)


async def test_a_progress_callback_that_raises_ends_the_transfer(dev: Dev) -> None:
    def refuse(progress: acb.Progress) -> None:
        raise LookupError("of the program")

    async with dev.connect("author") as author:
        with pytest.raises(LookupError, match="of the program"):
            await soon(author.upload("documents", b"x" * 100, progress=refuse))
        context = (await soon(author.upload("documents", b"x" * 100))).context
        with pytest.raises(LookupError, match="of the program"):
            await soon(author.download(context.id, io.BytesIO(), progress=refuse))
