"""Streams a file into a context, and out of it, with its progress. Where a connection breaks it goes on, with any replica.

ACB_PROFILE=acme/supervisor python streaming.py push documents big.bin       # prints the context's id
ACB_PROFILE=acme/worker-a python streaming.py pull CONTEXT_ID copy.bin
"""

import asyncio
import sys

import acb


def show(progress: acb.Progress) -> None:
    print(f"\r{100 * progress.bytes // progress.total:3d} %", end="", file=sys.stderr, flush=True)


async def push(context_type: str, file: str) -> None:
    async with acb.connect() as agent:
        uploaded = await agent.upload(context_type, file, progress=show)
        print(uploaded.context.id)
        print(f"{uploaded.bytes} bytes, SHA-256 {uploaded.sha256.hex()}", file=sys.stderr)
        if uploaded.resumed_from_chunk is not None:
            print(f"the connection broke: it went on at chunk {uploaded.resumed_from_chunk}", file=sys.stderr)


async def pull(context_id: str, file: str) -> None:
    async with acb.connect() as agent:
        downloaded = await agent.download(context_id, file, progress=show)
        print(f"{downloaded.bytes} bytes, SHA-256 {downloaded.sha256.hex()}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["push", context_type, file]:
            asyncio.run(push(context_type, file))
        case ["pull", context_id, file]:
            asyncio.run(pull(context_id, file))
        case _:
            sys.exit("usage: streaming.py push TYPE FILE | pull CONTEXT_ID FILE")
