import { create } from "@bufbuild/protobuf";
import { inspect } from "node:util";
import { describe, expect, it } from "vitest";

import { MessageSchema } from "../../src/gen/acb/v1/message_pb.js";
import { type Clock, Limited, Patience } from "../../src/core/backoff.js";
import { ApiKey, Tokens } from "../../src/core/credential.js";
import { AcbError, codeOf, during, failure, ofCall } from "../../src/core/error.js";
import { Inbox } from "../../src/core/inbox.js";
import { selection } from "../../src/core/letters.js";
import { answering, build, FAILURE } from "../../src/core/message.js";
import { pages } from "../../src/core/caller.js";
import { decodeJson, encode, encodeAlone, type Schema, validated } from "../../src/core/payload.js";
import { Seen } from "../../src/core/seen.js";
import { noteResumption, type Resumption } from "../../src/core/transfer.js";
import { Status } from "../../src/core/transport.js";
import { Wake, within } from "../../src/core/wait.js";
import { duration, millisecondsOf } from "../../src/core/wire.js";

/** Time that passes when it is waited for. */
class Pretended implements Clock {
  at = 1_000_000;
  random = () => 0.5;
  now = () => this.at;
  async sleep(ms: number): Promise<void> {
    this.at += ms;
  }
}

function refused(retryAfter?: number, reason = "RATE_LIMIT_EXCEEDED"): AcbError {
  return new AcbError("RESOURCE_EXHAUSTED", reason, "no", { retryAfter });
}

describe("what is wrong", () => {
  it("is said without any of the payload", async () => {
    const secret = "hunter2";
    const said: string[] = [];
    const note = (error: unknown) => void said.push(inspect(error, { depth: 9, showHidden: true }).replace(/\n    at .*/g, ""));
    const attempt = async (body: () => unknown) => {
      try {
        await body();
      } catch (error) {
        note(error);
      }
    };
    await attempt(() => decodeJson(new TextEncoder().encode(`{"password": ${secret}}`), "the payload"));
    await attempt(() => decodeJson(new TextEncoder().encode(secret), "the payload"));
    const round: Record<string, unknown> = {};
    round[secret] = round;
    await attempt(() => encode({ json: round }));
    const issues = [{ message: `expected a number, and not ${secret}`, path: ["a"] }];
    await attempt(() => validated({ "~standard": { version: 1, vendor: "x", validate: () => ({ issues }) } }, {}, "the payload"));
    expect(said).toHaveLength(4);
    for (const text of said) expect(text).toContain("PAYLOAD");
    expect(said.join()).not.toContain(secret);
  });

  it("ends with the reason, once, where a hub said it", () => {
    const error = new AcbError("NOT_FOUND", "RECIPIENT_NOT_FOUND", "no such agent");
    expect(during("send", ofCall("c", error)).message).toBe("send: no such agent (RECIPIENT_NOT_FOUND)");
    expect(new AcbError("INTERNAL", "", "a fault").message).toBe("a fault (INTERNAL)");
    expect(failure("USAGE", "so not").message).toBe("so not");
  });

  it("is said of keys that nobody would look at", () => {
    const refused = (message: object) => expect(() => build({ to: "x", ...message } as never));
    refused({ payload: { a: 1 } }).toThrow(/a message has no "payload": give the payload as json, text or bytes/);
    refused({ jsn: 1 }).toThrow(/a message has no "jsn": it can have /);
    refused({ metaData: {} }).toThrow('is "metadata" meant?');
    refused({ bytes: [1, 2] }).toThrow("bytes is a Uint8Array");
    expect(() => answering({ payload: 1 } as never, create(MessageSchema, { from: "x" }))).toThrow("json, text or bytes");
    expect(() => encodeAlone({ a: 1 } as never)).toThrow('a payload has no "a"');
    expect(() => encodeAlone("text" as never)).toThrow("a payload is an object");
  });
});

describe("patience", () => {
  it("gives up within its time and says so", async () => {
    const time = new Pretended();
    const [patience, start] = [new Patience(20_000, time), time.at];
    let tries = 0;
    const giveUp = async () => {
      for (;;) {
        tries += 1;
        await patience.wait(failure("UNAVAILABLE", "refused"));
      }
    };
    await expect(giveUp()).rejects.toThrow("gave up after 20 s: refused");
    expect(time.at - start).toBeLessThanOrEqual(20_000);
    expect(tries).toBeGreaterThanOrEqual(8);
    expect(tries).toBeLessThan(40);
  });

  it("tries again what went well for long, and ends with a signal", async () => {
    const time = new Pretended();
    const patience = new Patience(20_000, time);
    time.at += 3_600_000;
    await patience.wait(failure("UNAVAILABLE", "refused"));
    const stopped = new Patience(20_000).wait(failure("UNAVAILABLE", "x"), AbortSignal.abort(new Error("enough")));
    await expect(stopped).rejects.toThrow("enough");
  });

  it("counts connecting that fails from its beginning, bounds it, and ends with the client", async () => {
    const time = new Pretended();
    const slow = async () => {
      time.at += 6_000;
      throw failure("UNAVAILABLE", "refused");
    };
    const patience = new Patience(8_000, time);
    await expect(patience.connecting(slow)).rejects.toThrow("refused");
    await patience.wait(failure("UNAVAILABLE", "refused"));
    await expect(patience.connecting(slow)).rejects.toThrow("refused");
    await expect(patience.wait(failure("UNAVAILABLE", "refused"))).rejects.toThrow("gave up after 8 s: refused");
    const silent = () => new Promise(() => undefined);
    await expect(patience.connecting(silent)).rejects.toThrow("refused");
    const closed = new Patience(8_000, time, AbortSignal.abort(failure("UNAVAILABLE", "the client is closed")));
    await expect(closed.wait(failure("UNAVAILABLE", "refused"))).rejects.toThrow("the client is closed");
    await expect(closed.connecting(async () => 1)).rejects.toThrow("the client is closed");
  });

  it("waits for a limit as long as it says, and not for ever", () => {
    const time = new Pretended();
    const limited = new Limited(time);
    expect(limited.againAt(refused())).toBeUndefined();
    expect(limited.againAt(refused(50_000))).toBe(time.at + 50_500);
    time.at += 50_500;
    expect(limited.againAt(refused(60_000))).toBe(time.at + 60_500);
    time.at += 60_500;
    expect(limited.againAt(refused(60_000))).toBeUndefined();
    expect(new Limited(time).againAt(refused(86_400_000))).toBeUndefined();
    expect(new Limited(time).againAt(refused(5_000, "MONTHLY_LIMIT_EXCEEDED"))).toBeUndefined();
  });
});

describe("an inbox", () => {
  const inboxAt = () => {
    const time = new Pretended();
    return { time, inbox: new Inbox(() => undefined, time) };
  };

  it("acknowledges a redelivery of what was handled unseen", () => {
    const { inbox } = inboxAt();
    inbox.admit("m", "d1", false)?.ack();
    expect(inbox.takeAcks()).toEqual(["d1"]);
    expect(inbox.admit("m", "d2", false)).toBeUndefined();
    expect(inbox.takeAcks()).toEqual(["d2"]);
  });

  it("acknowledges a message in hand by its latest delivery, and once", () => {
    const { inbox } = inboxAt();
    const ticket = inbox.admit("m", "d1", false);
    inbox.forgetDeliveries();
    expect(inbox.admit("m", "d2", false)).toBeUndefined();
    expect(inbox.takeInProgress()).toEqual(["d2"]);
    ticket?.ack();
    ticket?.ack();
    ticket?.release();
    expect(inbox.takeAcks()).toEqual(["d2"]);
  });

  it("tells what is begun by its latest delivery", () => {
    const { inbox } = inboxAt();
    const ticket = inbox.admit("m", "d1", false);
    expect(inbox.hasNews).toBe(false);
    ticket?.start();
    expect([inbox.hasNews, inbox.takeStarted()]).toEqual([true, ["d1"]]);
    ticket?.start();
    inbox.forgetDeliveries();
    expect(inbox.takeStarted()).toEqual([]);
  });

  it("has the hub hear again of what came again, and of nothing else", () => {
    const { inbox, time } = inboxAt();
    inbox.admit("n", "d2", false);
    expect(inbox.remindAt).toBeUndefined();
    const worked = inbox.admit("m", "d1", true);
    expect(inbox.remindAt).toBe(time.at + 10_000);
    inbox.remind();
    inbox.remind();
    expect(inbox.takeInProgress()).toEqual(["d1"]);
    inbox.admit("m", "d3", true);
    expect(inbox.takeInProgress()).toEqual(["d3"]);
    inbox.remind();
    expect(inbox.takeInProgress()).toEqual(["d3"]);
    worked?.ack();
    inbox.remind();
    expect([inbox.takeInProgress(), inbox.remindAt]).toEqual([[], undefined]);
  });

  it("shows again what was released, and lets an old ticket do nothing to it", () => {
    const { inbox } = inboxAt();
    const old = inbox.admit("m", "d1", false);
    old?.release();
    const fresh = inbox.admit("m", "d2", false);
    expect(fresh).toBeDefined();
    old?.ack();
    expect(inbox.takeAcks()).toEqual([]);
  });

  it("names no more than 1,000 deliveries at once", () => {
    const { inbox } = inboxAt();
    for (let number = 0; number < 1_500; number += 1) inbox.admit(String(number), String(number), false)?.ack();
    expect([inbox.takeAcks().length, inbox.takeAcks().length]).toEqual([1_000, 500]);
  });
});

describe("a message", () => {
  it("has a key of its own, each time", () => {
    const [a, b] = [build({ to: "x" }), build({ to: "x" })];
    expect(a.idempotencyKey).not.toBe("");
    expect(a.idempotencyKey).not.toBe(b.idempotencyKey);
    expect(build({ to: "x", idempotencyKey: "mine" }).idempotencyKey).toBe("mine");
  });

  it("that can't be sent fails before it is", () => {
    const flawed = (message: object, reason: string) => expect(() => build(message as never)).toThrow(expect.objectContaining({ reason }));
    const circle: { me?: object } = {};
    circle.me = circle;
    flawed({ to: "x", json: circle }, "PAYLOAD");
    flawed({ to: "x", json: 10n }, "PAYLOAD");
    flawed({ to: "x", json: () => 1 }, "PAYLOAD");
    flawed({ to: "x", json: 1, text: "1" }, "USAGE");
    for (const to of ["", undefined, null, [], ["x", ""], ["x", "y", "x"], { group: "" }, { all: false }, 5]) flawed({ to }, "USAGE");
    flawed({ to: "x", kind: "letter" }, "USAGE");
    flawed({ to: "x", metadata: { a: 1 } }, "USAGE");
    flawed({ to: "x", expiresInMs: Number.NaN }, "USAGE");
    const many = (count: number) => Array.from({ length: count }, (_, number) => String(number));
    expect(build({ to: many(64) }).to?.to.case).toBe("agents");
    flawed({ to: many(65) }, "USAGE");
  });

  it("of a reason that is long is cut between characters", () => {
    const sent = (reason: string) => answering({ failure: reason }, create(MessageSchema, { from: "boss" })).metadata[FAILURE];
    expect(sent("no")).toBe("no");
    expect(sent("é".repeat(4000))).toBe("é".repeat(2048));
    expect(Buffer.byteLength(sent(`x${"é".repeat(4000)}`) as string)).toBe(4095);
  });

  it("that answers goes where the question wants it", () => {
    const question = create(MessageSchema, {
      id: "m1",
      from: "boss",
      topic: "lookup",
      traceparent: "00-a-b-01",
      replyTo: { to: { case: "request", value: { agent: "boss", requestId: "7" } } },
    });
    const answer = answering({ text: "yes" }, question);
    expect(answer.to?.to).toMatchObject({ case: "request", value: { agent: "boss", requestId: "7" } });
    expect([answer.topic, answer.correlationId, answer.traceparent, answer.type]).toEqual(["lookup", "m1", "00-a-b-01", 4]);
    expect(answering({}, create(MessageSchema, { from: "boss" })).to?.to).toMatchObject({ case: "agent", value: "boss" });
  });
});

describe("small things", () => {
  it("seen is bounded and forgets the oldest", () => {
    const seen = new Seen(2);
    for (const id of ["a", "b", "b", "c"]) seen.add(id);
    expect([seen.has("a"), seen.has("b"), seen.has("c"), seen.size]).toEqual([false, true, true, 2]);
  });

  it("many named letters are several calls", () => {
    const ids = Array.from({ length: 250 }, (_, number) => String(number));
    const sizes: number[] = [];
    let token: string | undefined = "";
    do {
      const part = selection(ids, token);
      sizes.push((part.selection as { ids: string[] }).ids.length);
      token = part.next;
    } while (token !== "" && token !== undefined);
    expect(sizes).toEqual([100, 100, 50]);
    expect(selection({}, "t")).toMatchObject({ selection: { pageToken: "t" }, next: undefined });
  });

  it("pages follow the tokens over empty ones", async () => {
    const answers: Record<string, { items: number[]; next: string }> = { "": { items: [1, 2], next: "a" }, a: { items: [], next: "b" }, b: { items: [3], next: "" } };
    const all: number[] = [];
    for await (const item of pages(async (token) => answers[token] as { items: number[]; next: string })) all.push(item);
    expect(all).toEqual([1, 2, 3]);
  });

  it("a resumption on which nothing was transferred makes no difference", () => {
    const resumptions: Resumption[] = [];
    for (const [chunk, replica] of [[3, "a"], [3, "b"], [5, "a"]] as const) noteResumption(resumptions, chunk, replica);
    expect(resumptions).toEqual([{ fromChunk: 3, replica: "b" }, { fromChunk: 5, replica: "a" }]);
  });

  it("durations are there and back what they were", () => {
    for (const ms of [0, 1, 999.5, 1_000, 86_400_000, 300_001]) expect(millisecondsOf(duration(ms))).toBe(ms);
    for (const ms of [-1, Number.NaN, Infinity]) expect(() => duration(ms)).toThrow("no duration");
  });

  it("a wait ends with its time, and a wake that nobody waited for is kept", async () => {
    await expect(within(10, () => new Promise(() => undefined), () => new Error("late"))).rejects.toThrow("late");
    const wake = new Wake();
    wake.notify();
    await wake.wait();
    await wake.wait(5);
  });

  it("a schema says what is wrong, and where", async () => {
    const schema = { "~standard": { version: 1, vendor: "x", validate: () => ({ issues: [{ message: "too short", path: ["a", { key: 0 }] }] }) } } as const;
    await expect(validated(schema as Schema, {}, "the payload")).rejects.toThrow("the payload is not what was expected: the schema refuses its a.0");
    expect(encode({ text: "é" })).toEqual({ payload: new Uint8Array([0xc3, 0xa9]), contentType: "text/plain; charset=utf-8" });
  });
});

describe("errors and secrets", () => {
  it("codes have their names, and unknown ones one", () => {
    expect([codeOf(5), codeOf(16), codeOf(99), codeOf(-1)]).toEqual(["NOT_FOUND", "UNAUTHENTICATED", "UNKNOWN", "UNKNOWN"]);
  });

  it("keep what is known of them", () => {
    const error = ofCall("id-1", during("send", refused(5)));
    expect(error).toMatchObject({ message: "send: no (RATE_LIMIT_EXCEEDED)", reason: "RATE_LIMIT_EXCEEDED", retryAfter: 5, correlationId: "id-1", isRetryable: true });
    expect(ofCall("id-1", failure("USAGE", "x")).correlationId).toBeUndefined();
    expect(new Status("UNAVAILABLE", "gone", true).toError().reason).toBe("UNAVAILABLE");
    expect(new Status("UNAVAILABLE", "ending", true, "DRAINING").toError()).toMatchObject({ reason: "DRAINING", isRetryable: true });
  });

  it("keys are read and not shown", () => {
    const key = ApiKey.parse(" acb_0123abcd_c2VjcmV0\n");
    expect(key.expose()).toBe("acb_0123abcd_c2VjcmV0");
    for (const shown of [inspect(key, { showHidden: true }), String(key), JSON.stringify({ key })]) expect(shown).not.toContain("c2VjcmV0");
    expect(inspect(new Tokens("secret-a", "secret-b", new Date(0)), { showHidden: true })).not.toContain("secret");
    for (const text of ["", "acb", "acb_x", "acb__x", "acb_x_", "xyz_a_b", "acb_a b_c", "acb_a_ü"]) expect(() => ApiKey.parse(text)).toThrow("not an API key");
  });
});
