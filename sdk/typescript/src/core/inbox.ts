/** What a session has received and not yet acknowledged, across its connections. */

import { type Clock, clock } from "./backoff.js";
import { Seen } from "./seen.js";

/** Deliveries that one frame names at most. */
const MOST_NAMED = 1_000;
/** How many handled messages are remembered, to drop their redeliveries. */
const REMEMBERED = 10_000;
/** How often the hub hears that the application is still at work: long before it would deliver again, or give up after the last attempt. */
const REMIND_EVERY = 10_000;

/** A message that is with the application now. */
interface Open {
  readonly ticket: Ticket;
  /** Of the latest delivery. */
  deliveryId: string;
  /** Whether it may have been delivered before: then its next delivery may be the last. */
  readonly redelivered: boolean;
}

export class Inbox {
  /** By message id. */
  readonly #open = new Map<string, Open>();
  readonly #handled = new Seen(REMEMBERED);
  /** Delivery ids to acknowledge on the current connection. */
  readonly #acks: string[] = [];
  /** What the application began with on the current connection, where it may have been delivered before. */
  readonly #started: string[] = [];
  /** What came again on the current connection while it is with the application, and what the application is at work on for long. */
  readonly #inProgress: string[] = [];
  /** When the hub is to hear of what the application is at work on. Where that is nothing, no timer runs. */
  #remindAt: number | undefined;

  constructor(
    /** Called when there is something to tell the hub. */
    readonly wake: () => void,
    readonly time: Clock = clock,
  ) {}

  /** A ticket where the application is to see the message; undefined where it has it, or had it. */
  admit(messageId: string, deliveryId: string, redelivered: boolean): Ticket | undefined {
    if (this.#handled.has(messageId)) {
      this.#acks.push(deliveryId);
      this.wake();
      return undefined;
    }
    const open = this.#open.get(messageId);
    if (open !== undefined) {
      // Where the log was made anew the same message has a new delivery id, and only that can be acknowledged.
      open.deliveryId = deliveryId;
      this.#inProgress.push(deliveryId);
      this.wake();
      return undefined;
    }
    const ticket = new Ticket(this, messageId);
    this.#open.set(messageId, { ticket, deliveryId, redelivered });
    if (redelivered && this.#remindAt === undefined) {
      this.#remindAt = this.time.now() + REMIND_EVERY;
      this.wake();
    }
    return ticket;
  }

  /** Delivery ids of an earlier connection mean nothing to the next. */
  forgetDeliveries(): void {
    this.#acks.length = 0;
    this.#started.length = 0;
    this.#inProgress.length = 0;
  }

  takeAcks(): string[] {
    return this.#acks.splice(0, MOST_NAMED);
  }

  takeStarted(): string[] {
    return this.#started.splice(0, MOST_NAMED);
  }

  takeInProgress(): string[] {
    return this.#inProgress.splice(0, MOST_NAMED);
  }

  /** When {@link remind} is due. */
  get remindAt(): number | undefined {
    return this.#remindAt;
  }

  /**
   * The application still has what may have been delivered before. The hub asks that by delivering again, but not after the last attempt: what it
   * hears nothing of goes to the dead letters then, while it is handled, or waits for its turn.
   */
  remind(): void {
    const again = [...this.#open.values()].filter((open) => open.redelivered);
    // What is not taken from here by the connection is not said twice.
    if (this.#inProgress.length === 0) this.#inProgress.push(...again.map((open) => open.deliveryId));
    this.#remindAt = again.length > 0 ? this.time.now() + REMIND_EVERY : undefined;
  }

  /** Whether there is anything to tell the hub of its deliveries. */
  get hasNews(): boolean {
    return this.#acks.length > 0 || this.#started.length > 0 || this.#inProgress.length > 0;
  }

  /** @internal of the ticket: nothing is done with one that is no more the message's. */
  settle(ticket: Ticket, how: "started" | "handled" | "released"): void {
    const open = this.#open.get(ticket.messageId);
    if (open?.ticket !== ticket) return;
    if (how === "started") {
      this.#started.push(open.deliveryId);
    } else {
      this.#open.delete(ticket.messageId);
      if (how === "released") return;
      this.#handled.add(ticket.messageId);
      this.#acks.push(open.deliveryId);
    }
    this.wake();
  }
}

/** The right to acknowledge one message. Released, the message may be delivered again. */
export class Ticket {
  readonly #inbox: Inbox;

  constructor(
    inbox: Inbox,
    readonly messageId: string,
  ) {
    this.#inbox = inbox;
  }

  /** The application begins with a message that may have been delivered before: from now on that counts as an attempt. */
  start(): void {
    this.#inbox.settle(this, "started");
  }

  ack(): void {
    this.#inbox.settle(this, "handled");
  }

  release(): void {
    this.#inbox.settle(this, "released");
  }
}
