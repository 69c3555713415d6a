"""What uploads read, where an earlier attempt is still reading."""

from __future__ import annotations

import hashlib
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from acb import _wire
from acb._transfers import _Upload

CHUNK = 1000


class Slow(io.BytesIO):
    """Gives another thread time to seek elsewhere."""

    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.005)
        return super().read(size)


def test_two_attempts_that_read_at_once_each_read_their_own_chunks() -> None:
    data = os.urandom(10 * CHUNK)
    nobody: Any = None
    upload = _Upload(nobody, Slow(data), len(data), {}, "u", None)
    shape = _wire.new("StreamProgress", chunk_size=CHUNK, chunk_count=10)
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda index: upload._chunk(index % 10, shape), range(40)))
    for index, (chunk, digest) in enumerate(read):
        expected = data[index % 10 * CHUNK : (index % 10 + 1) * CHUNK]
        assert (chunk, digest) == (expected, hashlib.sha256(expected).digest())
    while upload.whole.chunks < 10:
        upload._chunk(upload.whole.chunks, shape)
    assert upload.whole.digest() == hashlib.sha256(data).digest()
