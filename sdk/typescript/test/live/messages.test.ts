import { describe, expect, it } from "vitest";

import { AcbError, correlated, correlationId, type Schema } from "../../src/index.js";
import { become, collect, empty, eventually, take } from "./agents.js";

describe("messages", () => {
  it("come as they were sent", async () => {
    await empty("worker-a");
    const [sender, receiver] = [await become("supervisor"), await become("worker-a")];
    const sent = await sender.send({
      to: "worker-a",
      topic: "greeting",
      json: { hello: "wörld" },
      kind: "command",
      metadata: { priority: "high" },
      correlationId: "order-1",
      expiresInMs: 60_000,
      replyTo: "worker-b",
    });
    const [message] = await take<{ hello: string }>(receiver, 1);
    expect(message).toMatchObject({ id: sent.messageId, from: "supervisor", to: "worker-a", topic: "greeting", kind: "command" });
    expect(message).toMatchObject({ correlationId: "order-1", metadata: { priority: "high" }, replyTo: "worker-b" });
    expect(message?.json().hello).toBe("wörld");
    expect(message?.timeLeftMs).toBeGreaterThan(30_000);
  });

  it("that are sent twice under one key are one, and another one under it is refused", async () => {
    const sender = await become("supervisor");
    const idempotencyKey = crypto.randomUUID();
    const first = await sender.send({ to: "clerk", text: "once", idempotencyKey });
    const second = await sender.send({ to: "clerk", text: "once", idempotencyKey });
    expect(second).toEqual({ messageId: first.messageId, deduplicated: true });
    await expect(sender.send({ to: "clerk", text: "other", idempotencyKey })).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    await empty("clerk");
  });

  it("go to groups, to several and to all", async () => {
    await Promise.all(["worker-a", "worker-b"].map(empty));
    const [sender, a, b] = [await become("supervisor"), await become("worker-a"), await become("worker-b")];
    await sender.send({ to: { group: "workers" }, text: "1" });
    await sender.send({ to: ["worker-a", "worker-b"], text: "2" });
    await sender.send({ to: { all: true }, text: "3" });
    for (const receiver of [a, b]) {
      const got = await take(receiver, 3);
      expect(got.map((message) => message.text())).toEqual(["1", "2", "3"]);
      expect(got.map((message) => message.to)).toEqual([{ group: "workers" }, ["worker-a", "worker-b"], { all: true }]);
    }
    await Promise.all(["clerk", "slow", "boss"].map(empty));
  });

  it("that are refused say so with the reason of the hub", async () => {
    const sender = await become("supervisor");
    const refused = await sender.send({ to: "nobody", text: "x" }).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(AcbError);
    expect(refused).toMatchObject({ code: "NOT_FOUND", reason: "RECIPIENT_NOT_FOUND", isRetryable: false });
    expect((refused as AcbError).correlationId).toMatch(/^[0-9a-f-]{36}$/);
    const named = await correlated("order-7", () => sender.send({ to: "nobody", text: "x" })).catch((error: AcbError) => error);
    expect(named).toMatchObject({ correlationId: "order-7" });
  });

  it("are asked and answered, with the correlation of the question in the handler", async () => {
    await empty("worker-b");
    const [asker, worker] = [await become("supervisor"), await become("worker-b")];
    const seen: (string | undefined)[] = [];
    worker.on<{ number: number }>("double", async ({ number }, message) => {
      seen.push(correlationId());
      await message.reply({ json: number * 2 });
    });
    const schema: Schema<number> = {
      "~standard": {
        version: 1,
        vendor: "test",
        validate: (value: unknown) => (typeof value === "string" ? { value: value.length } : { issues: [{ message: "no text", path: ["a", { key: "b" }] }] }),
      },
    };
    worker.on("length", schema, async (length: number, message) => void (await message.reply({ json: length })));
    worker.onOther(async (message) => void (await message.reply({ failure: `nothing is known of ${message.topic}` })));
    const ending = new AbortController();
    const running = worker.run({ signal: ending.signal });
    const answer = await asker.request<number>({ to: "worker-b", topic: "double", json: { number: 21 }, correlationId: "q-1" });
    expect([answer.json(), answer.kind, answer.correlationId, seen]).toEqual([42, "response", "q-1", ["q-1"]]);
    expect((await asker.request({ to: "worker-b", topic: "length", json: "four" })).json()).toBe(4);
    expect((await asker.request({ to: "worker-b", topic: "what" })).failure).toBe("nothing is known of what");
    // A handler that fails answers nothing.
    const failing = asker.request({ to: "worker-b", topic: "length", json: 4 }, { withinMs: 1_000 });
    await expect(failing).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    ending.abort();
    await running;
  });

  it("that are asked of who is not there end in time, or with the caller", async () => {
    const asker = await become("supervisor");
    const began = Date.now();
    await expect(asker.request({ to: "clerk", text: "?" }, { withinMs: 500 })).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED", reason: "NO_REPLY" });
    expect(Date.now() - began).toBeLessThan(5_000);
    const reason = new Error("enough");
    await expect(asker.request({ to: "clerk", text: "?" }, { signal: AbortSignal.any([AbortSignal.timeout(60_000), abortedSoon(reason)]) })).rejects.toBe(reason);
    await empty("clerk");
  });

  it("are pulled and acknowledged by single calls", async () => {
    const [sender, receiver] = [await become("supervisor"), await become("clerk")];
    await sender.send({ to: "clerk", topic: "a", text: "1" });
    await sender.send({ to: "clerk", topic: "b", text: "2" });
    const puller = receiver.puller();
    const pulled = await puller.pull({ maxMessages: 10 });
    expect(pulled.map(({ message }) => message.text())).toEqual(["1", "2"]);
    expect(await receiver.countUnread()).toMatchObject({ messages: 2, bySender: { supervisor: 2 }, more: false });
    await puller.acknowledge(pulled);
    await eventually("nothing is unread", async () => (await receiver.countUnread()).messages === 0);
  });

  it("are seen without being taken, scheduled, cancelled, and traced", async () => {
    const [sender, receiver] = [await become("supervisor"), await become("clerk")];
    const sent = await sender.send({ to: "clerk", topic: "look", text: "here" });
    // The replica that lists it reads it from the log a moment later than the one that took it.
    let unread: string[] = [];
    await eventually("it is listed", async () => {
      unread = (await collect(receiver.unread({ filter: 'message.topic == "look"' }))).map((message) => message.id);
      return unread.length > 0;
    });
    expect(unread).toEqual([sent.messageId]);
    const waited = await receiver.waitForUnread({ withinMs: 0 });
    expect(waited.messages.map((message) => message.topic)).toEqual(["look"]);
    const scheduled = await sender.schedule({ to: "clerk", topic: "later", text: "x" }, 3_600_000);
    expect(scheduled.dueAt?.getTime()).toBeGreaterThan(Date.now() + 3_000_000);
    expect((await collect(sender.scheduled())).map((message) => message.messageId)).toEqual([scheduled.messageId]);
    expect(await sender.cancelScheduled(scheduled.messageId)).toBe(false);
    const [soon] = await Promise.all([collect(receiver.watchUnread({ filter: 'message.topic == "soon"' }), 1), sender.schedule({ to: "clerk", topic: "soon" }, 200)]);
    expect(soon[0]?.topic).toBe("soon");
    await empty("clerk");
    await eventually("the trace has the acknowledgement", async () => {
      const trace = await sender.messageTrace(sent.messageId);
      return trace.topic === "look" && trace.events.some((event) => event.kind === "acknowledged" && event.agent === "clerk");
    });
  });

  it("that nobody took are dead letters, and can be sent again", async () => {
    const [sender, receiver] = [await become("supervisor"), await become("clerk")];
    const sent = await sender.send({ to: "clerk", topic: "short-lived", text: "x", expiresInMs: 1_000 });
    let ids: string[] = [];
    // The hub looks for what expired every 30 s: a message that expires right after a look waits for the next one.
    await eventually("it is a dead letter", async () => {
      ids = (await collect(receiver.deadLetters({ from: "supervisor", reason: "expired", to: "clerk" }))).map((letter) => letter.id);
      return ids.length > 0;
    }, 90_000);
    const { letter, message } = await receiver.deadLetter(ids[0] as string);
    expect(letter).toMatchObject({ messageId: sent.messageId, reason: "expired", state: "open", recipient: "clerk" });
    expect(message.text()).toBe("x");
    const [outcome] = await collect(receiver.replayDeadLetters(ids));
    expect(outcome).toMatchObject({ state: "replayed", before: false, failure: undefined });
    const [again] = await take(receiver, 1);
    expect([again?.id, again?.replayedFrom]).toEqual([outcome?.replayedAs, sent.messageId]);
    const [dropped] = await collect(receiver.dropDeadLetters("00000000-0000-0000-0000-000000000000"));
    expect(dropped?.failure).toMatchObject({ reason: "DEAD_LETTER_NOT_FOUND" });
  }, 120_000);

  it("beyond a limit are refused with the time to wait, where the caller does not wait so long", async () => {
    const slow = await become("slow");
    // The minute is the hub's: one that is nearly over would have room again in between.
    const used = async () => (await slow.usage()).find((usage) => usage.limit === "messagesPerMinute");
    await eventually("the minute is not over soon", async () => ((await used())?.resetsAt?.getTime() ?? 0) > Date.now() + 5_000);
    for (let number = 0; number < 5; number += 1) await slow.send({ to: "clerk", text: "x" });
    const refused = (await slow.request({ to: "clerk", text: "?" }, { withinMs: 100 }).catch((error: unknown) => error)) as AcbError;
    expect(refused).toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "RATE_LIMIT_EXCEEDED" });
    expect(refused.retryAfter).toBeGreaterThan(0);
    await empty("clerk");
  });
});

function abortedSoon(reason: Error): AbortSignal {
  const ending = new AbortController();
  setTimeout(() => ending.abort(reason), 300);
  return ending.signal;
}
