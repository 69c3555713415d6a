/** Streams a file into a context, and back out into another one. Usage: streaming.ts FROM TO */

import { createWriteStream } from "node:fs";
import { Writable } from "node:stream";

import { connect, openFile, type Progress } from "@acb/sdk";

const [from, to] = process.argv.slice(2);
if (from === undefined || to === undefined) throw new Error("usage: streaming.ts FROM TO");

function watch(what: string): (progress: Progress) => void {
  return ({ bytes, total }) => console.log(`${what} ${bytes} of ${total} bytes`);
}

const agent = await connect();
const file = await openFile(from);
const { context, resumptions } = await agent.upload("documents", file, { onProgress: watch("stored"), ttlMs: 3_600_000 });
await file.close();
console.log(`context ${context.id} is verified; it went on ${resumptions.length} times after a broken connection`);

const { bytes } = await agent.download(context.id, Writable.toWeb(createWriteStream(to)), { onProgress: watch("read") });
console.log(`${bytes} bytes are back`);
await agent.deleteContext(context.id);
await agent.close();
