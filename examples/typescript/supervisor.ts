/** Shares files, has the workers count their words, and gathers the answers. Usage: supervisor.ts FILE… */

import { readFile } from "node:fs/promises";
import { basename } from "node:path";

import { connect } from "@acb/sdk";

interface Count {
  name: string;
  words: number;
}

const agent = await connect();
const workers: string[] = [];
for await (const { name, status } of agent.discover({ capabilities: ["summarize"] })) if (status === "online") workers.push(name);
if (workers.length === 0) throw new Error("no worker is online");

const counts = await Promise.all(
  process.argv.slice(2).map(async (path, number): Promise<Count> => {
    const scope = { agents: workers };
    const context = await agent.share("documents", { text: await readFile(path, "utf8") }, { scope, metadata: { name: basename(path) }, ttlMs: 60_000 });
    const to = workers[number % workers.length] as string;
    const answer = await agent.request<Count>({ to, topic: "count", json: { contextId: context.id } }, { withinMs: 20_000 });
    if (answer.failure !== undefined) throw new Error(`${to}: ${answer.failure}`);
    console.log(`${to}  ${answer.json().name}  ${answer.json().words} words`);
    return answer.json();
  }),
);
console.log(`${counts.length} documents, ${counts.reduce((sum, { words }) => sum + words, 0)} words`);
await agent.close();
