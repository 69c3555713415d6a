/** A session against a hub of a few lines, which does what a real one does rarely. */

import { create, type DescMethod, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, it, vi } from "vitest";

import { TokenResponseSchema } from "../../src/gen/acb/v1/auth_pb.js";
import { type SessionRequest, SessionRequestSchema, SessionResponseSchema } from "../../src/gen/acb/v1/message_pb.js";
import { clock } from "../../src/core/backoff.js";
import { Client } from "../../src/core/client.js";
import { ApiKey } from "../../src/core/credential.js";
import type { Session } from "../../src/core/session.js";
import { type Channel, type Duplex, type Incoming, type Link, type Replicas, Status } from "../../src/core/transport.js";
import { nodePlatform } from "../../src/node/platform.js";

type Response = MessageInitShape<typeof SessionResponseSchema>;

/** One connection, from the hub's side. */
class Line implements Duplex<DescMethod> {
  readonly hasRoom = true;
  readonly frames: SessionRequest["frame"][] = [];
  readonly #out: (Response | Status | undefined)[] = [];
  #wake: (() => void) | undefined;
  #heard: (() => void) | undefined;

  async receive(): Promise<never> {
    while (this.#out.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
    const next = this.#out.shift();
    if (next instanceof Status) throw next;
    return (next && create(SessionResponseSchema, next)) as never;
  }

  cancel(): void {
    this.say(new Status("CANCELLED", "given up", false));
  }

  async room(): Promise<void> {}

  send(message: object): void {
    this.frames.push(create(SessionRequestSchema, message as MessageInitShape<typeof SessionRequestSchema>).frame);
    this.#heard?.();
  }

  end(): void {
    this.say(undefined);
  }

  say(response: Response | Status | undefined): void {
    this.#out.push(response);
    this.#wake?.();
  }

  /** Once so many messages were sent on it: their numbers and topics. */
  async sent(count: number): Promise<[number, string][]> {
    for (;;) {
      const sends = this.frames.flatMap((frame) => (frame.case === "send" ? [frame.value] : []));
      if (sends.length >= count) return sends.map((send) => [Number(send.sequence), send.message?.topic ?? ""]);
      await new Promise<void>((resolve) => (this.#heard = resolve));
    }
  }

  accept(sequence: number): void {
    const outcome = { case: "accepted", value: { messageId: `m${sequence}` } } as const;
    this.say({ frame: { case: "sent", value: { sequence: BigInt(sequence), outcome } } });
  }

  fail(sequence: number, code: number, reason: string, retryAfterMs?: number): void {
    const retryAfter = retryAfterMs === undefined ? {} : { retryAfter: { seconds: 0n, nanos: retryAfterMs * 1e6 } };
    const outcome = { case: "failed", value: { code, reason, message: "no", ...retryAfter } } as const;
    this.say({ frame: { case: "sent", value: { sequence: BigInt(sequence), outcome } } });
  }

  deliver(id: string, delivery: string, redelivered = false): void {
    this.say({ frame: { case: "delivery", value: { deliveryId: delivery, redelivered, attempt: 1, message: { id, topic: id } } } });
  }

  /** What it heard of deliveries. */
  async told(what: "ack" | "inProgress" | "started", count: number): Promise<string[]> {
    for (;;) {
      const ids = this.frames.flatMap((frame) => (frame.case === what ? (frame.value as { deliveryIds: string[] }).deliveryIds : []));
      if (ids.length >= count) return ids;
      await new Promise<void>((resolve) => (this.#heard = resolve));
    }
  }
}

class Hub implements Replicas, Channel {
  readonly lines: Line[] = [];
  left = 0;
  exchanges = 0;
  /** Why sessions are refused, and how often they were. */
  turnsAway: Status | undefined;
  turnedAway = 0;
  #opened: (() => void) | undefined;

  async link(): Promise<Link> {
    return { id: this.left, endpoint: "https://hub:8443", channel: this };
  }

  leave(id: number): void {
    if (id === this.left) this.left += 1;
  }

  close(): void {}

  async unary<M extends DescMethod>(): Promise<MessageShape<M["output"]>> {
    this.exchanges += 1;
    const accessTokenExpiresAt = timestampFromDate(new Date(Date.now() + 3_600_000));
    return create(TokenResponseSchema, { accessToken: `t${this.exchanges}`, refreshToken: "r", accessTokenExpiresAt }) as unknown as MessageShape<M["output"]>;
  }

  receiving<M extends DescMethod>(): Incoming<M> {
    throw new Error("not here");
  }

  duplex<M extends DescMethod>(): Duplex<M> {
    const line = new Line();
    if (this.turnsAway !== undefined) {
      line.say(this.turnsAway);
      this.turnedAway += 1;
      return line as unknown as Duplex<M>;
    }
    line.say({ frame: { case: "opened", value: { replica: `hub-${this.lines.length}` } } });
    this.lines.push(line);
    this.#opened?.();
    return line as unknown as Duplex<M>;
  }

  /** The how-manieth connection, from 0. */
  async line(number: number): Promise<Line> {
    while (this.lines.length <= number) await new Promise<void>((resolve) => (this.#opened = resolve));
    return this.lines[number] as Line;
  }
}

async function opened(receive = false): Promise<{ hub: Hub; client: Client; session: Session; line: Line; send: (...topics: string[]) => Promise<PromiseSettledResult<string>[]> }> {
  const hub = new Hub();
  const quiet = { debug: () => undefined, warn: () => undefined, error: () => undefined };
  const credential = { kind: "apiKey", key: ApiKey.parse("acb_a_b") } as const;
  const client = await Client.connect({ replicas: hub, credential, retryForMs: 5_000, platform: nodePlatform(quiet) });
  const session = await client.session({ receive });
  const send = async (...topics: string[]) => {
    const receipts = topics.map((topic) => session.enqueue({ to: "x", topic }).then(({ outcome }) => outcome));
    return await Promise.allSettled(receipts.map((receipt) => receipt.then(({ messageId }) => messageId)));
  };
  return { hub, client, session, line: await hub.line(0), send };
}

describe("a session", () => {
  it("sends again what was pipelined behind a refused message, under new numbers from its own", async () => {
    const { session, line, send } = await opened();
    const outcomes = send("a", "b", "c", "d");
    expect(await line.sent(4)).toEqual([[1, "a"], [2, "b"], [3, "c"], [4, "d"]]);
    line.accept(1);
    line.fail(2, 5, "RECIPIENT_NOT_FOUND");
    line.fail(3, 10, "PIPELINE_BROKEN");
    line.fail(4, 10, "PIPELINE_BROKEN");
    expect((await line.sent(6)).slice(4)).toEqual([[2, "c"], [3, "d"]]);
    line.accept(2);
    line.accept(3);
    expect(await outcomes).toMatchObject([{ value: "m1" }, { reason: { reason: "RECIPIENT_NOT_FOUND" } }, { value: "m2" }, { value: "m3" }]);
    await session.close();
  });

  it("waits for a limit with everything behind it, in order", async () => {
    const { session, line, send } = await opened();
    const began = Date.now();
    const outcomes = send("a", "b");
    await line.sent(2);
    line.fail(1, 8, "RATE_LIMIT_EXCEEDED", 200);
    line.fail(2, 10, "PIPELINE_BROKEN");
    expect((await line.sent(4)).slice(2)).toEqual([[1, "a"], [2, "b"]]);
    expect(Date.now() - began).toBeGreaterThanOrEqual(195);
    line.accept(1);
    line.accept(2);
    expect(await outcomes).toMatchObject([{ value: "m1" }, { value: "m2" }]);
    await session.close();
  });

  it("goes to another replica where one ends, fails or is about to, with what is unanswered, oldest first", async () => {
    const { hub, session, line, send } = await opened();
    const outcomes = send("a", "b", "c");
    await line.sent(3);
    line.accept(1);
    line.say({ frame: { case: "draining", value: {} } });
    const second = await hub.line(1);
    expect(await second.sent(2)).toEqual([[2, "b"], [3, "c"]]);
    second.fail(2, 14, "LOG_UNAVAILABLE");
    const third = await hub.line(2);
    await third.sent(2);
    third.say(new Status("INTERNAL", "a fault", false));
    const fourth = await hub.line(3);
    await fourth.sent(2);
    fourth.accept(2);
    fourth.accept(3);
    expect(await outcomes).toMatchObject([{ value: "m1" }, { value: "m2" }, { value: "m3" }]);
    expect([hub.left, session.replica]).toEqual([3, "hub-3"]);
    await session.close();
  });

  it("takes over with its first connection alone", async () => {
    const { hub, session, line } = await opened(true);
    line.say({ frame: { case: "draining", value: {} } });
    await hub.line(1);
    const takeOvers = hub.lines.flatMap(({ frames: [first] }) => (first?.case === "open" ? [first.value.takeOver] : []));
    expect(takeOvers).toEqual([true, false]);
    await session.close();
  });

  it("renews a token that is taken no more, once, and then ends", async () => {
    const { hub, session, line } = await opened(true);
    line.say(new Status("UNAUTHENTICATED", "it ended", false, "TOKEN_EXPIRED"));
    const second = await hub.line(1);
    expect([hub.exchanges, hub.left]).toEqual([2, 0]);
    second.say(new Status("ABORTED", "another one receives", false, "SESSION_REPLACED"));
    await expect(session.next()).rejects.toMatchObject({ reason: "SESSION_REPLACED" });
    await expect(session.send({ to: "x" })).rejects.toMatchObject({ reason: "SESSION_REPLACED" });
  });

  it("hands a message over once, and acknowledges its latest delivery, over connections", async () => {
    const { hub, session, line } = await opened(true);
    line.deliver("m", "d1");
    const message = await session.next();
    line.deliver("m", "d2", true);
    expect(await line.told("inProgress", 1)).toEqual(["d2"]);
    line.say(new Status("UNAVAILABLE", "gone", true));
    const second = await hub.line(1);
    second.deliver("m", "d3", true);
    expect(await second.told("inProgress", 1)).toEqual(["d3"]);
    message?.ack();
    expect(await second.told("ack", 1)).toEqual(["d3"]);
    second.deliver("m", "d4", true);
    expect(await second.told("ack", 2)).toEqual(["d3", "d4"]);
    second.deliver("n", "d5", true);
    expect((await session.next())?.id).toBe("n");
    expect(await second.told("started", 1)).toEqual(["d5"]);
    await session.close();
  });

  it("takes whoever was in its place before an outage for gone after it, until it is told otherwise", async () => {
    const real = clock.now;
    let ahead = 0;
    const now = vi.spyOn(clock, "now").mockImplementation(() => real() + ahead);
    try {
      const { hub, session, line } = await opened();
      const refused = async (status: Status) => {
        hub.turnsAway = status;
        const before = hub.turnedAway;
        await vi.waitFor(() => expect(hub.turnedAway).toBeGreaterThan(before), 5_000);
      };
      const present = new Status("FAILED_PRECONDITION", "no", false, "RECEIVER_PRESENT");
      const away = new Status("UNAVAILABLE", "no", true);
      line.say(away);
      await refused(present);
      await refused(away);
      // For longer than another program may be in its place.
      ahead += 16_000;
      await refused(present);
      hub.turnsAway = undefined;
      await hub.line(1);
      await session.close();
    } finally {
      now.mockRestore();
    }
  });

  it("hands over what it was told to before it ends, and is refused afterwards", async () => {
    const { session, line } = await opened();
    const { outcome } = await session.enqueue({ to: "x", topic: "last" });
    const closing = session.close();
    await line.sent(1);
    line.accept(1);
    await closing;
    expect((await outcome).messageId).toBe("m1");
    await expect(session.enqueue({ to: "x" })).rejects.toMatchObject({ reason: "UNAVAILABLE" });
  });
});

describe("a session that is to be opened", () => {
  it("is refused where its settings are none", async () => {
    const { client } = await opened();
    for (const maxUnacknowledged of [0, 1_001, 1.5]) {
      await expect(client.session({ maxUnacknowledged })).rejects.toMatchObject({ reason: "USAGE", message: expect.stringContaining("not 1 to 1,000") });
    }
    await expect(client.session({ recieve: false } as never)).rejects.toMatchObject({ reason: "USAGE", message: expect.stringContaining('"recieve"') });
    const misspelt = { reason: "USAGE", message: expect.stringMatching(/ has no "\w+": is "\w+" meant\?/) };
    await expect(client.share("documents", { text: "x" }, { Scope: "private" } as never)).rejects.toMatchObject(misspelt);
    await expect(client.upload("documents", new Uint8Array(1), { scopes: "private" } as never)).rejects.toMatchObject(misspelt);
    await expect(client.request({ to: "x" }, { within: 5 } as never)).rejects.toMatchObject(misspelt);
    await client.close();
    await client.close();
    await expect(client.session()).rejects.toMatchObject({ reason: "USAGE", message: "the client is closed" });
  });
});

describe("what is in hand", () => {
  it("and is held by nobody any more may come again", async () => {
    expect(typeof globalThis.gc, "vitest.config.ts has --expose-gc").toBe("function");
    const { session, line } = await opened(true);
    line.deliver("m", "d1");
    await (async () => void (await session.next()))();
    let again: string | undefined;
    const waiting = session.next().then((message) => (again = message?.id));
    for (let tries = 0; tries < 100 && again === undefined; tries += 1) {
      globalThis.gc?.();
      line.deliver("m", `again-${tries}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(again).toBe("m");
    await waiting;
    await session.close();
  });
});
