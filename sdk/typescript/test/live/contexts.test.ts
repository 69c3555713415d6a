import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createWriteStream } from "node:fs";
import { Writable } from "node:stream";

import { describe, expect, it, onTestFinished } from "vitest";

import { type Context, type ContextEvent, openFile, type Progress } from "../../src/index.js";
import { become, collect, eventually, proxies, QUIET } from "./agents.js";

const MIB = 1 << 20;

function noise(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(bytes.subarray(at, Math.min(size, at + 65_536)));
  return bytes;
}

describe("contexts", () => {
  it("are shared, read, changed and deleted", async () => {
    const [writer, reader] = [await become("supervisor"), await become("worker-a")];
    const context = await writer.share("documents", { json: { plan: 1 } }, { metadata: { priority: "high" }, ttlMs: 3_600_000 });
    expect(context).toMatchObject({ type: "documents", creator: "supervisor", version: 1, contentType: "application/json", scope: "public" });
    const read = await reader.context(context.id);
    expect(read.json()).toEqual({ plan: 1 });
    expect(Buffer.from(read.checksum)).toEqual(createHash("sha256").update('{"plan":1}').digest());
    const updated = await writer.update(read, { json: { plan: 2 } });
    expect(updated).toMatchObject({ version: 2, metadata: { priority: "high" } });
    await expect(writer.update(read, { text: "late" })).rejects.toMatchObject({ code: "ABORTED" });
    await expect(reader.update(updated, { text: "not mine" })).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
    await writer.setAccess(context.id, { agents: ["worker-b"] });
    await expect(reader.context(context.id)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect((await (await become("worker-b")).context(context.id)).scope).toEqual({ agents: ["worker-b"] });
    await writer.deleteContext(context.id);
    await expect(writer.context(context.id)).rejects.toMatchObject({ code: "NOT_FOUND", reason: "CONTEXT_NOT_FOUND" });
  });

  it("are shared once under a key, and not with more than was meant", async () => {
    const writer = await become("supervisor");
    const idempotencyKey = crypto.randomUUID();
    const [a, b] = [await writer.share("documents", { text: "x" }, { idempotencyKey }), await writer.share("documents", { text: "x" }, { idempotencyKey })];
    expect(a.id).toBe(b.id);
    // A flaw that TypeScript would find must not become the widest scope.
    await expect(writer.share("documents", { text: "x" }, { scope: "privat" as "private" })).rejects.toMatchObject({ reason: "USAGE" });
  });

  it("are listed over pages, by a filter", async () => {
    const writer = await become("clerk");
    const mark = crypto.randomUUID();
    for (let number = 0; number < 3; number += 1) await writer.share("documents", { text: "x" }, { metadata: { mark } });
    const listed = await collect(writer.contexts({ type: "documents", filter: `context.metadata["mark"] == "${mark}"` }));
    expect(listed.map((context: Context) => context.payload.length)).toEqual([0, 0, 0]);
  });

  it("are followed over breaks, and from where another subscription stood", async () => {
    const writer = await become("supervisor");
    const near = await proxies();
    const reader = await become("worker-a", { server: near.map((proxy) => proxy.url) });
    const mark = crypto.randomUUID();
    const filter = `context.metadata["mark"] == "${mark}"`;
    const subscription = await reader.subscribe("documents", { filter });
    const share = (text: string) => writer.share("documents", { text }, { metadata: { mark } });
    const first = await share("1");
    expect(await subscription.next()).toMatchObject({ kind: "created", context: { id: first.id } });
    for (const proxy of near) proxy.cut();
    const second = await share("2");
    expect(await subscription.next()).toMatchObject({ kind: "created", context: { id: second.id } });
    const positions = JSON.parse(JSON.stringify(subscription.positions()));
    subscription.close();
    expect(await subscription.next()).toBeUndefined();
    await writer.update(second, { text: "2b", metadata: {} });
    await writer.deleteContext(first.id);
    const events: ContextEvent[] = await collect(await reader.subscribe("documents", { filter, since: { after: positions } }), 2);
    const kinds = Object.fromEntries(events.map((event) => [event.context.id, event.kind]));
    expect(kinds).toEqual({ [first.id]: "deleted", [second.id]: "left" });
    const since = { time: new Date(Date.now() - 3_600_000) };
    expect((await collect(await reader.subscribe("documents", { filter, since }), 1))[0]?.context.id).toBeDefined();
  });

  it("that are followed end with the signal, and are refused where the type is none", async () => {
    const reader = await become("worker-a");
    await expect(reader.subscribe("nothing")).rejects.toMatchObject({ message: expect.stringContaining('subscribe to "nothing"') });
    const ending = new AbortController();
    const subscription = await reader.subscribe("documents", { signal: ending.signal });
    const waiting = subscription.next();
    ending.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
  });
});

describe("transfers", () => {
  it.each([1, MIB, MIB + 1, 3 * MIB])("of %d bytes come back as they were", async (size) => {
    const [writer, reader] = [await become("supervisor"), await become("worker-a")];
    const payload = noise(size);
    const told: Progress[] = [];
    const uploaded = await writer.upload("documents", payload, { metadata: { size: String(size) }, onProgress: (progress) => told.push(progress) });
    expect(uploaded).toMatchObject({ bytes: size, resumptions: [], context: { size, metadata: { size: String(size) } } });
    expect(told.at(-1)).toEqual({ bytes: size, total: size });
    const parts: Uint8Array[] = [];
    const downloaded = await reader.download(uploaded.context.id, (data) => parts.push(data));
    expect(Buffer.compare(Buffer.concat(parts), payload)).toBe(0);
    expect(Buffer.from(downloaded.sha256)).toEqual(createHash("sha256").update(payload).digest());
  });

  it("go on where who is told of them fails", async () => {
    const errors: string[] = [];
    const agent = await become("supervisor", { log: { ...QUIET, error: (message) => void errors.push(message) } });
    const onProgress = () => {
      throw new Error("no disk to write it to");
    };
    const uploaded = await agent.upload("documents", noise(MIB), { onProgress });
    const downloaded = await agent.download(uploaded.context.id, () => undefined, { onProgress });
    expect(downloaded.bytes).toBe(MIB);
    expect(new Set(errors)).toEqual(new Set(["onProgress failed"]));
  });

  it("go on where a connection broke", async () => {
    const near = await proxies();
    const server = near.map((proxy) => proxy.url);
    const [writer, reader] = [await become("supervisor", { server }), await become("worker-a", { server })];
    const payload = noise(16 * MIB);
    let cut = false;
    const uploaded = await writer.upload("documents", new Blob([payload as Uint8Array<ArrayBuffer>]), {
      onProgress: ({ bytes }) => {
        if (bytes < 5 * MIB || cut) return;
        cut = true;
        for (const proxy of near) proxy.cut();
      },
    });
    expect(uploaded.resumptions.length).toBeGreaterThan(0);
    expect(uploaded.resumptions[0]?.fromChunk).toBeGreaterThanOrEqual(5);
    cut = false;
    const hash = createHash("sha256");
    const downloaded = await reader.download(uploaded.context.id, (data) => void hash.update(data), {
      onProgress: ({ bytes }) => {
        if (bytes < 5 * MIB || cut) return;
        cut = true;
        for (const proxy of near) proxy.cut();
      },
    });
    expect(downloaded.resumptions.length).toBeGreaterThan(0);
    expect(hash.digest()).toEqual(createHash("sha256").update(payload).digest());
  });

  it("of files go on in another process by their id", async () => {
    const folder = await mkdtemp(join(tmpdir(), "acb-upload-"));
    onTestFinished(() => rm(folder, { recursive: true }));
    const [from, to] = [join(folder, "from"), join(folder, "to")];
    await writeFile(from, noise(6 * MIB));
    const [writer, reader] = [await become("supervisor"), await become("worker-a")];
    const uploadId = crypto.randomUUID();
    const ending = new AbortController();
    const file = await openFile(from);
    const broken = writer.upload("documents", file, { uploadId, signal: ending.signal, onProgress: ({ bytes }) => bytes >= 2 * MIB && ending.abort() });
    await expect(broken).rejects.toThrow("aborted");
    await eventually("the hub knows how far it is", async () => (await writer.uploadProgress(uploadId)).nextChunk >= 2);
    const uploaded = await writer.upload("documents", file, { uploadId });
    expect(uploaded.resumptions[0]?.fromChunk).toBeGreaterThanOrEqual(2);
    await file.close();
    await reader.download(uploaded.context.id, Writable.toWeb(createWriteStream(to)));
    expect(Buffer.compare(await readFile(from), await readFile(to))).toBe(0);
  });

  it("that can't be are refused with why", async () => {
    const writer = await become("supervisor");
    await expect(writer.upload("documents", new Uint8Array())).rejects.toMatchObject({ reason: "USAGE" });
    await expect(writer.upload("nothing", noise(10))).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    await expect(openFile("/nothing")).rejects.toMatchObject({ reason: "IO" });
    await expect(writer.upload("documents", { size: 10, read: async () => new Uint8Array(3) })).rejects.toMatchObject({ reason: "IO" });
    const context = await writer.share("documents", { text: "small" });
    const failing = writer.download(context.id, () => {
      throw new Error("the disk is full");
    });
    await expect(failing).rejects.toThrow("the disk is full");
    await expect(writer.download(crypto.randomUUID(), () => undefined)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});
