/** The audit trail of the tenant. */

import { fromBinary } from "@bufbuild/protobuf";

import {
  type AuditRecord as WireRecord,
  AuditPhase,
  AuditRecordSchema,
  AuditService,
  type FollowAuditRecordsResponse,
  type LoggedAuditRecord as WireLogged,
} from "../gen/acb/v1/audit_pb.js";
import { type Caller, type CallOptions, pages } from "./caller.js";
import { failure, malformed } from "./error.js";
import { Following } from "./following.js";
import { known } from "./known.js";
import { dateOf, timestamp } from "./wire.js";

/** Records to a call. */
const PAGE = 1_000;

/** Which audit records; what is not said is not asked for. */
export interface AuditQuery extends CallOptions {
  /** Only those of this time or later. */
  readonly since?: Date;
  /** Only those of before this time. */
  readonly until?: Date;
  /** Only those of this agent. */
  readonly agent?: string;
  /** Only those of this operation, such as `GetContext`. */
  readonly operation?: string;
  /** Only those with this number or a higher one. */
  readonly first?: number;
}

/** A record as the log has it. */
export interface LoggedAuditRecord {
  /** The number of its leaf. */
  readonly number: number;
  /** Byte for byte as in the log: the leaf is the hash of these bytes. {@link auditRecord} reads them. */
  readonly record: Uint8Array;
  /** The hash that the tree has for it, 32 bytes. Empty: the tree has no such leaf. */
  readonly leafHash: Uint8Array;
}

/** What a record says. There is no payload in it, and no secret. */
export interface AuditRecord {
  /** A UUID, 16 bytes: the same in all records of one call. */
  readonly call: Uint8Array;
  readonly phase: "intent" | "outcome" | "begin" | "end" | "refusals" | "gap" | "unknown";
  readonly at: Date;
  readonly replica: string;
  /** Such as `GetContext`. */
  readonly operation: string;
  readonly agentId: Uint8Array;
  readonly agent: string;
  /** The prefix of its API key. */
  readonly key: string;
  /** What it was about, such as `context 0190…`. */
  readonly object: string;
  readonly objectVersion: number;
  readonly bytes: number;
  readonly source: string;
  /** `done`, `left`, `ended`, `refused`, `missing`, or the code of a failure in lower case. Empty: not known yet. */
  readonly outcome: string;
  readonly reason: string;
  readonly correlationId: string;
  /** Of refusals, how many. */
  readonly count: number;
  /** Of what the operator did, what changed. */
  readonly change: string;
}

/** The latest checkpoint of the audit trail. */
export interface AuditCheckpoint {
  /** A signed note (C2SP tlog-checkpoint). */
  readonly note: string;
  /** The size of the tree that it is about. */
  readonly size: number;
  readonly signedAt: Date | undefined;
  /** Every key that signed a checkpoint, the latest first, as C2SP verifier keys. Who keeps one needs not to trust the hub for it. */
  readonly verifiers: readonly string[];
}

/** What can be proved of the tree over the records: a record is in the tree of this size; a tree is the beginning of a larger one; the hashes of the subtrees of the first so many records. */
export type AuditClaim =
  | { readonly inclusion: { readonly number: number; readonly size: number } }
  | { readonly consistency: { readonly first: number; readonly second: number } }
  | { readonly prefix: number };

const PHASES: Partial<Record<AuditPhase, AuditRecord["phase"]>> = {
  [AuditPhase.INTENT]: "intent",
  [AuditPhase.OUTCOME]: "outcome",
  [AuditPhase.BEGIN]: "begin",
  [AuditPhase.END]: "end",
  [AuditPhase.REFUSALS]: "refusals",
  [AuditPhase.GAP]: "gap",
};

/** What the bytes of a record say. Undefined where a newer hub wrote them, or nobody that is one. */
export function auditRecord(bytes: Uint8Array): AuditRecord | undefined {
  let wire: WireRecord;
  try {
    wire = fromBinary(AuditRecordSchema, bytes);
  } catch {
    return undefined;
  }
  if (wire.version !== 1) return undefined;
  const { call, replica, operation, agentId, agent, key, object, source, outcome, reason, correlationId, change } = wire;
  return {
    call,
    phase: PHASES[wire.phase] ?? "unknown",
    at: new Date(Number(wire.at / 1000n)),
    replica,
    operation,
    agentId,
    agent,
    key,
    object,
    objectVersion: Number(wire.objectVersion),
    bytes: Number(wire.bytes),
    source,
    outcome,
    reason,
    correlationId,
    count: Number(wire.count),
    change,
  };
}

export function auditRecords(caller: Caller, query: AuditQuery): AsyncGenerator<LoggedAuditRecord, void, undefined> {
  const { since, until, agent = "", operation = "", first = 0, signal } = query;
  const times = { ...(since && { since: timestamp(since)! }), ...(until && { until: timestamp(until)! }) };
  return pages(async (pageToken) => {
    const request = () => ({ ...times, agent, operation, first: whole(first), pageSize: PAGE, pageToken });
    const page = await caller.call("list audit records", { method: AuditService.method.listAuditRecords, request, signal });
    return { items: page.records.map(logged), next: page.nextPageToken };
  });
}

/** Which audit records to follow; what is not said is not asked for. */
export interface AuditFollowOptions {
  /** Only those of this agent. */
  readonly agent?: string;
  /** Only those of this operation, such as `GetContext`. */
  readonly operation?: string;
  /** From this number on. Without it, only what is logged from now on. */
  readonly first?: number;
  /** Ends it: what waits for a record throws the reason of the signal. */
  readonly signal?: AbortSignal;
}

/** Audit records as they are logged. */
export class AuditFollower extends Following<typeof AuditService.method.followAuditRecords, LoggedAuditRecord> {
  readonly #filter: { readonly agent: string; readonly operation: string };
  /** Where to go on after it. Undefined: from what is logged next. */
  #next: number | undefined;

  /** @internal */
  constructor(caller: Caller, options: AuditFollowOptions, forget: () => void) {
    known("what is followed", options, FOLLOW_KEYS);
    const { agent = "", operation = "", first, signal } = options;
    if (first !== undefined) whole(first);
    super(caller, AuditService.method.followAuditRecords, "follow audit records", signal, forget);
    this.#filter = { agent, operation };
    this.#next = first;
  }

  /** The number to go on from, as `first`, after the record that came last. */
  get nextNumber(): number {
    return this.waiting?.number ?? this.#next ?? 0;
  }

  protected request() {
    return { ...this.#filter, ...(this.#next === undefined ? {} : { first: whole(this.#next) }) };
  }

  protected take({ records, next }: FollowAuditRecordsResponse): LoggedAuditRecord[] {
    this.#next = Number(next);
    return records.map(logged);
  }
}

const FOLLOW_KEYS: readonly (keyof AuditFollowOptions)[] = ["agent", "operation", "first", "signal"];

function logged({ number, record, leafHash }: WireLogged): LoggedAuditRecord {
  return { number: Number(number), record, leafHash };
}

export async function auditCheckpoint(caller: Caller, options: CallOptions): Promise<AuditCheckpoint> {
  const method = AuditService.method.getAuditCheckpoint;
  const { note, size, signedAt, verifiers } = await caller.call("get audit checkpoint", { method, request: () => ({}), ...options });
  return { note, size: Number(size), signedAt: dateOf(signedAt), verifiers };
}

export async function auditProof(caller: Caller, claim: AuditClaim, options: CallOptions): Promise<Uint8Array[]> {
  const wire = wireClaim(claim);
  const method = AuditService.method.getAuditProof;
  const { hashes } = await caller.call("get audit proof", { method, request: () => ({ claim: wire }), ...options });
  if (hashes.some((hash) => hash.length !== 32)) throw malformed("get audit proof: the hub answered with what are no hashes");
  return hashes;
}

function wireClaim(claim: AuditClaim) {
  if ("inclusion" in claim) {
    const { number, size } = claim.inclusion;
    return { case: "inclusion" as const, value: { number: whole(number), size: whole(size) } };
  }
  if ("consistency" in claim) {
    const { first, second } = claim.consistency;
    return { case: "consistency" as const, value: { first: whole(first), second: whole(second) } };
  }
  return { case: "prefix" as const, value: whole(claim.prefix) };
}

function whole(number: number): bigint {
  if (!Number.isSafeInteger(number) || number < 0) throw failure("USAGE", `${number} is no number of a record`);
  return BigInt(number);
}
