import { describe, expect, it } from "vitest";

import type { Receipt, Sent } from "../../src/index.js";
import { become, empty, eventually, proxies, take } from "./agents.js";

describe("a session", () => {
  it("keeps order and loses nothing over breaks, on both sides", async () => {
    await empty("worker-a");
    const [near, far] = [await proxies(), await proxies()];
    const sender = await become("supervisor", { server: near.map((proxy) => proxy.url) });
    const receiver = await become("worker-a", { server: far.map((proxy) => proxy.url) });
    const replicas: string[] = [];
    const outgoing = await sender.session({ receive: false });
    const incoming = await receiver.session({ onReplica: (replica) => replicas.push(replica) });
    const COUNT = 300;
    const got: string[] = [];
    const receiving = (async () => {
      for await (const message of incoming) {
        got.push(message.text());
        message.ack();
        if (got.length === 100 || got.length === 200) for (const proxy of far) proxy.cut();
        if (new Set(got).size === COUNT) return;
      }
    })();
    const receipts: Receipt[] = [];
    for (let number = 0; number < COUNT; number += 1) {
      receipts.push(await outgoing.enqueue({ to: "worker-a", topic: "n", text: String(number) }));
      if (number === 80 || number === 160) for (const proxy of near) proxy.cut();
    }
    const sent: Sent[] = await Promise.all(receipts.map((receipt) => receipt.outcome));
    await receiving;
    expect(new Set(sent.map((one) => one.messageId)).size).toBe(COUNT);
    // What was not acknowledged when the connection broke may come once more, outside of the order, and is dropped where it was handled.
    expect(got).toEqual(Array.from({ length: COUNT }, (_, number) => String(number)));
    expect(replicas.length).toBeGreaterThanOrEqual(3);
    await Promise.all([outgoing.close(), incoming.close()]);
  });

  it("does not outlive a client that was closed while it opened", async () => {
    await empty("worker-b");
    const supervisor = await become("supervisor");
    for (const ticks of [0, 1, 2, 5, 20]) {
      const agent = await become("worker-b");
      let handled = 0;
      agent.onOther(() => void (handled += 1));
      const running = agent.run().then(
        () => "ended",
        (error: { reason: string }) => error.reason,
      );
      for (let tick = 0; tick < ticks; tick += 1) await new Promise((resolve) => setImmediate(resolve));
      const began = performance.now();
      await agent.close();
      expect(await running).toBe("ended");
      expect(performance.now() - began).toBeLessThan(3_000);
      await expect(agent.session()).rejects.toMatchObject({ reason: "USAGE", message: "the client is closed" });
      await supervisor.send({ to: "worker-b", text: String(ticks) });
      // Whoever receives for that agent next has it: nobody took it before.
      expect((await take(await become("worker-b"), 1)).map((message) => message.text())).toEqual([String(ticks)]);
      expect(handled).toBe(0);
    }
  });

  it("has what a handler returns be the answer, where one is wanted", async () => {
    await Promise.all([empty("worker-b"), empty("clerk")]);
    const worker = await become("worker-b");
    worker.on<{ n: number }>("double", ({ n }) => ({ doubled: 2 * n }));
    worker.on("text", () => "as text");
    worker.on("own", async (_payload, message) => await message.reply({ text: "own words" }));
    worker.on("event", () => "not wanted");
    const running = worker.run();
    const clerk = await become("clerk");
    const ask = async (topic: string, json: unknown) => await clerk.request({ to: "worker-b", topic, json }, { withinMs: 10_000 });
    await clerk.send({ to: "worker-b", topic: "event", json: 1 });
    expect((await ask("double", { n: 21 })).json()).toEqual({ doubled: 42 });
    const text = await ask("text", null);
    expect([text.text(), text.contentType]).toEqual(["as text", "text/plain; charset=utf-8"]);
    expect((await ask("own", null)).text()).toBe("own words");
    expect((await clerk.countUnread()).messages).toBe(0);
    // A question that is in the air ends at once, too.
    const asked = clerk.request({ to: "supervisor", topic: "unanswered" });
    asked.catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const began = performance.now();
    await clerk.close();
    await expect(asked).rejects.toMatchObject({ code: "UNAVAILABLE", message: "request: the client is closed" });
    expect(performance.now() - began).toBeLessThan(3_000);
    await worker.close();
    await running;
    await empty("supervisor");
  });

  it("notices a connection that is silent, and goes on", async () => {
    await empty("worker-b");
    const near = await proxies();
    const receiver = await become("worker-b", { server: near.map((proxy) => proxy.url) });
    const incoming = await receiver.session();
    for (const proxy of near) proxy.stall();
    const sender = await become("supervisor");
    await sender.send({ to: "worker-b", text: "still there?" });
    const message = await incoming.next({ signal: AbortSignal.timeout(30_000) });
    expect(message?.text()).toBe("still there?");
    message?.ack();
  });

  it("refuses one message alone, and sends those behind it in order", async () => {
    await empty("worker-b");
    const sender = await (await become("supervisor")).session({ receive: false });
    const receipts: Receipt[] = [];
    for (const to of ["worker-b", "nobody", "worker-b", "worker-b"]) receipts.push(await sender.enqueue({ to, text: String(receipts.length) }));
    const outcomes = await Promise.allSettled(receipts.map((receipt) => receipt.outcome));
    expect(outcomes.map((outcome) => outcome.status)).toEqual(["fulfilled", "rejected", "fulfilled", "fulfilled"]);
    expect(outcomes[1]).toMatchObject({ reason: { code: "NOT_FOUND", reason: "RECIPIENT_NOT_FOUND", correlationId: undefined } });
    expect((await take(await become("worker-b"), 3)).map((message) => message.text())).toEqual(["0", "2", "3"]);
  });

  it("keeps many senders waiting in line, and in order", async () => {
    await empty("worker-b");
    const sender = await (await become("supervisor")).session({ receive: false });
    const all = Array.from({ length: 300 }, (_, number) => sender.send({ to: "worker-b", text: String(number) }));
    const receiver = await become("worker-b");
    expect((await take(receiver, 300)).map((message) => message.text())).toEqual(all.map((_, number) => String(number)));
    await Promise.all(all);
  });

  it("sends while nobody takes what it has received", async () => {
    await empty("clerk");
    const sender = await become("supervisor");
    for (let number = 0; number < 3; number += 1) await sender.send({ to: "clerk", text: String(number) });
    const clerk = await become("clerk");
    const session = await clerk.session({ maxUnacknowledged: 1 });
    await session.send({ to: "worker-b", text: "I am here" }, { signal: AbortSignal.timeout(10_000) });
    const got: string[] = [];
    for await (const message of session) {
      got.push(message.text());
      message.ack();
      if (got.length === 3) break;
    }
    expect(got).toEqual(["0", "1", "2"]);
    await session.close();
    await empty("worker-b");
  });

  it("lets the handler that is at work come to its end when it is closed", async () => {
    await empty("clerk");
    const clerk = await become("clerk");
    let [begun, done] = [false, false];
    clerk.onOther(async () => {
      begun = true;
      await new Promise((resolve) => setTimeout(resolve, 500));
      done = true;
    });
    const running = clerk.run({
      onReplica: () => {
        throw new Error("a callback that fails ends nothing");
      },
    });
    await (await become("supervisor")).send({ to: "clerk", text: "slowly" });
    await eventually("it has begun", () => begun);
    await clerk.close();
    await running;
    expect(done).toBe(true);
    const observer = await become("clerk");
    await eventually("it is acknowledged", async () => (await observer.countUnread()).messages === 0);
  });

  it("takes over from another program, unless it is told not to", async () => {
    await empty("clerk");
    const first = await (await become("clerk")).session();
    const second = await become("clerk");
    await expect(second.session({ takeOver: false })).rejects.toMatchObject({ reason: "RECEIVER_PRESENT" });
    const ended = expect(first.next()).rejects.toMatchObject({ code: "ABORTED", reason: "SESSION_REPLACED" });
    const taken = await second.session();
    await ended;
    await taken.close();
    expect(await taken.next()).toBeUndefined();
    await expect(taken.send({ to: "clerk", text: "x" })).rejects.toMatchObject({ reason: "UNAVAILABLE" });
  });

  it("goes on where the program that took over is gone, and ends where that one stays", async () => {
    await empty("clerk");
    const far = await proxies();
    const receiver = await become("clerk", { server: far.map((proxy) => proxy.url) });
    const session = await receiver.session();
    const connections = () => far.reduce((sum, proxy) => sum + proxy.connections, 0);
    /** Has another program take over while this one is cut off, and look for its place for a while. */
    const outrun = async () => {
      for (const proxy of far) proxy.mute();
      for (const proxy of far) proxy.cut();
      const successor = await (await become("clerk")).session();
      for (const proxy of far) proxy.unmute();
      const before = connections();
      await eventually("it connects again", () => connections() > before);
      return successor;
    };
    const successor = await outrun();
    // Longer than a hub waits for the other one to end.
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    await successor.close();
    await (await become("supervisor")).send({ to: "clerk", text: "still there" });
    const message = await session.next();
    expect(message?.text()).toBe("still there");
    message?.ack();
    const staying = await outrun();
    const began = performance.now();
    await expect(session.next()).rejects.toMatchObject({ reason: "RECEIVER_PRESENT" });
    expect(performance.now() - began).toBeGreaterThan(10_000);
    await staying.close();
  }, 60_000);

  it("hands back what was not acknowledged, and what a handler failed at", async () => {
    await empty("clerk");
    const sender = await become("supervisor");
    const receiver = await become("clerk");
    await sender.send({ to: "clerk", topic: "work", json: "first" });
    await sender.send({ to: "clerk", topic: "work", json: "second" });
    const seen: string[] = [];
    const failing = await receiver.session();
    failing.on<string>("work", (work) => {
      seen.push(work);
      if (work === "first") throw new Error("no");
    });
    const ending = new AbortController();
    const running = failing.run({ signal: ending.signal });
    await eventually("both were tried", () => seen.length === 2);
    ending.abort();
    await running;
    const [again] = await take(receiver, 1);
    expect([again?.json(), again?.redelivered]).toEqual(["first", true]);
    await eventually("nothing is left", async () => (await receiver.countUnread()).messages === 0);
  });

  it("ends a wait with the signal, and what waits with the client", async () => {
    const receiver = await become("clerk");
    const session = await receiver.session();
    const reason = new Error("enough");
    const ending = new AbortController();
    const waiting = session.next({ signal: ending.signal });
    ending.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    const loop = (async () => {
      for await (const message of session) message.release();
      return "over";
    })();
    await receiver.close();
    expect(await loop).toBe("over");
    await expect(receiver.send({ to: "clerk", text: "x" })).rejects.toMatchObject({ reason: "USAGE" });
  });

  it("says what is wrong with its filter", async () => {
    const receiver = await become("clerk");
    await expect(receiver.session({ filter: "message.nothing ==" })).rejects.toMatchObject({ code: "INVALID_ARGUMENT", reason: "FILTER_INVALID" });
  });
});
