"""Hello world between two agents, each in a terminal of its own.

ACB_PROFILE=acme/worker-a python hello.py receive
ACB_PROFILE=acme/supervisor python hello.py send worker-a 'hello'
"""

import asyncio
import sys

import acb


async def receive() -> None:
    async with acb.connect() as agent:
        print(f"{agent.identity.agent} waits for a message", flush=True)
        async for message in agent.messages():
            print(f"{message.from_} says: {message.text()}")
            message.ack()
            break


async def send(to: str, text: str) -> None:
    async with acb.connect() as agent:
        sent = await agent.send(to, text, topic="greeting")
        print(f"sent {sent.message_id}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["receive"]:
            asyncio.run(receive())
        case ["send", to, text]:
            asyncio.run(send(to, text))
        case _:
            sys.exit("usage: hello.py receive | send AGENT TEXT")
