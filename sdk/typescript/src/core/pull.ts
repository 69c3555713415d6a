/** Receiving by single calls, for programs that hold no session. */

import { MailboxService } from "../gen/acb/v1/mailbox_pb.js";
import type { Caller, CallOptions } from "./caller.js";
import { Message } from "./message.js";
import { duration } from "./wire.js";

/** The longest wait of one call. */
const MOST = 20_000;
/** How much longer than the hub the client waits. */
const SLACK = 10_000;
/** Deliveries that one call names at most. */
const MOST_NAMED = 1_000;

export interface PullerOptions {
  /** A name for the program, where a new process of it is to go on in the place of an older one. Otherwise each puller has a name of its own. */
  readonly receiver?: string;
  /** Whether to end the session of another program that receives for this agent (the default). Otherwise the first call is refused with `RECEIVER_PRESENT`. */
  readonly takeOver?: boolean;
}

/** A message that was pulled. Until it is acknowledged the hub keeps it, and gives it out again. */
export interface Pulled {
  readonly message: Message;
  /** What to acknowledge. */
  readonly deliveryId: string;
  /** Whether it may have been delivered before. Such are outside of the order. */
  readonly redelivered: boolean;
  /** Which attempt it is, from 1. What is not acknowledged within 30 s comes again, and after the tenth attempt goes to the dead letters. */
  readonly attempt: number;
}

/**
 * Receives by single calls. What holds for a session holds for these.
 *
 * ```ts
 * const puller = agent.puller();
 * for (;;) {
 *   const pulled = await puller.pull({ maxMessages: 10 });
 *   for (const { message } of pulled) console.log(message.topic);
 *   await puller.acknowledge(pulled);
 * }
 * ```
 */
export class Puller {
  readonly #caller: Caller;
  readonly #receiver: string;
  #takeOver: boolean;

  /** @internal */
  constructor(caller: Caller, options: PullerOptions) {
    this.#caller = caller;
    this.#receiver = options.receiver ?? crypto.randomUUID();
    this.#takeOver = options.takeOver ?? true;
  }

  /** At most so many messages (1,000; 32 unless said otherwise): those that wait, or else the next ones that come within 20 s, or the time that is said. One call at a time. */
  async pull(options: { maxMessages?: number; withinMs?: number; signal?: AbortSignal } = {}): Promise<Pulled[]> {
    const { maxMessages = 0, signal } = options;
    const wait = Math.min(options.withinMs ?? MOST, MOST);
    const request = () => ({ maxMessages, wait: duration(wait)!, receiver: this.#receiver, takeOver: this.#takeOver });
    const call = { method: MailboxService.method.pullMessages, request, withinMs: wait + SLACK, signal };
    const { deliveries } = await this.#caller.call("pull messages", call);
    // From now on whoever takes over from this one does so for good.
    this.#takeOver = false;
    return deliveries.flatMap(({ message, deliveryId, redelivered, attempt }) =>
      message === undefined ? [] : [{ message: new Message(message), deliveryId, redelivered, attempt }],
    );
  }

  /** Says that these were handled: they are not delivered again. */
  async acknowledge(pulled: Pulled | readonly Pulled[], options: CallOptions = {}): Promise<void> {
    const ids = (Array.isArray(pulled) ? (pulled as readonly Pulled[]) : [pulled as Pulled]).map((one) => one.deliveryId);
    for (let at = 0; at < ids.length; at += MOST_NAMED) {
      await this.#tell({ deliveryIds: ids.slice(at, at + MOST_NAMED) }, options);
    }
  }

  /** Says that one that came again is still worked at: that delivery is no attempt, and the next one is put off by 30 s. */
  async inProgress(pulled: Pulled, options: CallOptions = {}): Promise<void> {
    await this.#tell({ inProgressDeliveryIds: [pulled.deliveryId] }, options);
  }

  async #tell(what: { deliveryIds: string[] } | { inProgressDeliveryIds: string[] }, options: CallOptions): Promise<void> {
    const request = () => ({ ...what, receiver: this.#receiver });
    await this.#caller.call("acknowledge messages", { method: MailboxService.method.acknowledgeMessages, request, ...options });
  }
}
