/** Messages: what is sent, and what was received. */

import { create, type MessageShape } from "@bufbuild/protobuf";

import { type Message as WireMessage, OutgoingMessageSchema } from "../gen/acb/v1/message_pb.js";
import { failure } from "./error.js";
import type { Ticket } from "./inbox.js";
import { known } from "./known.js";
import { decodeJson, decodeText, encode, type Payload, PAYLOAD_KEYS, type Schema, validated } from "./payload.js";
import { type Address, addressOf, dateOf, type Kind, kindOf, messageType, type Recipient, timestamp, utf8, wireAddress } from "./wire.js";
import { present } from "./work.js";

/** The metadata entry in which an answer says that there is none, and why. */
export const FAILURE = "acb-failure";
/** The most of a reason that is sent, in bytes. All metadata of a message may have 16 KiB. */
const MOST_OF_REASON = 4096;

/** What an answer can say; where it goes is decided by what it answers. */
export interface Answer extends Payload {
  /** What receivers choose their handler by; of an answer that of the question, unless said otherwise. */
  readonly topic?: string;
  /** A shared context that the message is about, instead of embedding it. */
  readonly contextId?: string;
  /** Ties messages of one exchange together. */
  readonly correlationId?: string;
  /** Any further fact. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Goes to the dead letters where nobody took it in this time. At most, and unless said otherwise, 6 days. */
  readonly expiresInMs?: number;
  /** A key of the caller's own, where the same message may be made again after a restart. Otherwise each call makes one. */
  readonly idempotencyKey?: string;
  /** The W3C trace context that the message belongs to. */
  readonly traceparent?: string;
  readonly tracestate?: string;
  /** Says that there is no answer, and why: {@link Received.failure} of whoever asked. */
  readonly failure?: string;
}

/**
 * A message to send.
 *
 * ```ts
 * await agent.send({ to: { all: true }, topic: "status", json: { ready: true }, metadata: { priority: "high" }, expiresInMs: 60_000 });
 * ```
 */
export interface OutgoingMessage extends Answer {
  /** Where it goes. */
  readonly to: Recipient;
  /** Event (the default), command, query or response. */
  readonly kind?: Kind;
  /** Sends replies to this agent's mailbox, to be received later. */
  readonly replyTo?: string;
}

const ANSWER_KEYS = [
  ...PAYLOAD_KEYS,
  ...["topic", "contextId", "correlationId", "metadata", "expiresInMs", "idempotencyKey", "traceparent", "tracestate", "failure"],
];
const MESSAGE_KEYS = ["to", "kind", "replyTo", ...ANSWER_KEYS];

/** What came of a sent message. */
export interface Sent {
  /** Of the first message with this idempotency key. */
  readonly messageId: string;
  /** Whether the message had been sent before. */
  readonly deduplicated: boolean;
}

export type WireOutgoing = MessageShape<typeof OutgoingMessageSchema>;

/** Checks a message, and gives it its idempotency key. */
export function build(message: OutgoingMessage, kind: Kind = message.kind ?? "event"): WireOutgoing {
  known("a message", message, MESSAGE_KEYS);
  return outgoing(message, message.to, kind, message.replyTo);
}

/** The answer to a received message: addressed, with correlation and trace carried on. */
export function answering(answer: Answer, to: WireMessage): WireOutgoing {
  known("an answer", answer, ANSWER_KEYS);
  const correlationId = to.correlationId === "" ? to.id : to.correlationId;
  const filled: Answer = {
    ...answer,
    topic: given(answer.topic) ?? to.topic,
    correlationId: given(answer.correlationId) ?? correlationId,
    ...(given(answer.traceparent) === undefined && to.traceparent !== "" ? { traceparent: to.traceparent, tracestate: to.tracestate } : {}),
  };
  return outgoing(filled, addressOf(to.replyTo) ?? to.from, "response", undefined);
}

function given(text: string | undefined): string | undefined {
  return text === "" ? undefined : text;
}

function outgoing(message: Answer, to: Address, kind: Kind, replyTo: string | undefined): WireOutgoing {
  const { payload, contentType } = encode(message);
  const metadata: Record<string, string> = { ...message.metadata };
  if (message.failure !== undefined) metadata[FAILURE] = cut(message.failure);
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== "string") throw failure("USAGE", `metadata ${JSON.stringify(key)} is no text`);
  }
  const work = present();
  const named = given(message.traceparent) !== undefined;
  const { expiresInMs } = message;
  if (expiresInMs !== undefined && !(expiresInMs > 0)) throw failure("USAGE", `a message can't expire in ${expiresInMs} ms`);
  return create(OutgoingMessageSchema, {
    to: wireAddress(to),
    topic: message.topic ?? "",
    type: messageType(kind),
    contentType,
    payload,
    contextId: message.contextId ?? "",
    idempotencyKey: message.idempotencyKey ?? crypto.randomUUID(),
    correlationId: given(message.correlationId) ?? work.correlationId ?? "",
    ...(replyTo === undefined ? {} : { replyTo: wireAddress(replyTo) }),
    metadata,
    ...(expiresInMs === undefined ? {} : { expiresAt: timestamp(new Date(Date.now() + expiresInMs))! }),
    traceparent: (named ? message.traceparent : work.traceparent) ?? "",
    tracestate: (named ? message.tracestate : work.tracestate) ?? "",
  });
}

/** At most so many bytes, cut between characters. */
function cut(reason: string): string {
  const bytes = utf8.encoder.encode(reason);
  if (bytes.length <= MOST_OF_REASON) return reason;
  let end = MOST_OF_REASON;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return utf8.decoder.decode(bytes.subarray(0, end));
}

/** A message as it is read, wherever it was found. `T` is what its payload is expected to be as JSON. */
export class Message<T = unknown> {
  /** @internal */
  readonly wire: WireMessage;

  /** @internal */
  constructor(wire: WireMessage) {
    this.wire = wire;
    Object.defineProperty(this, "wire", { enumerable: false });
  }

  /** A UUIDv7 of the hub that accepted the message. */
  get id(): string {
    return this.wire.id;
  }

  /** The sender's name. */
  get from(): string {
    return this.wire.from;
  }

  /** Whom it is for. */
  get to(): Address | undefined {
    return addressOf(this.wire.to);
  }

  get topic(): string {
    return this.wire.topic;
  }

  get kind(): Kind {
    return kindOf(this.wire.type);
  }

  get contentType(): string {
    return this.wire.contentType;
  }

  /** The payload as it came. */
  get payload(): Uint8Array {
    return this.wire.payload;
  }

  /** A shared context that the message is about; empty where there is none. */
  get contextId(): string {
    return this.wire.contextId;
  }

  /** What ties the message to others: what its sender named, or its own id. */
  get correlationId(): string {
    return this.wire.correlationId === "" ? this.wire.id : this.wire.correlationId;
  }

  /** Where an answer goes; undefined: to the sender. */
  get replyTo(): Address | undefined {
    return addressOf(this.wire.replyTo);
  }

  get metadata(): Readonly<Record<string, string>> {
    return this.wire.metadata;
  }

  get sentAt(): Date | undefined {
    return dateOf(this.wire.sentAt);
  }

  /** Of a question: when its caller stops waiting. */
  get expiresAt(): Date | undefined {
    return dateOf(this.wire.expiresAt);
  }

  get idempotencyKey(): string {
    return this.wire.idempotencyKey;
  }

  /** The id of the dead letter's message that this one is a replay of; empty where it is none. */
  get replayedFrom(): string {
    return this.wire.replayedFrom;
  }

  get traceparent(): string {
    return this.wire.traceparent;
  }

  get tracestate(): string {
    return this.wire.tracestate;
  }

  /** How many milliseconds it is still of use: a question as long as its caller waits for the answer, any other message until it expires. By this machine's clock. */
  get timeLeftMs(): number {
    return Math.max(0, (this.expiresAt?.getTime() ?? 0) - Date.now());
  }

  /** Why there is no answer, where the message is one that says so. */
  get failure(): string | undefined {
    return this.wire.metadata[FAILURE];
  }

  /** The payload as text. */
  text(): string {
    return decodeText(this.wire.payload, this.#name());
  }

  /** The payload, decoded from JSON. That it is a `T` is taken for granted: {@link parse} checks it. */
  json<U = T>(): U {
    return decodeJson(this.wire.payload, this.#name()) as U;
  }

  /** The payload, decoded from JSON and checked by a schema. */
  async parse<U>(schema: Schema<U>): Promise<U> {
    return await validated(schema, this.json(), this.#name());
  }

  #name(): string {
    return `the payload of message ${this.wire.id} (topic ${JSON.stringify(this.wire.topic)})`;
  }

  toJSON(): object {
    const { id, from, to, topic, kind, contentType, contextId, correlationId, metadata, sentAt, expiresAt } = this;
    return { id, from, to, topic, kind, contentType, contextId, correlationId, metadata, sentAt, expiresAt, size: this.payload.length };
  }

  /** Without its payload, and without methods. */
  [Symbol.for("nodejs.util.inspect.custom")](): object {
    return this.toJSON();
  }
}

/** What a received message answers by. */
export interface Replier {
  reply(to: Message, answer: Answer, options?: { signal?: AbortSignal }): Promise<Sent>;
}

/** Where nobody settles a message and nobody has it any more, it may be delivered again. */
const abandoned = new FinalizationRegistry<Ticket>((ticket) => ticket.release());

/**
 * A received message. Until it is acknowledged the hub keeps it, and delivers it again. One that is neither acknowledged nor released counts as
 * being worked at: the hub hears so.
 */
export class Received<T = unknown> extends Message<T> {
  readonly #ticket: Ticket | undefined;
  readonly #replier: Replier;
  #answered = false;
  /** Whether it may have been delivered before. */
  readonly redelivered: boolean;
  /** The how-manieth delivery this is. */
  readonly attempt: number;

  /** @internal A message without a ticket did not come through a mailbox. */
  constructor(wire: WireMessage, replier: Replier, ticket?: Ticket, redelivered = false, attempt = 1) {
    super(wire);
    this.#replier = replier;
    this.#ticket = ticket;
    this.redelivered = redelivered;
    this.attempt = attempt;
    if (ticket !== undefined) abandoned.register(this, ticket);
  }

  /** @internal The application begins with it. The hub counts that where the message may have been delivered before. */
  start(): void {
    if (this.redelivered) this.#ticket?.start();
  }

  /** @internal Whether its sender wants an answer that was not given yet. */
  get wantsAnswer(): boolean {
    return !this.#answered && (this.kind === "query" || this.replyTo !== undefined);
  }

  /** Says that the message was handled: it is not delivered again. */
  ack(): void {
    this.#ticket?.ack();
  }

  /** Gives it back: it is delivered again, after 30 seconds at the earliest, and after ten attempts goes to the dead letters. */
  release(): void {
    this.#ticket?.release();
  }

  /** Answers: to the message's `replyTo`, or else to its sender. */
  async reply(answer: Answer, options: { signal?: AbortSignal } = {}): Promise<Sent> {
    this.#answered = true;
    return await this.#replier.reply(this, answer, options);
  }
}

