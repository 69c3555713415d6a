/** What drives a session: one connection after another, and what has to outlive each of them. */

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";

import {
  MessageService,
  OutgoingMessageSchema,
  type SessionRequest,
  type SessionRequest_Open,
  SessionRequest_OpenSchema,
  type SessionRequestSchema,
  type SessionResponse,
  type SessionResponse_Delivery,
  type SessionResponse_Sent,
} from "../gen/acb/v1/message_pb.js";
import { clock, Limited, type Patience } from "./backoff.js";
import { ATTEMPT, type Caller, type Line, type Renewal } from "./caller.js";
import { AcbError, codeOf, during, failure, isOurs, malformed } from "./error.js";
import { Inbox } from "./inbox.js";
import { Received, type Replier, type Sent, type WireOutgoing } from "./message.js";
import { type Duplex, Status } from "./transport.js";
import { abortable, type Deferred, deferred, Wake, within } from "./wait.js";
import { millisecondsOf } from "./wire.js";

const MOST_PENDING = 256;
const MOST_PENDING_BYTES = 16 << 20;
/** A connection that lasted so long was of use. */
const STEADY = 10_000;
/**
 * A session that was open, and finds another program in its place, tries again for so long: a hub knows a session for 10 s after its replica was killed,
 * and so also that of a program which took over and is gone.
 */
const PRESENT_FOR = 15_000;
/** The reason of such a refusal. */
const RECEIVER_PRESENT = "RECEIVER_PRESENT";

type Frame = MessageInitShape<typeof SessionRequestSchema>;
type Stream = Duplex<typeof MessageService.method.session>;

interface Pending {
  sequence: number;
  readonly bytes: number;
  readonly message: WireOutgoing;
  readonly outcome: Deferred<Sent>;
  readonly limited: Limited;
}

/** How one connection ended: nobody wants the session any more; or it can go on with another connection; or it can't. */
type Ended = { readonly kind: "unwanted" } | { readonly kind: "broken" | "over"; readonly error: AcbError };

const UNWANTED: Ended = { kind: "unwanted" };

function broken(message: string): Ended {
  return { kind: "broken", error: failure("UNAVAILABLE", message) };
}

export interface Settings {
  readonly receive: boolean;
  readonly maxUnacknowledged: number;
  readonly filter: string;
  readonly takeOver: boolean;
  readonly reconnectForMs: number;
}

export class Driver {
  readonly #caller: Caller;
  readonly #replier: Replier;
  readonly #settings: Settings;
  /** How each connection begins: that the receiver is the same is how the hub knows the session again. */
  #open: SessionRequest_Open;
  readonly #wake = new Wake();
  readonly #inbox = new Inbox(() => this.#wake.notify());
  /** What the application has not taken yet. */
  readonly #deliveries: Received[] = [];
  /** The application waits for a delivery, and the session for room. */
  #taker: Deferred<void> | undefined;
  #room: Deferred<void> | undefined;
  /** Senders that wait until less is outstanding; the first comes first. */
  readonly #crowd: Deferred<void>[] = [];
  /** Of these, those who were let in and have not come yet: their room is taken. */
  #entering = 0;
  /** Sent or to be sent, and not acknowledged; oldest first. Outlives connections. */
  readonly #pending: Pending[] = [];
  #pendingBytes = 0;
  /** How many of the pending were sent on the current connection. */
  #written = 0;
  /** The number of a message that the hub refused on the current connection. It fails what was written behind that, until it has seen the number again. */
  #refused: number | undefined;
  /** A limit has no room before that: nothing more is sent on this session until then, so that its order stays. */
  #limitedUntil: number | undefined;
  #nextSequence = 1;
  /** Whether the present connection has brought anything yet: a message, or the outcome of one. */
  #progressed = false;
  readonly #renewal: Renewal = { renewed: false };
  #wasOpen = false;
  /** Since when each try has found another program in its place, by the clock. */
  #presentSince: number | undefined;
  #replica = "";
  #stream: Stream | undefined;
  #connected = false;
  #stopped = false;
  #closing = false;
  #gone = false;
  #end: AcbError | undefined;
  readonly #giveUp = new AbortController();
  readonly opened = deferred<void>();
  readonly over = deferred<void>();
  /** Told of the name of each replica that holds the session. */
  onReplica: ((replica: string) => void) | undefined;

  constructor(caller: Caller, replier: Replier, settings: Settings) {
    this.#caller = caller;
    this.#replier = replier;
    this.#settings = settings;
    this.#open = create(SessionRequest_OpenSchema, {
      receive: settings.receive,
      maxUnacknowledged: settings.maxUnacknowledged,
      receiver: crypto.randomUUID(),
      takeOver: settings.takeOver,
      filter: settings.filter,
    });
  }

  get replica(): string {
    return this.#replica;
  }

  /** Why the session ended, once it did. */
  get end(): AcbError | undefined {
    return this.#end;
  }

  get closing(): boolean {
    return this.#closing;
  }

  /** Takes a message to send; waits where too much is outstanding. */
  async enqueue(message: WireOutgoing, signal?: AbortSignal): Promise<{ outcome: Promise<Sent> }> {
    const bytes = toBinary(OutgoingMessageSchema, message).length;
    this.#refuseWhenOver();
    if (this.#crowd.length > 0 || !this.#hasRoom()) {
      const turn = deferred<void>();
      this.#crowd.push(turn);
      try {
        await abortable(turn.promise, signal);
      } catch (error) {
        const at = this.#crowd.indexOf(turn);
        if (at >= 0) this.#crowd.splice(at, 1);
        else this.#comeIn();
        this.#letIn();
        throw error;
      }
      this.#comeIn();
      this.#refuseWhenOver();
    }
    const outcome = deferred<Sent>();
    this.#pending.push({ sequence: this.#nextSequence++, bytes, message, outcome, limited: new Limited() });
    this.#pendingBytes += bytes;
    this.#letIn();
    this.#wake.notify();
    return { outcome: outcome.promise };
  }

  /** The next delivery; undefined where the session was closed. Throws its end. */
  async next(signal?: AbortSignal): Promise<Received | undefined> {
    for (;;) {
      signal?.throwIfAborted();
      const received = this.#deliveries.shift();
      this.#room?.resolve();
      if (received !== undefined) {
        received.start();
        return received;
      }
      if (this.#closing || this.#stopped) return undefined;
      if (this.#end !== undefined) throw this.#end;
      this.#taker ??= deferred<void>();
      await abortable(this.#taker.promise, signal);
    }
  }

  /** Hands over nothing more; what the application has it can still acknowledge. */
  stop(): void {
    this.#stopped = true;
    for (const received of this.#deliveries.splice(0)) received.release();
    this.#hurry();
  }

  /** Ends the session in order: what was acknowledged or sent is handed to the hub first. */
  close(): void {
    this.stop();
    // Without a connection there is nobody to hand acknowledgements to: what they were for comes to the next session.
    if (!this.#connected && this.#pending.length === 0) return this.abandon();
    this.#closing = true;
    this.#hurry();
  }

  /** Ends it at once. */
  abandon(): void {
    this.#closing = true;
    this.#gone = true;
    this.#giveUp.abort(failure("UNAVAILABLE", "the session is closed"));
    this.#stream?.cancel();
    this.#hurry();
  }

  async run(): Promise<void> {
    let error: AcbError;
    try {
      error = await this.#drive();
    } catch (thrown) {
      // A logger that throws, say: whoever waits for the session must hear of it all the same.
      error = isOurs(thrown) ? thrown : malformed(String(thrown));
      this.#stream?.cancel();
    }
    this.#end = error;
    this.opened.reject(during("session", error));
    for (const pending of this.#pending.splice(0)) pending.outcome.reject(error);
    this.#hurry();
    this.over.resolve();
  }

  /** Until the session is over; gives why it is. */
  async #drive(): Promise<AcbError> {
    let patience = this.#caller.patience();
    let opened = false;
    for (;;) {
      let ended: Ended;
      const stream = await this.#connect(patience);
      if ("kind" in stream) {
        ended = stream;
      } else {
        if (!opened) {
          opened = true;
          patience = this.#caller.patience(this.#settings.reconnectForMs);
          this.opened.resolve();
        } else {
          this.#caller.platform.log.debug("session reconnected", { replica: this.#replica, resent: this.#pending.length });
        }
        this.#progressed = false;
        const began = clock.now();
        this.#connected = true;
        ended = await this.#converse(stream.line, stream.stream);
        this.#connected = false;
        // A hub that opens sessions and then fails what they are for is not tried again and again at once.
        if (this.#progressed || clock.now() - began >= STEADY) patience.renew();
      }
      // Whoever was in its place may have gone since.
      if (ended.kind === "broken" && ended.error.reason !== RECEIVER_PRESENT) this.#presentSince = undefined;
      if (ended.kind === "broken" && !this.#gone) {
        this.#caller.platform.log.debug("session broke", { error: ended.error.message });
        try {
          await patience.wait(ended.error, this.#giveUp.signal);
          continue;
        } catch (thrown) {
          return isOurs(thrown) ? thrown : ended.error;
        }
      }
      return ended.kind === "unwanted" ? failure("UNAVAILABLE", "the session is closed") : ended.error;
    }
  }

  async #connect(patience: Patience): Promise<{ line: Line; stream: Stream } | Ended> {
    // A session that is closed before it has a connection goes on only for what it still has to send.
    if (this.#gone || (this.#closing && this.#pending.length === 0)) return UNWANTED;
    let line: Line;
    try {
      line = await this.#caller.line(crypto.randomUUID(), patience, this.#giveUp.signal);
    } catch (error) {
      if (!isOurs(error)) return { kind: "over", error: malformed(String(error)) };
      return { kind: error.isRetryable ? "broken" : "over", error };
    }
    if (this.#gone) return UNWANTED;
    const stream = line.channel.duplex(MessageService.method.session, line.headers);
    this.#stream = stream;
    stream.send(frame("open", this.#open));
    let first: SessionResponse | undefined;
    try {
      const late = () => failure("TIMEOUT", "the hub did not open the session in time");
      first = await within(ATTEMPT, () => stream.receive(), late);
    } catch (error) {
      stream.cancel();
      if (error instanceof Status) return this.#judge(line, error);
      this.#caller.leave(line);
      return { kind: "broken", error: isOurs(error) ? error : failure("UNAVAILABLE", String(error)) };
    }
    if (first?.frame.case !== "opened") {
      stream.cancel();
      this.#caller.leave(line);
      return broken("the hub closed the session at once");
    }
    this.#renewal.renewed = false;
    this.#wasOpen = true;
    // Who takes over from now on does it after this session: connected again, it must not end that one.
    this.#open = create(SessionRequest_OpenSchema, { ...this.#open, takeOver: false });
    this.#replica = first.frame.value.replica;
    this.#caller.nameReplica(this.#replica);
    try {
      this.onReplica?.(this.#replica);
    } catch (thrown) {
      this.#caller.platform.log.error("onReplica failed", { error: thrown });
    }
    this.#inbox.forgetDeliveries();
    this.#written = 0;
    this.#refused = undefined;
    return { line, stream };
  }

  async #converse(line: Line, stream: Stream): Promise<Ended> {
    let over = false;
    const stop = (ended: Ended): Ended => {
      over = true;
      this.#hurry();
      return ended;
    };
    const reading = this.#read(line, stream, () => over).then(stop);
    const writing = this.#write(stream, () => over);
    const ended = await reading;
    stream.cancel();
    await writing;
    return ended;
  }

  async #read(line: Line, stream: Stream, over: () => boolean): Promise<Ended> {
    for (;;) {
      // A hub sends no more than there is room for. One that does is not listened to until there is.
      while (this.#deliveries.length > this.#settings.maxUnacknowledged && !this.#closing) {
        this.#room = deferred<void>();
        await this.#room.promise;
        if (over()) return UNWANTED;
      }
      let response: SessionResponse | undefined;
      try {
        response = await stream.receive();
      } catch (error) {
        if (this.#gone) return UNWANTED;
        if (!(error instanceof Status)) return { kind: "over", error: malformed(String(error)) };
        return this.#closing && this.#isQuiet() ? UNWANTED : this.#judge(line, error);
      }
      const ended = response === undefined ? broken("the hub closed the session") : this.#take(response.frame);
      if (ended === undefined) continue;
      if (response === undefined && this.#closing) return UNWANTED;
      this.#caller.leave(line);
      return ended;
    }
  }

  async #write(stream: Stream, over: () => boolean): Promise<void> {
    while (!over()) {
      if (this.#limitedUntil !== undefined && this.#limitedUntil <= clock.now()) this.#limitedUntil = undefined;
      const { remindAt } = this.#inbox;
      if (remindAt !== undefined && remindAt <= clock.now()) this.#inbox.remind();
      if (this.#hasFrame()) {
        if (!stream.hasRoom) {
          await stream.room();
          continue;
        }
        const next = this.#nextFrame();
        if (next !== undefined) stream.send(next);
        continue;
      }
      if (this.#closing && this.#isQuiet()) {
        // The hub settles what it has, and then ends the other side.
        stream.end();
        return;
      }
      await this.#wake.wait(Math.min(remindAt ?? Infinity, this.#limitedUntil ?? Infinity) - clock.now());
    }
  }

  /** Takes one frame of the hub. */
  #take(frame: SessionResponse["frame"]): Ended | undefined {
    switch (frame.case) {
      case "sent":
        return this.#settle(frame.value);
      case "delivery":
        this.#admit(frame.value);
        return undefined;
      case "heldBack": {
        const { partition, unacknowledged } = frame.value;
        this.#caller.platform.log.warn("the hub holds messages back until older ones are acknowledged", { partition, unacknowledged });
        return undefined;
      }
      case "draining":
        return broken("the replica is stopping");
      default:
        return undefined;
    }
  }

  #admit(delivery: SessionResponse_Delivery): void {
    this.#progressed = true;
    const { message, deliveryId, redelivered, attempt } = delivery;
    if (message === undefined) return;
    // What comes to a session that ends comes to the next one.
    if (this.#stopped) return;
    const ticket = this.#inbox.admit(message.id, deliveryId, redelivered);
    if (ticket === undefined) return;
    this.#deliveries.push(new Received(message, this.#replier, ticket, redelivered, attempt));
    this.#taker?.resolve();
    this.#taker = undefined;
  }

  /** Settles what the hub answered for. An end means: connect again, and send everything that is left again. */
  #settle(sent: SessionResponse_Sent): Ended | undefined {
    const sequence = Number(sent.sequence);
    const index = this.#pending.findIndex((pending) => pending.sequence === sequence);
    const pending = this.#pending[index];
    if (pending === undefined) return undefined;
    // The hub answers in order: nothing that is on its way comes after this.
    const last = index + 1 === this.#written;
    const { accepted, error } = outcomeOf(sent);
    if (accepted !== undefined) this.#progressed = true;
    if (error?.code === "UNAVAILABLE") return { kind: "broken", error };
    // Not in the log, and for no reason of its own: it is sent again below, and its caller has nothing to mend.
    const aborted = this.#refused !== undefined && error?.code === "ABORTED";
    const limited = error === undefined ? undefined : pending.limited.againAt(error);
    if (limited !== undefined) {
      this.#caller.platform.log.warn("waiting for a limit", { error: error?.message });
      this.#limitedUntil = Math.max(this.#limitedUntil ?? 0, limited);
    }
    if (error !== undefined) this.#refused ??= sequence;
    if (!aborted && limited === undefined) {
      this.#pending.splice(index, 1);
      this.#pendingBytes -= pending.bytes;
      this.#written = Math.max(0, this.#written - 1);
      if (accepted !== undefined) pending.outcome.resolve(accepted);
      else pending.outcome.reject(error);
      this.#letIn();
    }
    if (last && this.#refused !== undefined) {
      this.#written = 0;
      this.#nextSequence = this.#refused;
      this.#refused = undefined;
      for (const each of this.#pending) each.sequence = this.#nextSequence++;
    }
    this.#wake.notify();
    return undefined;
  }

  #judge(line: Line, status: Status): Ended {
    // What passes by itself, at the same replica or at another.
    const passing = status.broke || ["RESOURCE_EXHAUSTED", "CANCELLED", "INTERNAL", "UNKNOWN"].includes(status.code);
    const next = this.#caller.judge(line, status, this.#renewal);
    if (next.kind === "again") return broken("the access token was renewed");
    if (next.kind === "later") return { kind: "broken", error: next.error };
    if (this.#mayBeLeftOver(next.error)) return { kind: "broken", error: next.error };
    if (!passing) return { kind: "over", error: next.error };
    this.#caller.leave(line);
    return { kind: "broken", error: next.error };
  }

  /** Whether the program that receives in this one's place may be gone, and the hub not know it yet. */
  #mayBeLeftOver(error: AcbError): boolean {
    if (!this.#wasOpen || error.reason !== RECEIVER_PRESENT) return false;
    this.#presentSince ??= clock.now();
    return clock.now() - this.#presentSince < PRESENT_FOR;
  }

  #hasFrame(): boolean {
    return this.#inbox.hasNews || (this.#maySend() && this.#written < this.#pending.length);
  }

  /** Whether nothing is left to be said or answered. */
  #isQuiet(): boolean {
    return !this.#inbox.hasNews && this.#pending.length === 0;
  }

  #maySend(): boolean {
    return this.#refused === undefined && this.#limitedUntil === undefined;
  }

  #nextFrame(): Frame | undefined {
    let deliveryIds = this.#inbox.takeAcks();
    if (deliveryIds.length > 0) return frame("ack", { deliveryIds });
    deliveryIds = this.#inbox.takeStarted();
    if (deliveryIds.length > 0) return frame("started", { deliveryIds });
    deliveryIds = this.#inbox.takeInProgress();
    if (deliveryIds.length > 0) return frame("inProgress", { deliveryIds });
    const pending = this.#maySend() ? this.#pending[this.#written] : undefined;
    if (pending === undefined) return undefined;
    this.#written += 1;
    return frame("send", { sequence: BigInt(pending.sequence), message: pending.message });
  }

  #hasRoom(): boolean {
    return this.#pending.length + this.#entering < MOST_PENDING && this.#pendingBytes < MOST_PENDING_BYTES;
  }

  /** Lets the next sender in where there is room. */
  #letIn(): void {
    if (this.#crowd.length === 0 || !this.#hasRoom()) return;
    this.#entering += 1;
    this.#crowd.shift()?.resolve();
  }

  #comeIn(): void {
    this.#entering = Math.max(0, this.#entering - 1);
  }

  #refuseWhenOver(): void {
    if (this.#end !== undefined) throw this.#end;
    if (this.#closing) throw failure("UNAVAILABLE", "the session is closed");
  }

  /** Has everybody that waits look again. */
  #hurry(): void {
    this.#wake.notify();
    this.#room?.resolve();
    this.#taker?.resolve();
    this.#taker = undefined;
    if (this.#closing || this.#end !== undefined) {
      for (const turn of this.#crowd.splice(0)) turn.resolve();
      this.#entering = 0;
    }
  }
}

function frame(name: SessionRequest["frame"]["case"], value: object): Frame {
  return { frame: { case: name, value } } as Frame;
}

function outcomeOf(sent: SessionResponse_Sent): {
  accepted?: Sent;
  error?: AcbError;
} {
  const { outcome } = sent;
  switch (outcome.case) {
    case "accepted":
      return { accepted: { messageId: outcome.value.messageId, deduplicated: outcome.value.deduplicated } };
    case "failed": {
      const { code, reason, message, retryAfter } = outcome.value;
      return { error: new AcbError(codeOf(code), reason, message, { retryAfter: millisecondsOf(retryAfter) }) };
    }
    default:
      return { error: malformed("the hub answered without an outcome") };
  }
}
