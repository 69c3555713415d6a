/** Shared contexts: typed, versioned payloads with a scope. */

import { type Access as WireAccess, type Context as WireContext, ContextService, Scope as WireScope } from "../gen/acb/v1/context_pb.js";
import { type Caller, type CallOptions, pages } from "./caller.js";
import { failure } from "./error.js";
import { known } from "./known.js";
import { decodeJson, decodeText, encode, encodeAlone, type Payload, PAYLOAD_KEYS } from "./payload.js";
import { dateOf, duration } from "./wire.js";

/** Who may read a context: all agents of the tenant, its creator, the members of these groups, or these agents. */
export type Scope = "public" | "private" | { readonly groups: readonly string[] } | { readonly agents: readonly string[] };

/** How a payload is shared, inline or streamed. */
export interface Sharing {
  /** Who may read it; everyone in the tenant unless said otherwise. */
  readonly scope?: Scope;
  /** Deleted after this time; kept until deleted unless said otherwise. */
  readonly ttlMs?: number;
  /** Any further fact. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** A scope that is misspelt must not make it public. */
export const SHARING_KEYS: readonly (keyof Sharing)[] = ["scope", "ttlMs", "metadata"];

/** How a small payload is shared. */
export interface ShareOptions extends Sharing, CallOptions {
  /** A key of the caller's own, where the same context may be made again after a restart. */
  readonly idempotencyKey?: string;
}

/** What a new version of a context is. What is not said stays. */
export interface Update extends Payload {
  readonly metadata?: Readonly<Record<string, string>>;
  /** Deleted after this time from now on. */
  readonly ttlMs?: number;
}

/** Where a streamed payload is. */
export interface PayloadRef {
  readonly backend: string;
  readonly key: string;
  readonly size: number;
  readonly chunkCount: number;
  readonly chunkSize: number;
}

/** A shared context. */
export class Context {
  /** A UUIDv7. */
  readonly id: string;
  readonly type: string;
  /** The name of the agent that created it. */
  readonly creator: string;
  /** The inline payload; empty where {@link payloadRef} is set, and in lists. */
  readonly payload: Uint8Array;
  readonly payloadRef: PayloadRef | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** From 1; one more at each update. */
  readonly version: number;
  readonly contentType: string;
  /** The JSON Schema that the payload met, and its version. Empty where the type had none. */
  readonly schemaId: string;
  readonly schemaVersion: string;
  readonly createdAt: Date | undefined;
  readonly updatedAt: Date | undefined;
  readonly expiresAt: Date | undefined;
  /** SHA-256 of the payload, 32 bytes. */
  readonly checksum: Uint8Array;
  readonly scope: Scope;
  /** Bytes of the payload. */
  readonly size: number;

  /** @internal */
  constructor(wire: WireContext) {
    this.id = wire.id;
    this.type = wire.type;
    this.creator = wire.creator;
    this.payload = wire.payload;
    const ref = wire.payloadRef;
    this.payloadRef =
      ref && { backend: ref.backend, key: ref.key, size: Number(ref.size), chunkCount: ref.chunkCount, chunkSize: ref.chunkSize };
    this.metadata = wire.metadata;
    this.version = Number(wire.version);
    this.contentType = wire.contentType;
    this.schemaId = wire.schemaId;
    this.schemaVersion = wire.schemaVersion;
    this.createdAt = dateOf(wire.createdAt);
    this.updatedAt = dateOf(wire.updatedAt);
    this.expiresAt = dateOf(wire.expiresAt);
    this.checksum = wire.checksum;
    this.scope = scopeOf(wire.access);
    this.size = Number(wire.size);
    Object.defineProperty(this, "payload", { enumerable: false });
    Object.defineProperty(this, "checksum", { enumerable: false });
  }

  /** The inline payload as text. */
  text(): string {
    return decodeText(this.#inline(), `the payload of context ${this.id}`);
  }

  /** The inline payload, decoded from JSON. */
  json<T = unknown>(): T {
    return decodeJson(this.#inline(), `the payload of context ${this.id}`) as T;
  }

  #inline(): Uint8Array {
    if (this.payloadRef !== undefined) throw failure("USAGE", `the payload of context ${this.id} is streamed: download it`);
    return this.payload;
  }
}

function scopeOf(access: WireAccess | undefined): Scope {
  switch (access?.scope) {
    case WireScope.PRIVATE:
      return "private";
    case WireScope.GROUP:
      return { groups: access.groups };
    case WireScope.SHARED:
      return { agents: access.agents };
    default:
      return "public";
  }
}

export function accessOf(scope: Scope = "public"): { scope: WireScope; groups?: string[]; agents?: string[] } {
  if (scope === "public") return { scope: WireScope.PUBLIC };
  if (scope === "private") return { scope: WireScope.PRIVATE };
  if (typeof scope === "object" && scope !== null) {
    if ("groups" in scope) return { scope: WireScope.GROUP, groups: [...scope.groups] };
    if ("agents" in scope) return { scope: WireScope.SHARED, agents: [...scope.agents] };
  }
  // What is none must not be taken for the widest.
  throw failure("USAGE", `${JSON.stringify(scope)} is no scope: "public", "private", { groups } or { agents }`);
}

function ttlOf(ttlMs: number | undefined): object {
  return ttlMs === undefined ? {} : { ttl: duration(ttlMs) };
}

export async function share(caller: Caller, type: string, payload: Payload, options: ShareOptions): Promise<Context> {
  known("sharing", options, [...SHARING_KEYS, "idempotencyKey", "signal"]);
  const { scope, ttlMs, metadata = {}, idempotencyKey = crypto.randomUUID(), signal } = options;
  const access = accessOf(scope);
  const request = { type, ...encodeAlone(payload), metadata: { ...metadata }, ...ttlOf(ttlMs), access, idempotencyKey };
  return new Context(await caller.call("share", { method: ContextService.method.createContext, request: () => request, signal }));
}

export async function context(caller: Caller, id: string, options: CallOptions): Promise<Context> {
  return new Context(await caller.call("get context", { method: ContextService.method.getContext, request: () => ({ id }), ...options }));
}

export async function update(caller: Caller, read: Context, change: Update, options: CallOptions): Promise<Context> {
  known("an update", change, [...PAYLOAD_KEYS, "metadata", "ttlMs"]);
  const { metadata = read.metadata, ttlMs } = change;
  const fresh = encode(change);
  const request = {
    id: read.id,
    version: BigInt(read.version),
    payload: fresh.payload,
    contentType: fresh.contentType === "" ? read.contentType : fresh.contentType,
    metadata: { ...metadata },
    ...ttlOf(ttlMs),
  };
  // Its first try may have been the change.
  const call = { method: ContextService.method.updateContext, request: () => request, retry: "beforeSent", ...options } as const;
  return new Context(await caller.call("update context", call));
}

export async function setAccess(caller: Caller, id: string, scope: Scope, options: CallOptions): Promise<Context> {
  const access = accessOf(scope);
  const method = ContextService.method.setContextAccess;
  // Said twice it is what it was after the first time.
  return new Context(await caller.call("set context access", { method, request: () => ({ id, access }), ...options }));
}

export async function deleteContext(caller: Caller, id: string, options: CallOptions): Promise<void> {
  const method = ContextService.method.deleteContext;
  await caller.call("delete context", { method, request: () => ({ id }), retry: "beforeSent", ...options });
}

/** Which contexts of a list. */
export interface ContextQuery extends CallOptions {
  /** Of any type where it is left out. */
  readonly type?: string;
  /** Those that match: a CEL expression over `context`, such as `context.creator == "writer"`. */
  readonly filter?: string;
}

export function contexts(caller: Caller, query: ContextQuery): AsyncGenerator<Context, void, undefined> {
  const { type = "", filter = "", signal } = query;
  return pages(async (pageToken) => {
    const request = () => ({ type, filter, pageToken });
    const page = await caller.call("list contexts", { method: ContextService.method.listContexts, request, signal });
    return { items: page.contexts.map((wire) => new Context(wire)), next: page.nextPageToken };
  });
}
