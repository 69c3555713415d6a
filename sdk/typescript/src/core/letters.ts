/** Dead letters: messages that nobody took. */

import {
  type DeadLetter as WireLetter,
  type DeadLetterOutcome as WireOutcome,
  DeadLetterReason as WireReason,
  DeadLetterService,

} from "../gen/acb/v1/dead_letter_pb.js";
import { type Caller, type CallOptions, ATTEMPT, pages } from "./caller.js";
import { AcbError, codeOf, malformed } from "./error.js";
import { Message } from "./message.js";
import { type Address, addressOf, dateOf, type Kind, kindOf, timestamp, wireAddress } from "./wire.js";

/** The most that one call names. */
const MOST_NAMED = 100;

/** Why a message is a dead letter: nobody took it before it expired; it was tried ten times; or it was to be sent later, and its sender or its recipient was gone then. */
export type DeadLetterReason = "expired" | "attempts" | "senderRefused" | "recipientGone" | "unknown";

export type DeadLetterState = "open" | "replayed" | "dropped" | "unknown";

const REASONS: readonly DeadLetterReason[] = ["unknown", "expired", "attempts", "senderRefused", "recipientGone"];
const STATES: readonly DeadLetterState[] = ["unknown", "open", "replayed", "dropped"];

/** A letter without its content. */
export interface DeadLetter {
  /** Names the letter. A message that two members of a group gave up on is two letters. */
  readonly id: string;
  readonly messageId: string;
  readonly reason: DeadLetterReason;
  /** How often the message was tried; 0 where it expired. */
  readonly attempts: number;
  readonly sender: string;
  /** Whose mailbox it was in: an agent, a group or all. */
  readonly recipient: Address | undefined;
  readonly topic: string;
  readonly kind: Kind;
  /** Bytes of the payload. */
  readonly size: number;
  readonly sentAt: Date | undefined;
  readonly expiresAt: Date | undefined;
  /** When it became a letter. */
  readonly deadAt: Date | undefined;
  readonly state: DeadLetterState;
  /** The id of the message that it was sent again as; empty where it was not. */
  readonly replayedAs: string;
  readonly settledAt: Date | undefined;
}

/** Which dead letters; what is not said is not asked for. Without anything: all open ones that the caller may see. */
export interface Letters {
  readonly reason?: Exclude<DeadLetterReason, "unknown">;
  /** Only what this agent sent. */
  readonly from?: string;
  /** Only what was in this mailbox. */
  readonly to?: string | { readonly group: string } | { readonly all: true };
  /** Only those that became letters at this time or later. */
  readonly since?: Date;
  /** Only those that became letters before this time. */
  readonly until?: Date;
  /** Also those that were replayed or dropped. */
  readonly includeSettled?: boolean;
}

/** What something is done with: dead letters by their ids, or all open ones that match. */
export type WhichLetters = string | readonly string[] | Letters;

/** What became of one letter. */
export interface DeadLetterOutcome {
  readonly id: string;
  readonly state: DeadLetterState;
  /** The id of the message that it was sent again as; empty where it was not. */
  readonly replayedAs: string;
  /** Whether it was so before this call. */
  readonly before: boolean;
  /** Set where it failed. The other letters of the call went on. */
  readonly failure: AcbError | undefined;
}

function letterOf(wire: WireLetter): DeadLetter {
  return {
    id: wire.id,
    messageId: wire.messageId,
    reason: REASONS[wire.reason] ?? "unknown",
    attempts: wire.attempts,
    sender: wire.sender,
    recipient: addressOf(wire.recipient),
    topic: wire.topic,
    kind: kindOf(wire.type),
    size: Number(wire.size),
    sentAt: dateOf(wire.sentAt),
    expiresAt: dateOf(wire.expiresAt),
    deadAt: dateOf(wire.deadAt),
    state: STATES[wire.state] ?? "unknown",
    replayedAs: wire.replayedAs,
    settledAt: dateOf(wire.settledAt),
  };
}

function outcomeOf(wire: WireOutcome): DeadLetterOutcome {
  const { id, replayedAs, before, failure } = wire;
  const error = failure && new AcbError(codeOf(failure.code), failure.reason, failure.message);
  return { id, state: STATES[wire.state] ?? "unknown", replayedAs, before, failure: error };
}

function filterOf(letters: Letters): object {
  const { reason, from, to, since, until, includeSettled = false } = letters;
  return {
    reason: (reason === undefined ? 0 : Math.max(0, REASONS.indexOf(reason))) as WireReason,
    sender: from ?? "",
    ...(to === undefined ? {} : { recipient: wireAddress(to) }),
    ...(since === undefined ? {} : { since: timestamp(since) }),
    ...(until === undefined ? {} : { until: timestamp(until) }),
    includeSettled,
  };
}

/** The pages of a selection: named letters are so many to a call, and their number is the token. */
export function selection(which: WhichLetters, token: string): { selection: object; next: string | undefined } {
  if (typeof which !== "string" && !Array.isArray(which)) {
    return { selection: { filter: filterOf(which as Letters), pageToken: token }, next: undefined };
  }
  const ids = typeof which === "string" ? [which] : (which as readonly string[]);
  const from = token === "" ? 0 : Number(token);
  const until = Math.min(ids.length, from + MOST_NAMED);
  return { selection: { ids: ids.slice(from, until) }, next: until < ids.length ? String(until) : "" };
}

export function deadLetters(caller: Caller, letters: Letters, options: CallOptions): AsyncGenerator<DeadLetter, void, undefined> {
  const filter = filterOf(letters);
  return pages(async (pageToken) => {
    const request = () => ({ filter, pageToken });
    const page = await caller.call("list dead letters", { method: DeadLetterService.method.listDeadLetters, request, ...options });
    return { items: page.deadLetters.map(letterOf), next: page.nextPageToken };
  });
}

export async function deadLetter(caller: Caller, id: string, options: CallOptions): Promise<{ letter: DeadLetter; message: Message }> {
  const method = DeadLetterService.method.getDeadLetter;
  const { deadLetter, message } = await caller.call("get dead letter", { method, request: () => ({ id }), ...options });
  if (deadLetter === undefined || message === undefined) throw malformed("get dead letter: the hub answered without one");
  return { letter: letterOf(deadLetter), message: new Message(message) };
}

/** A call may take twice as long as others. */
const LONG = ATTEMPT * 2;

export function replayDeadLetters(
  caller: Caller,
  which: WhichLetters,
  to: string | undefined,
  options: CallOptions,
): AsyncGenerator<DeadLetterOutcome, void, undefined> {
  return pages(async (pageToken) => {
    const { selection: part, next } = selection(which, pageToken);
    const request = () => ({ selection: part, ...(to === undefined ? {} : { to: wireAddress(to) }) });
    const method = DeadLetterService.method.replayDeadLetters;
    const page = await caller.call("replay dead letters", { method, request, withinMs: LONG, ...options });
    return { items: page.outcomes.map(outcomeOf), next: next ?? page.nextPageToken };
  });
}

export function dropDeadLetters(
  caller: Caller,
  which: WhichLetters,
  options: CallOptions,
): AsyncGenerator<DeadLetterOutcome, void, undefined> {
  return pages(async (pageToken) => {
    const { selection: part, next } = selection(which, pageToken);
    const method = DeadLetterService.method.dropDeadLetters;
    const page = await caller.call("drop dead letters", { method, request: () => ({ selection: part }), withinMs: LONG, ...options });
    return { items: page.outcomes.map(outcomeOf), next: next ?? page.nextPageToken };
  });
}

