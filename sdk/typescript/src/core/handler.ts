/** Handlers of received messages, by topic. */

import { failure } from "./error.js";
import type { Received } from "./message.js";
import type { Schema } from "./payload.js";
import type { Logger } from "./transport.js";
import { correlated, traced } from "./work.js";

/** Handles the payload of a message. Where it throws or rejects, the message is not acknowledged. */
export type Handler<T> = (payload: T, message: Received<T>) => unknown;

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
      const work = async () => await handler(message);
      await correlated(message.correlationId, () => traced(message.traceparent, message.tracestate, work));
      message.ack();
    } catch (error) {
      this.log.error("a handler failed: the message is not acknowledged", { message: id, topic, error });
      message.release();
    }
  }
}
