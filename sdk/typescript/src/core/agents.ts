/** Who else is there, and what they prove themselves with. */

import { type Agent as WireAgent, AgentRegistry, AgentStatus } from "../gen/acb/v1/agent_pb.js";
import { type Credential as WireCredential, Credential_Kind, CredentialService } from "../gen/acb/v1/credential_pb.js";
import { clock } from "./backoff.js";
import { type Caller, type CallOptions, pages } from "./caller.js";
import { AcbError, isOurs, malformed } from "./error.js";
import { dateOf } from "./wire.js";

/** An agent of the tenant, as the directory has it. */
export interface AgentInfo {
  /** The UID of the Agent resource. */
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly capabilities: readonly string[];
  readonly groups: readonly string[];
  readonly location: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly role: string;
  readonly status: "online" | "offline" | "unknown";
  readonly tenant: string;
  readonly createdAt: Date | undefined;
  /** Unset for an agent that was never seen. */
  readonly lastSeenAt: Date | undefined;
  /** Whether it may do nothing until it is resumed. */
  readonly suspended: boolean;
  /** The name of the agent that registered it; empty for one with an Agent resource. */
  readonly registeredBy: string;
}

/** What is said of an agent that another one registers. */
export interface Registration {
  /** At most 63 lower-case letters, digits and inner hyphens. */
  readonly name: string;
  readonly type?: string;
  readonly capabilities?: readonly string[];
  readonly metadata?: Readonly<Record<string, string>>;
  readonly location?: string;
}

/** An agent that was registered for another one, and the only look at its key. */
export class Registered {
  readonly #apiKey: string;

  constructor(
    readonly agent: AgentInfo,
    apiKey: string,
  ) {
    this.#apiKey = apiKey;
  }

  /** What it logs in with. The hub keeps no copy, and does not say it again. */
  get apiKey(): string {
    return this.#apiKey;
  }
}

/** What to look for; every given criterion must match. */
export interface Criteria {
  readonly type?: string;
  /** All of these. */
  readonly capabilities?: readonly string[];
  /** All of these entries. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** A credential, as the hub knows it. Never a secret. */
export interface CredentialInfo {
  readonly agent: string;
  readonly agentId: string;
  readonly kind: "apiKey" | "serviceAccount" | "unknown";
  /** The prefix of an API key, or `<namespace>/<name>` of a ServiceAccount. */
  readonly name: string;
  readonly createdAt: Date | undefined;
  /** Unset: it works until it is removed. */
  readonly expiresAt: Date | undefined;
  /** When a token was last issued for it, to the minute. */
  readonly lastUsedAt: Date | undefined;
}

/** Heartbeats that go on until they are stopped. */
export interface Heartbeats extends Disposable {
  stop(): void;
}

function agentOf(wire: WireAgent): AgentInfo {
  const { id, name, type, capabilities, groups, location, metadata, role, tenant, suspended, registeredBy } = wire;
  const status = wire.status === AgentStatus.ONLINE ? "online" : wire.status === AgentStatus.OFFLINE ? "offline" : "unknown";
  const [createdAt, lastSeenAt] = [dateOf(wire.createdAt), dateOf(wire.lastSeenAt)];
  return { id, name, type, capabilities, groups, location, metadata, role, status, tenant, createdAt, lastSeenAt, suspended, registeredBy };
}

export async function register(caller: Caller, registration: Partial<Registration>, options: CallOptions): Promise<Registered> {
  const { name = "", type = "", capabilities = [], metadata = {}, location = "" } = registration;
  const request = () => ({ name, type, capabilities: [...capabilities], metadata: { ...metadata }, location });
  const answer = await caller.call("register", { method: AgentRegistry.method.register, request, ...options });
  if (answer.agent === undefined) throw malformed("register: the hub answered without an agent");
  return new Registered(agentOf(answer.agent), answer.apiKey);
}

export async function registerOther(caller: Caller, registration: Registration, options: CallOptions): Promise<Registered> {
  if (typeof registration.name !== "string" || registration.name === "") {
    throw new AcbError("INVALID_ARGUMENT", "AGENT_NAME_INVALID", "register: say the new agent's name");
  }
  return await register(caller, registration, options);
}

export async function unregister(caller: Caller, name: string, options: CallOptions): Promise<void> {
  await caller.call("unregister", { method: AgentRegistry.method.unregister, request: () => ({ name }), ...options });
}

export async function heartbeat(caller: Caller, options: CallOptions): Promise<number> {
  const answer = await caller.call("heartbeat", { method: AgentRegistry.method.heartbeat, request: () => ({}), ...options });
  return Math.max(answer.intervalSeconds, 1) * 1000;
}

export function heartbeats(caller: Caller, stopped: () => void): Heartbeats {
  const ending = new AbortController();
  const { signal } = ending;
  const beat = async () => {
    let interval = 10_000;
    while (!signal.aborted) {
      try {
        // Half of it, so that a late one is not too late.
        interval = (await heartbeat(caller, { signal })) / 2;
      } catch (error) {
        if (signal.aborted) return;
        caller.platform.log.warn("a heartbeat failed", { error: isOurs(error) ? error.message : String(error) });
      }
      await clock.sleep(Math.max(interval, 1_000), signal).catch(() => undefined);
    }
  };
  void beat();
  const stop = () => {
    ending.abort();
    stopped();
  };
  return { stop, [Symbol.dispose]: stop };
}

export async function agent(caller: Caller, name: string, options: CallOptions): Promise<AgentInfo> {
  return agentOf(await caller.call("get agent", { method: AgentRegistry.method.getAgent, request: () => ({ name }), ...options }));
}

export function agents(caller: Caller, options: CallOptions): AsyncGenerator<AgentInfo, void, undefined> {
  return pages(async (pageToken) => {
    const page = await caller.call("list agents", { method: AgentRegistry.method.listAgents, request: () => ({ pageToken }), ...options });
    return { items: page.agents.map(agentOf), next: page.nextPageToken };
  });
}

export function discover(caller: Caller, criteria: Criteria, options: CallOptions): AsyncGenerator<AgentInfo, void, undefined> {
  const { type = "", capabilities = [], metadata = {} } = criteria;
  return pages(async (pageToken) => {
    const request = () => ({ type, capabilities: [...capabilities], metadata: { ...metadata }, pageToken });
    const page = await caller.call("discover", { method: AgentRegistry.method.discover, request, ...options });
    return { items: page.agents.map(agentOf), next: page.nextPageToken };
  });
}

/** Credentials to a call. */
const PAGE = 500;

function credentialOf(wire: WireCredential): CredentialInfo {
  const kind =
    wire.kind === Credential_Kind.API_KEY ? "apiKey" : wire.kind === Credential_Kind.SERVICE_ACCOUNT ? "serviceAccount" : "unknown";
  const [createdAt, expiresAt, lastUsedAt] = [dateOf(wire.createdAt), dateOf(wire.expiresAt), dateOf(wire.lastUsedAt)];
  return { agent: wire.agent, agentId: wire.agentId, kind, name: wire.name, createdAt, expiresAt, lastUsedAt };
}

export function credentials(caller: Caller, of: string, options: CallOptions): AsyncGenerator<CredentialInfo, void, undefined> {
  return pages(async (pageToken) => {
    const request = () => ({ agent: of, pageSize: PAGE, pageToken });
    const page = await caller.call("list credentials", { method: CredentialService.method.listCredentials, request, ...options });
    return { items: page.credentials.map(credentialOf), next: page.nextPageToken };
  });
}
