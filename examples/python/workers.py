"""A supervisor shares documents, and hands them to whoever can summarize; workers answer with what they found.

ACB_PROFILE=acme/worker-a python workers.py work                        # in one terminal
ACB_PROFILE=acme/worker-b python workers.py work                        # in another one
ACB_PROFILE=acme/supervisor python workers.py supervise *.md            # in a third
"""

import asyncio
import itertools
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import acb


@dataclass
class Task:
    name: str
    context_id: str


@dataclass
class Result:
    name: str
    words: int


async def work() -> None:
    async with acb.connect() as agent:
        # A worker that is told to end finishes what it has begun with.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, agent.stop)

        @agent.on("count-words")
        async def count_words(task: Task) -> Result:
            text = (await agent.payload(task.context_id)).decode()
            print(f"{agent.identity.agent} reads {task.name}", flush=True)
            return Result(task.name, len(text.split()))

        await agent.announce()
        print(f"{agent.identity.agent} is at work", flush=True)
        async with agent.heartbeats():
            await agent.run()


async def supervise(documents: dict[str, str]) -> None:
    async with acb.connect() as agent:
        found = [one.name async for one in agent.discover(capabilities=["summarize"]) if one.status is acb.AgentStatus.ONLINE]
        if not found:
            sys.exit("no worker is there: start one with `workers.py work`")

        async def delegate(name: str, worker: str) -> Result:
            # Workers alone may read it, and it goes by itself after an hour.
            context = await agent.share("documents", documents[name], scope=acb.Scope.to_groups("workers"), ttl=3600)
            answer = await agent.request(worker, Task(name, context.id), topic="count-words", within=60)
            return answer.json(Result)

        results = await asyncio.gather(*map(delegate, documents, itertools.cycle(found)))
        for result in results:
            print(f"{result.name}: {result.words} words")
        print(f"{len(results)} documents, {sum(result.words for result in results)} words")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work"]:
            asyncio.run(work())
        case ["supervise", *files] if files:
            asyncio.run(supervise({Path(file).name: Path(file).read_text() for file in files}))
        case _:
            sys.exit("usage: workers.py work | supervise FILE...")
