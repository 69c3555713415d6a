import { readFile } from "node:fs/promises";
import { inspect } from "node:util";

import { afterEach, beforeEach, describe, expect, inject, it, vi } from "vitest";

import { auditRecord, connect } from "../../src/index.js";
import { become, collect, eventually, proxies, QUIET } from "./agents.js";

const NOBODY = "https://127.0.0.1:1";

describe("a client", () => {
  it("shows no secret, and knows whom it speaks for", async () => {
    const agent = await become("supervisor");
    expect(agent.identity).toMatchObject({ tenant: "acme", agent: "supervisor" });
    expect(inject("hub").servers).toContain(await agent.endpoint());
    const key = (await readFile(inject("hub").apiKeyFiles["supervisor"] as string, "utf8")).trim();
    const shown = inspect([agent, agent.tokens, agent.identity], { depth: 20, showHidden: true }) + JSON.stringify([agent, agent.tokens]);
    for (const secret of [key, agent.tokens.access, agent.tokens.refresh]) expect(shown).not.toContain(secret);
  });

  it("goes to a replica that answers, and back again", async () => {
    const near = await proxies();
    const agent = await become("supervisor", { server: [NOBODY, ...near.map((proxy) => proxy.url)] });
    for (let number = 0; number < 3; number += 1) {
      // Calls that are on their way when the connection breaks are none the worse for each other.
      const calls = Array.from({ length: 20 }, () => agent.agent("worker-a"));
      for (const proxy of near) proxy.cut();
      expect((await Promise.all(calls)).map(({ name }) => name)).toEqual(Array(20).fill("worker-a"));
    }
    expect(near.reduce((sum, proxy) => sum + proxy.connections, 0)).toBeGreaterThanOrEqual(2);
  });

  it("says where nobody answers, and gives up in its time", async () => {
    await expect(become("supervisor", { server: NOBODY, retryForMs: 200 })).rejects.toMatchObject({
      reason: "UNAVAILABLE",
      message: expect.stringMatching(/gave up after 0 s: no replica of the hub answers: https:\/\/127.0.0.1:1: .*ECONNREFUSED/),
    });
    await expect(become("supervisor", { server: NOBODY, signal: AbortSignal.timeout(200) })).rejects.toThrow("timeout");
  });

  it("trusts the tenant's CA alone, whatever the environment says", async () => {
    const { servers, apiKeyFiles } = inject("hub");
    vi.stubEnv("NODE_TLS_REJECT_UNAUTHORIZED", "0");
    const untrusted = connect({ server: servers, ca: OTHER_CA, apiKeyFile: apiKeyFiles["supervisor"] as string, log: QUIET });
    await expect(untrusted).rejects.toMatchObject({ code: "UNAUTHENTICATED", reason: "UNTRUSTED", isRetryable: false });
    vi.unstubAllEnvs();
  });

  it("is refused with a wrong key", async () => {
    const { servers, caFile } = inject("hub");
    const refused = connect({ server: servers, caFile, apiKey: "acb_0123456789ab_wrong" });
    await expect(refused).rejects.toMatchObject({ code: "UNAUTHENTICATED", message: expect.stringContaining("authentication: ") });
  });

  it("goes on with the tokens of another one", async () => {
    const { servers, caFile } = inject("hub");
    const first = await connect({ server: servers, caFile, apiKeyFile: inject("hub").apiKeyFiles["clerk"] as string });
    const { tokens } = first;
    await first.close();
    const agent = await connect({ server: servers, caFile, tokens });
    expect(agent.identity.agent).toBe("clerk");
    expect(agent.tokens.access).not.toBe(tokens.access);
    await agent.close();
  });
});

describe("replicas that take connections and are silent", () => {
  const within = async (ms: number, work: Promise<unknown>, expected: object) => {
    const began = performance.now();
    await expect(work).rejects.toMatchObject(expected);
    expect(performance.now() - began).toBeLessThan(ms);
  };

  it("hold nobody longer than the caller said", async () => {
    const near = await proxies();
    const server = near.map((proxy) => proxy.url);
    const agent = await become("supervisor", { server, retryForMs: 8_000 });
    for (const proxy of near) proxy.mute();
    await within(5_000, agent.request({ to: "worker-b", topic: "mute" }, { withinMs: 1_000 }), { code: "DEADLINE_EXCEEDED", reason: "TIMEOUT" });
    // Now there is no connection any more.
    for (const proxy of near) proxy.cut();
    await within(5_000, agent.request({ to: "worker-b", topic: "mute" }, { withinMs: 1_000 }), { code: "DEADLINE_EXCEEDED", reason: "TIMEOUT" });
    const soon = () => ({ signal: AbortSignal.timeout(300) });
    const aborted = { name: "TimeoutError" };
    await within(3_000, agent.send({ to: "worker-b" }, soon()), aborted);
    await within(3_000, agent.subscribe("documents", soon()), aborted);
    await within(3_000, agent.session({ receive: false, ...soon() }), aborted);
    await within(3_000, agent.upload("documents", new Uint8Array(9), soon()), aborted);
    await within(3_000, become("supervisor", { server, ...soon() }), aborted);
    await within(14_000, Promise.all([agent.send({ to: "worker-b" }), agent.send({ to: "worker-b" })]), {
      reason: "UNAVAILABLE",
      message: expect.stringContaining("gave up after 8 s"),
    });
    const waiting = agent.send({ to: "worker-b" });
    waiting.catch(() => undefined);
    await within(3_000, Promise.all([waiting, agent.close()]), { reason: "UNAVAILABLE", message: "send: the client is closed" });
  });
});

describe("a program finds its hub", () => {
  beforeEach(() => {
    for (const name of ["ACB_SERVER", "ACB_CA_FILE", "ACB_API_KEY_FILE", "ACB_TOKEN_FILE", "ACB_PROFILE"]) vi.stubEnv(name, undefined);
  });
  afterEach(() => vi.unstubAllEnvs());

  it("by the environment", async () => {
    const { servers, caFile, apiKeyFiles } = inject("hub");
    vi.stubEnv("ACB_SERVER", servers.join(","));
    vi.stubEnv("ACB_CA_FILE", caFile);
    vi.stubEnv("ACB_API_KEY_FILE", apiKeyFiles["worker-b"] as string);
    const agent = await connect();
    expect(agent.identity.agent).toBe("worker-b");
    await agent.close();
  });

  it("by what `acb login` keeps", async () => {
    vi.stubEnv("ACB_CONFIG", inject("hub").config);
    vi.stubEnv("ACB_PROFILE", "acme/worker-a");
    const agent = await connect();
    expect(agent.identity.agent).toBe("worker-a");
    await agent.close();
    const named = await connect({ profile: "acme/clerk" });
    expect(named.identity.agent).toBe("clerk");
    await named.close();
  });
});

describe("agents", () => {
  it("are found, announced and registered", async () => {
    const agent = await become("supervisor");
    expect((await collect(agent.agents())).map(({ name }) => name)).toEqual(expect.arrayContaining(["supervisor", "worker-a", "worker-b"]));
    expect((await collect(agent.discover({ capabilities: ["summarize"] }))).map(({ name }) => name)).toEqual(["worker-a", "worker-b"]);
    await expect(agent.agent("nobody")).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect((await agent.announce()).status).toBe("online");
    const heartbeats = agent.heartbeats();
    expect(await agent.heartbeat()).toBeGreaterThan(1_000);
    heartbeats.stop();
    const helper = await agent.register({ name: "helper", capabilities: ["help"], metadata: { shift: "night" } });
    expect(helper.agent).toMatchObject({ name: "supervisor.helper", registeredBy: "supervisor", capabilities: ["help"] });
    expect(inspect(helper)).not.toContain(helper.apiKey);
    const { servers, caFile } = inject("hub");
    const other = await connect({ server: servers, caFile, apiKey: helper.apiKey });
    expect(other.identity.agent).toBe("supervisor.helper");
    await other.close();
    await agent.unregister("helper");
    expect((await collect(agent.credentials())).map(({ kind }) => kind)).toEqual(["apiKey"]);
    await expect(agent.register({ name: "" })).rejects.toMatchObject({ reason: "AGENT_NAME_INVALID" });
  });
});

describe("usage and audit", () => {
  it("is followed over breaks, each record once", async () => {
    const near = await proxies();
    const boss = await become("boss", { server: near.map((proxy) => proxy.url) });
    const worker = await become("worker-a");
    const trail = await boss.followAudit({ agent: "worker-a", operation: "GetContext", signal: AbortSignal.timeout(35_000) });
    const context = await worker.share("reports", { text: "for the trail" });
    const numbers: number[] = [];
    for (let number = 0; number < 3; number += 1) {
      await worker.context(context.id);
      const record = await trail.next();
      expect(auditRecord(record?.record ?? new Uint8Array())).toMatchObject({ agent: "worker-a", operation: "GetContext", phase: "outcome" });
      numbers.push(record?.number ?? -1);
      for (const proxy of near) proxy.cut();
    }
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
    const waiting = trail.next();
    trail.close();
    expect([await waiting, await trail.next()]).toEqual([undefined, undefined]);
    // From an earlier number on it is told again.
    const again = await boss.followAudit({ agent: "worker-a", operation: "GetContext", first: numbers[0] as number });
    expect((await collect(again, 3)).map(({ number }) => number)).toEqual(numbers);
    expect(again.nextNumber).toBeGreaterThan(numbers[2] as number);
    again.close();
    await expect(worker.followAudit()).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
  });

  it("are told", async () => {
    const boss = await become("boss");
    expect((await boss.usage()).map(({ limit }) => limit)).toContain("messagesPerMinute");
    expect((await boss.usage({ agent: "worker-a" }))[0]?.subject).toBe("agent worker-a");
    await boss.send({ to: "clerk", text: "counted" });
    await eventually("it is summed", async () => (await collect(boss.usageSums({ by: "day", agent: "boss" }))).some(({ messages }) => messages > 0));
    expect(await boss.usageGaps({ by: "month" })).toEqual([]);
    await eventually("the trail has it", async () => {
      const [logged] = await collect(boss.auditRecords({ agent: "boss", operation: "ListUsage" }), 1);
      return logged !== undefined && auditRecord(logged.record)?.agent === "boss";
    });
    const worker = await become("worker-a");
    await expect(collect(worker.auditRecords())).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
    const denied = await worker.auditCheckpoint().catch((error: unknown) => error);
    expect(denied).toMatchObject({ code: "PERMISSION_DENIED" });
  });
});

/** Of nobody. */
const OTHER_CA = `-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUaNgzhiLqTDPvZ3pVLCzc2hP+gU4wCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyNzE2MDU0NFoYDzIxMjYxMTAzMTYw
NTQ0WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATstzmbd49cggNZ0YaT9uER10++AsISg1IM4JSRrBwjzcB84N4NEBefQmma4sPE
ulP6FlusJszCQtD87CliLWzyo1MwUTAdBgNVHQ4EFgQUy0/a4A25g1xclj4TgwiY
jPejf/YwHwYDVR0jBBgwFoAUy0/a4A25g1xclj4TgwiYjPejf/YwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBi6w0jFSYgyq2Wzvhbco1tCXS600bb
FJMxjM5a6zAZyQIgXGXfEGJ6ICF0VyJlGMAZKRHt1TqH+Pk+zmEAKjhfCUc=
-----END CERTIFICATE-----
`;
