"""Streams large contexts into the hub and out of it, verifies them, and goes on where a connection broke."""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import io
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import grpc.aio

from . import _wire
from ._calls import ATTEMPT, Calls, Line, Next
from ._correlation import of_call
from ._error import Code, Damaged, Error, LocalError, Refused, Unavailable, UsageError
from ._time import Length, seconds
from ._types import Context, PayloadRef, Scope, StreamProgress, read

_LOG = logging.getLogger("acb")

#: Chunks sent and not yet durable.
WINDOW = 8
#: A hub that stores or sends nothing for so long is as good as gone.
STALLED = 30.0
MOST = 100 << 20
LARGEST_CHUNK = 2 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is."""

    #: Bytes that are durable at the other end, or verified and written at this one.
    bytes: int
    #: Bytes in all.
    total: int


#: Told of each step, in the event loop. Must not block. What it raises ends the transfer, and is raised there as it is.
Watcher = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a transfer went on after its connection broke."""

    #: The first chunk that was transferred afterwards.
    from_chunk: int
    #: The name of the replica that it went on with. Empty where that is not known.
    replica: str


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A finished upload."""

    #: The context that it became.
    context: Context
    #: Where it went on after a broken connection, in order.
    resumptions: tuple[Resumption, ...]
    #: The replicas that took part, in order.
    replicas: tuple[str, ...]
    #: Bytes of the payload.
    bytes: int
    #: SHA-256 of the payload.
    sha256: builtins.bytes = field(repr=False)

    @property
    def resumed_from_chunk(self) -> int | None:
        """The chunk that the upload last went on from, if it ever broke."""
        return self.resumptions[-1].from_chunk if self.resumptions else None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A finished download: verified against the checksums of each chunk and of the whole."""

    #: The context, without its payload.
    context: Context
    #: Where it went on after a broken connection, in order.
    resumptions: tuple[Resumption, ...]
    #: Bytes that were written.
    bytes: int
    #: SHA-256 of what was written.
    sha256: builtins.bytes = field(repr=False)


class _Connection(Exception):
    """The connection is at fault."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


class _Whole:
    """The hash of a whole payload, fed chunk by chunk in order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.chunks = 0

    def take(self, data: bytes) -> None:
        self._hash.update(data)
        self.chunks += 1

    def digest(self) -> bytes:
        return self._hash.digest()


def _note(resumptions: list[Resumption], from_chunk: int, replica: str) -> None:
    """Adds a resumption that made a difference: not one on which nothing was transferred before the next break."""
    if resumptions and resumptions[-1].from_chunk == from_chunk:
        resumptions.pop()
    resumptions.append(Resumption(from_chunk, replica))


def _local(error: OSError | ValueError, what: str) -> LocalError:
    return LocalError(f"{what}: {error}")


class _Transfer:
    """What uploads and downloads share: one attempt after another, as long as each gets further."""

    what = ""

    def __init__(self, calls: Calls, progress: Watcher | None) -> None:
        self.calls = calls
        self.watcher = progress or (lambda _: None)
        self.whole = _Whole()
        self.resumptions: list[Resumption] = []

    def done(self) -> int:
        raise NotImplementedError

    async def attempt(self, line: Line) -> Any:
        raise NotImplementedError

    async def run(self) -> Any:
        patience, renewed, was_connected = self.calls._patience(time.monotonic()), False, False
        while True:
            before = self.done()
            try:
                async with self.calls._line(patience.until) as line:
                    # From here on its time counts from the first failure: what stands still after its beginning may go on with another replica.
                    if not was_connected:
                        was_connected = True
                        patience.renew()
                    try:
                        return await self.attempt(line)
                    except grpc.aio.AioRpcError as status:
                        then, error = self.calls._judge(line, status, renewed)
                        if then is Next.AGAIN:
                            renewed = True
                            continue
                        if then is Next.NEVER:
                            raise _Final(error) from None
                    except _Connection as broken:
                        self.calls._leave(line)
                        error = broken.error
            except _Final as final:
                raise final.error from None
            except Error as failed:
                if not failed.is_retryable:
                    raise
                error = failed
            if self.done() > before:
                patience.renew()
                renewed = False
            _LOG.info("%s broke, and goes on at chunk %d: %s", self.what, self.done(), error)
            await patience.wait(error)

    async def read(self, call: Any, within: float, what: str) -> Any:
        try:
            async with asyncio.timeout(within):
                answer = await call.read()
        except TimeoutError:
            raise _Connection(Unavailable(what)) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.calls._closed and not (task and task.cancelling()):
                raise UsageError("the client was closed") from None
            raise
        if answer is grpc.aio.EOF:
            raise _Connection(Unavailable("the hub closed the stream"))
        return answer


class _Final(Exception):
    """Trying again would not help."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


class _Upload(_Transfer):
    def __init__(self, calls: Calls, source: BinaryIO, size: int, start: dict[str, Any], upload_id: str, progress: Watcher | None) -> None:
        super().__init__(calls, progress)
        self.source = source
        self.size = size
        self.start = start
        self.upload_id = upload_id
        #: The hub's last word on it. `None` until it has answered once.
        self.stored: Any = None
        self.replicas: list[str] = []
        self.what = f"upload {upload_id}"
        #: A thread that reads does not end with the connection that it reads for.
        self._reading = threading.Lock()

    def done(self) -> int:
        return 0 if self.stored is None else int(self.stored.next_chunk)

    def whereabouts(self) -> str:
        if self.stored is None:
            return self.what
        return f"{self.what} ({self.stored.next_chunk} of {self.stored.chunk_count} chunks are stored)"

    async def attempt(self, line: Line) -> Context:
        call = line.start("StreamService.StreamContext")
        try:
            if self.stored is not None:
                first = _wire.new("StreamContextRequest", resume=_wire.new("StreamContextRequest.Resume", upload_id=self.upload_id))
            else:
                said = _wire.new("StreamContextRequest.Start", size=self.size, upload_id=self.upload_id, **self.start)
                first = _wire.new("StreamContextRequest", start=said)
            await self._write(call, first)
            answer = await self.read(call, ATTEMPT, "the hub did not answer the stream in time")
            if answer.WhichOneof("frame") == "context":
                return self._finished(answer.context)
            shape = answer.progress
            self._begin(shape)
            # Where it was finished only the answer was lost. The hub says again what became of it, if that is what is here.
            next_chunk = shape.chunk_count if shape.context_id else shape.next_chunk
            await self._hash_up_to(next_chunk, shape)
            return await self._send(call, next_chunk, shape)
        finally:
            call.cancel()

    async def _send(self, call: Any, next_chunk: int, shape: Any) -> Context:
        room = asyncio.Event()

        async def speak() -> None:
            index = next_chunk
            while index < shape.chunk_count:
                while index >= self.done() + WINDOW:
                    room.clear()
                    await room.wait()
                data, digest = await asyncio.to_thread(self._chunk, index, shape)
                chunk = _wire.new("Chunk", index=index, data=data, sha256=digest)
                await self._write(call, _wire.new("StreamContextRequest", chunk=chunk))
                index += 1
            finish = _wire.new("StreamContextRequest.Finish", sha256=self.whole.digest())
            await self._write(call, _wire.new("StreamContextRequest", finish=finish))
            await call.done_writing()

        speaking = asyncio.create_task(speak())

        def failed(task: asyncio.Task[None]) -> None:
            # Such as a source that can't be read. Listening ends with it.
            if not task.cancelled() and task.exception() is not None:
                call.cancel()

        speaking.add_done_callback(failed)
        try:
            while True:
                answer = await self.read(call, STALLED, f"nothing was stored for {STALLED:.0f} s")
                match answer.WhichOneof("frame"):
                    case "progress":
                        self._stand(answer.progress)
                        room.set()
                    case "context":
                        return self._finished(answer.context)
                    case _:
                        continue
        except asyncio.CancelledError:
            if speaking.done() and not speaking.cancelled() and (error := speaking.exception()) is not None:
                raise error from None
            raise
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def _write(self, call: Any, frame: Any) -> None:
        # A closed outbound half shows its reason on the inbound one.
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError, grpc.aio.UsageError):
            await call.write(frame)

    def _begin(self, shape: Any) -> None:
        """Takes the hub's answer to the first frame."""
        size, count = shape.chunk_size, shape.chunk_count
        fits = (
            1 <= size <= LARGEST_CHUNK
            and count == -(-self.size // size)
            and shape.next_chunk <= count
            and (self.stored is None or self.stored.chunk_size == size)
        )
        if not fits:
            raise _Final(Refused(Code.INTERNAL, "", f"the hub wants {count} chunks of {size} bytes for {self.size} bytes"))
        if self.stored is not None or shape.next_chunk > 0:
            _note(self.resumptions, shape.next_chunk, shape.replica)
        if not self.replicas or self.replicas[-1] != shape.replica:
            self.replicas.append(shape.replica)
        self.calls._name_replica(shape.replica)
        self._stand(shape)

    def _stand(self, progress: Any) -> None:
        self.stored = progress
        self.watcher(Progress(progress.bytes_stored, self.size))

    def _finished(self, wire: Any) -> Context:
        context: Context = read(wire)
        return context

    async def _hash_up_to(self, chunk: int, shape: Any) -> None:
        """Chunks that another process stored are hashed here too: the whole is verified by what this one reads."""
        while self.whole.chunks < chunk:
            await asyncio.to_thread(self._chunk, self.whole.chunks, shape)

    def _chunk(self, index: int, shape: Any) -> tuple[bytes, bytes]:
        """Reads and hashes one; one that is sent again does not count for the whole a second time."""
        with self._reading:
            length = min(shape.chunk_size, self.size - index * shape.chunk_size)
            try:
                self.source.seek(index * shape.chunk_size)
                data = self.source.read(length)
                while len(data) < length and (more := self.source.read(length - len(data))):
                    data += more
            except (OSError, ValueError) as error:
                raise _Final(_local(error, f"reading chunk {index} of the source")) from None
            if len(data) != length:
                said = f"reading chunk {index} of the source: it ends before its {self.size} bytes; was it changed while it was uploaded?"
                raise _Final(LocalError(said))
            if self.whole.chunks == index:
                self.whole.take(data)
        return data, hashlib.sha256(data).digest()


class _Download(_Transfer):
    def __init__(self, calls: Calls, context_id: str, wanted: PayloadRef, target: BinaryIO, progress: Watcher | None) -> None:
        super().__init__(calls, progress)
        self.context_id = context_id
        self.wanted = wanted
        self.target = target
        self.bytes = 0
        self.broke_before = False
        self.what = f"download {context_id}"

    def done(self) -> int:
        return self.whole.chunks

    async def attempt(self, line: Line) -> None:
        call = line.start(
            "StreamService.ReceiveContext",
            _wire.new("ReceiveContextRequest", context_id=self.context_id, from_chunk=self.whole.chunks),
        )
        try:
            if self.broke_before:
                _note(self.resumptions, self.whole.chunks, "")
            self.broke_before = True
            within, what = ATTEMPT, "no answer in time"
            while self.whole.chunks < self.wanted.chunk_count:
                answer = await self.read(call, within, what)
                within, what = STALLED, "nothing came for a while"
                if answer.WhichOneof("frame") == "chunk":
                    await asyncio.to_thread(self._take, answer.chunk)
                    self.watcher(Progress(self.bytes, self.wanted.size))
        finally:
            call.cancel()

    def _take(self, chunk: Any) -> None:
        """Writes the chunk if it is the next one and undamaged. Until then nothing of it counts."""
        index = self.whole.chunks
        length = min(self.wanted.chunk_size, max(0, self.wanted.size - index * self.wanted.chunk_size))
        data = chunk.data
        # Damage on the way is mended by fetching the chunk again.
        if chunk.index != index or len(data) != length:
            said = f"chunk {index} of {length} bytes was due, and chunk {chunk.index} of {len(data)} bytes came"
            raise _Connection(Damaged(said))
        if hashlib.sha256(data).digest() != chunk.sha256:
            raise _Connection(Damaged(f"chunk {index} does not have its checksum"))
        try:
            self.target.write(data)
        except (OSError, ValueError) as error:
            raise _Final(_local(error, "writing")) from None
        self.whole.take(data)
        self.bytes += len(data)


#: What is uploaded: a file by its path, bytes, or an open file that can be read and sought in.
Source = str | os.PathLike[str] | bytes | BinaryIO
#: Where a download goes: a file by its path, or an open one.
Target = str | os.PathLike[str] | BinaryIO


def _source(source: Source) -> tuple[BinaryIO, int, bool]:
    """What is read, its size, and whether it is to be closed."""
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source), len(source), False
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            if not path.is_file():
                raise UsageError(f"{path} is not a file")
            file = path.open("rb")
            return file, os.fstat(file.fileno()).st_size, True
        except OSError as error:
            raise _local(error, str(path)) from None
    try:
        return source, source.seek(0, io.SEEK_END), False
    except (AttributeError, OSError, ValueError) as error:
        raise UsageError(f"the source can't be sought in, so that nothing could go on where it broke: {error}") from None


class Transfers(Calls):
    """The calls of streams."""

    async def upload(
        self,
        context_type: str,
        source: Source,
        *,
        scope: Scope | None = None,
        ttl: Length | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        progress: Watcher | None = None,
        upload_id: str | None = None,
    ) -> Uploaded:
        """Streams a file, bytes or an open file into a context of this type: 1 byte to 100 MiB.

        Returns when the whole is durable and verified. A broken connection is mended with any replica; the time for that starts anew with each
        chunk that became durable. `progress` is called whenever more of it is durable. With an `upload_id` another process can go on with it.

        ```python
        uploaded = await agent.upload("models", "weights.bin", progress=lambda step: print(step.bytes, "of", step.total))
        ```
        """
        stream, size, is_own = await asyncio.to_thread(_source, source)
        try:
            if not 1 <= size <= MOST:
                raise UsageError(f"a payload of {size} bytes can't be streamed: 1 to {MOST} bytes can")
            start: dict[str, Any] = {
                "type": context_type,
                "metadata": dict(metadata or {}),
                "content_type": content_type,
                "access": (scope or Scope.public()).to_wire(),
            }
            if ttl is not None:
                start["ttl"] = _wire.duration(seconds(ttl, "ttl"))
            run = _Upload(self, stream, size, start, upload_id or str(uuid.uuid4()), progress)
            with of_call() as correlation_id:
                try:
                    context = await run.run()
                except Error as error:
                    raise _of_call(error, correlation_id).during(run.whereabouts()) from None
            return Uploaded(context, tuple(run.resumptions), tuple(run.replicas), size, run.whole.digest())
        finally:
            if is_own:
                await asyncio.to_thread(stream.close)

    async def upload_progress(self, upload_id: str) -> StreamProgress:
        """How far an upload of this agent is."""
        request = _wire.new("GetStreamProgressRequest", upload_id=upload_id)
        found: StreamProgress = read(await self._call("get stream progress", "StreamService.GetStreamProgress", request))
        return found

    async def download(self, context_id: str, target: Target, *, progress: Watcher | None = None) -> Downloaded:
        """Writes the payload of a context, streamed or inline, to a file.

        Each chunk is verified before it is written, the whole at the end. A file by its path is there when all of it is, and not before; into an
        open one a part may have been written where an error is raised. The time to mend a broken connection starts anew with each chunk.
        """
        if not isinstance(target, str | os.PathLike):
            return await self._download(context_id, target, progress)
        path = Path(target)
        # Beside the file, so that it can be put in its place at once.
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            file = await asyncio.to_thread(part.open, "xb")
            try:
                downloaded = await self._download(context_id, file, progress)
            finally:
                await asyncio.to_thread(file.close)
            await asyncio.to_thread(part.replace, path)
        except OSError as error:
            raise _local(error, f"download {context_id}") from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return downloaded

    async def payload(self, context_id: str) -> bytes:
        """The payload of a context, streamed or inline, in memory."""
        target = io.BytesIO()
        await self._download(context_id, target, None)
        return target.getvalue()

    async def _download(self, context_id: str, target: BinaryIO, progress: Watcher | None) -> Downloaded:
        with of_call() as correlation_id:
            try:
                request = _wire.new("GetContextRequest", id=context_id)
                context: Context = read(await self._call("get context", "ContextService.GetContext", request))
                wanted = context.payload_ref
                run = _Download(self, context_id, wanted or PayloadRef("", "", context.size, 0, 0), target, progress)
                if wanted is None:
                    try:
                        await asyncio.to_thread(target.write, context.payload)
                    except (OSError, ValueError) as error:
                        raise _local(error, "writing") from None
                    run.whole.take(context.payload)
                    run.bytes = len(context.payload)
                    run.watcher(Progress(run.bytes, run.bytes))
                else:
                    await run.run()
                if run.whole.digest() != context.checksum:
                    raise Damaged("what was received does not have the checksum of the context")
            except Error as error:
                raise _of_call(error, correlation_id).during(f"download {context_id}") from None
        return Downloaded(replace(context, payload=b""), tuple(run.resumptions), run.bytes, run.whole.digest())


def _of_call(error: Error, correlation_id: str) -> Error:
    if isinstance(error, Refused) and not error.correlation_id:
        error.correlation_id = correlation_id
    return error
