/** Handlers of received messages, by topic. */

import { failure } from "./error.js";
import type { Answer, Received } from "./message.js";
import type { Schema } from "./payload.js";
import type { Logger } from "./transport.js";
import { correlated, traced } from "./work.js";

/**
 * Handles the payload of a message. Where it throws or rejects, the message is not acknowledged. What it returns, other than undefined or null, is the
 * answer where the sender wants one (to a query, or a message with `replyTo`) and the handler gave none by itself: a text, bytes, or a value as JSON.
 */
export type Handler<T> = (payload: T, message: Received<T>) => unknown;

function answerOf(returned: unknown): Answer {
  if (typeof returned === "string") return { text: returned };
  return returned instanceof Uint8Array ? { bytes: returned } : { json: returned };
}

type Any = (message: Received) => unknown;

export class Handlers {
  readonly #byTopic = new Map<string, Any>();
  #other: Any | undefined;

  constructor(readonly log: Logger) {}

  on<T>(topic: string, schemaOrHandler: Schema<T> | Handler<T>, handler?: Handler<T>): void {
    if (typeof handler === "function") {
      const schema = schemaOrHandler as Schema<T>;
      if (schema?.["~standard"] === undefined) throw failure("USAGE", `the handler of topic ${JSON.stringify(topic)}: its schema is no Standard Schema`);
      this.#byTopic.set(topic, async (message) => handler(await message.parse(schema), message as Received<T>));
    } else {
      if (typeof schemaOrHandler !== "function") throw failure("USAGE", `the handler of topic ${JSON.stringify(topic)} is no function`);
      this.#byTopic.set(topic, (message) => schemaOrHandler(message.json() as T, message as Received<T>));
    }
  }

  onOther(handler: Any): void {
    this.#other = handler;
  }

  /** Handles one message; acknowledges it where its handler succeeded. */
  async handle(message: Received): Promise<void> {
    const { id, topic } = message;
    const handler = this.#byTopic.get(topic) ?? this.#other;
    if (handler === undefined) {
      this.log.warn("no handler for this topic: the message is not acknowledged", { message: id, topic });
      message.release();
      return;
    }
    try {
      const work = async () => {
        const returned = await handler(message);
        if (returned !== undefined && returned !== null && message.wantsAnswer) await message.reply(answerOf(returned));
      };
      await correlated(message.correlationId, () => traced(message.traceparent, message.tracestate, work));
      message.ack();
    } catch (error) {
      this.log.error("a handler failed: the message is not acknowledged", { message: id, topic, error });
      message.release();
    }
  }
}
