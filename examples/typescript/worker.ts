/** Counts the words of the documents that it is asked about, until it is told to end (Ctrl-C). */

import { connect } from "@acb/sdk";

interface Task {
  contextId: string;
}

const agent = await connect();
const ending = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => ending.abort());

agent.on<Task>("count", async ({ contextId }, message) => {
  const document = await agent.context(contextId);
  const words = document.text().split(/\s+/).filter(Boolean).length;
  await message.reply({ json: { name: document.metadata["name"], words } });
});

console.log(`${agent.identity.agent} is at work`);
await agent.announce();
await agent.run({ signal: ending.signal });
await agent.unregister();
await agent.close();
