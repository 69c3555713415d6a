/** Follows the contexts of one type, over broken connections. */

import type { MessageInitShape } from "@bufbuild/protobuf";

import {
  type ContextEvent as WireEvent,
  ContextEvent_Kind as WireKind,
  ContextService,
  type Position as WirePosition,
  type SubscribeRequestSchema,
} from "../gen/acb/v1/context_pb.js";
import type { Caller } from "./caller.js";
import { Context } from "./contexts.js";
import { failure } from "./error.js";
import { Following } from "./following.js";
import { timestamp } from "./wire.js";

/** Where a subscription stands in one partition of the log. Its numbers are decimal texts, as in JSON: they may be larger than a `number` holds exactly. */
export interface Position {
  readonly epoch: string;
  readonly partition: number;
  readonly offset: string;
}

/** Where a subscription starts: with the next change, with the oldest that the log still holds, after these positions, or with the first change at this time or later. */
export type Since = "now" | "start" | { readonly after: readonly Position[] } | { readonly time: Date };

/** A change of a context. */
export interface ContextEvent {
  /** `left`: the context was updated and does not match the filter any more, or is not for this agent any more. */
  readonly kind: "created" | "updated" | "deleted" | "left";
  /** Of `deleted` and `left` only id, type and version are set. */
  readonly context: Context;
  readonly position: Position | undefined;
}

export interface SubscribeOptions {
  /** Where it starts; with the next change unless said otherwise. */
  readonly since?: Since;
  /** A CEL expression over `context`: only changes of contexts that match are told, and `left` of those that no longer do. */
  readonly filter?: string;
  /** Ends it: what waits for an event throws the reason of the signal. */
  readonly signal?: AbortSignal;
}

const KINDS: Partial<Record<WireKind, ContextEvent["kind"]>> = {
  [WireKind.CREATED]: "created",
  [WireKind.UPDATED]: "updated",
  [WireKind.DELETED]: "deleted",
  [WireKind.LEFT]: "left",
};

/** Changes of the contexts of one type. */
export class Subscription extends Following<typeof ContextService.method.subscribe, ContextEvent> {
  readonly #type: string;
  readonly #filter: string;
  readonly #since: Since;
  readonly #positions = new Map<number, Position>();
  /** Whether the hub has said where this subscription stands. Without a position that is before the first record of the log. */
  #stands: boolean;

  /** @internal */
  constructor(caller: Caller, type: string, options: SubscribeOptions, forget: () => void) {
    const { since = "now", filter = "", signal } = options;
    super(caller, ContextService.method.subscribe, `subscribe to ${JSON.stringify(type)}`, signal, forget);
    this.#type = type;
    this.#filter = filter;
    this.#since = since;
    this.#stands = typeof since === "object" && "after" in since;
    if (typeof since === "object" && "after" in since) for (const position of since.after) this.#positions.set(position.partition, position);
  }

  /** Where the subscription stands, to go on later with `{ after: … }`. As JSON it can be kept. */
  positions(): Position[] {
    return [...this.#positions.values()].sort((a, b) => a.partition - b.partition);
  }

  protected take(event: WireEvent): ContextEvent[] {
    this.#stands = true;
    for (const position of event.positions) this.#positions.set(position.partition, positionOf(position));
    if (event.position !== undefined) this.#positions.set(event.position.partition, positionOf(event.position));
    const kind = KINDS[event.kind];
    // The two that only say where the subscription stands have none.
    if (kind === undefined || event.context === undefined) return [];
    const { position } = event;
    return [{ kind, context: new Context(event.context), position: position && positionOf(position) }];
  }

  protected request(): MessageInitShape<typeof SubscribeRequestSchema> {
    const since = this.#since;
    const base = { type: this.#type, filter: this.#filter };
    if (this.#stands) return { ...base, from: { case: "after", value: { positions: this.positions().map(wirePosition) } } };
    if (since === "start") return { ...base, from: { case: "start", value: true } };
    if (typeof since === "object" && "time" in since) return { ...base, from: { case: "time", value: timestamp(since.time)! } };
    return { ...base, from: { case: "now", value: true } };
  }
}

function positionOf(wire: WirePosition): Position {
  return { epoch: wire.epoch.toString(), partition: wire.partition, offset: wire.offset.toString() };
}

function wirePosition(position: Position): { epoch: bigint; partition: number; offset: bigint } {
  try {
    return { epoch: BigInt(position.epoch), partition: position.partition, offset: BigInt(position.offset) };
  } catch {
    throw failure("USAGE", `${JSON.stringify(position)} is no position`);
  }
}
