/** A session: sends in order, receives and acknowledges, over whichever connection there is at the moment. */

import type { Caller } from "./caller.js";
import { failure } from "./error.js";
import { type Handler, Handlers } from "./handler.js";
import { known } from "./known.js";
import { Driver } from "./link.js";
import { build, type OutgoingMessage, type Received, type Replier, type Sent } from "./message.js";
import type { Schema } from "./payload.js";
import { abortable, throwIfAny, within } from "./wait.js";

/** How long an orderly end may take. */
const CLOSING = 5_000;

/** How a session is to be. */
export interface SessionOptions {
  /** Whether to receive (the default). One that only sends takes nothing from the mailbox, and ends no other session of the agent. */
  readonly receive?: boolean;
  /** How many messages may be with the application at once: 1 to 1,000; 100 unless said otherwise. */
  readonly maxUnacknowledged?: number;
  /**
   * Receives those messages alone that match: a CEL expression over `message`, such as `message.topic == "orders"`. Others stay unread in the
   * mailbox, for a later session of the agent. Where 1,000 of a partition of the log wait so, the hub gives nothing more of that partition until a
   * session without this filter took them, or they expired.
   */
  readonly filter?: string;
  /**
   * Whether to end the session of another program that receives for this agent (the default, so that a program that was started anew is not kept out
   * by what is left of the old one). Otherwise that one stays, and this session is refused with `RECEIVER_PRESENT`. A session that connects again
   * goes on in either case, unless another program has taken over.
   */
  readonly takeOver?: boolean;
  /** How long to try to connect again before the session ends with an error; 5 minutes unless said otherwise. */
  readonly reconnectForMs?: number;
  /** Gives up opening it. */
  readonly signal?: AbortSignal;
  /** Told of the name of the replica that holds the session, with each connection. Must not block. */
  readonly onReplica?: (replica: string) => void;
}

const KNOWN: readonly (keyof SessionOptions)[] = ["receive", "maxUnacknowledged", "filter", "takeOver", "reconnectForMs", "signal", "onReplica"];

/** What becomes the outcome of a message that was sent without waiting. */
export interface Receipt {
  /** Resolves once the message is durable; rejects where the hub refused it, or where the session ended before. */
  readonly outcome: Promise<Sent>;
}

/**
 * Sends, receives and acknowledges on one stream.
 *
 * Where the connection breaks, the session goes on with any replica: what was sent and not yet acknowledged is sent again first, oldest first, under
 * the same keys; what was received and handled is not handed over a second time.
 *
 * ```ts
 * await using session = await agent.session();
 * session.on<{ document: string }>("task", async (task, message) => {
 *   await message.reply({ topic: "done", text: task.document });
 * });
 * await session.run();
 * ```
 */
export class Session implements AsyncDisposable {
  readonly #driver: Driver;
  readonly #handlers: Handlers;
  readonly #forget: (session: Session) => void;
  /** The handler that is at work; it never rejects. */
  #work: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  private constructor(driver: Driver, handlers: Handlers, forget: (session: Session) => void) {
    this.#driver = driver;
    this.#handlers = handlers;
    this.#forget = forget;
  }

  /** @internal */
  static async open(
    caller: Caller,
    replier: Replier,
    options: SessionOptions,
    handlers: Handlers,
    forget: (session: Session) => void,
    ending: AbortSignal,
  ): Promise<Session> {
    known("a session", options, KNOWN);
    const maxUnacknowledged = options.maxUnacknowledged ?? 100;
    if (!Number.isInteger(maxUnacknowledged) || maxUnacknowledged < 1 || maxUnacknowledged > 1_000) throw failure("USAGE", `maxUnacknowledged is ${maxUnacknowledged}, and not 1 to 1,000`);
    const driver = new Driver(caller, replier, {
      receive: options.receive ?? true,
      maxUnacknowledged,
      filter: options.filter ?? "",
      takeOver: options.takeOver ?? true,
      reconnectForMs: options.reconnectForMs ?? 300_000,
    });
    driver.onReplica = options.onReplica;
    throwIfAny([options.signal, ending]);
    void driver.run();
    try {
      await abortable(driver.opened.promise, options.signal, ending);
    } catch (error) {
      driver.abandon();
      throw error;
    }
    return new Session(driver, handlers, forget);
  }

  /** The name of the replica that holds the session now. */
  get replica(): string {
    return this.#driver.replica;
  }

  /** Sends one message and waits until it is durable. */
  async send(message: OutgoingMessage, options: { signal?: AbortSignal } = {}): Promise<Sent> {
    const { outcome } = await this.enqueue(message, options);
    return await abortable(outcome, options.signal);
  }

  /**
   * Sends without waiting for what was sent before. Waits only where too much is outstanding (256 messages or 16 MiB).
   *
   * Where the hub refuses a message, that one alone fails. What was sent behind it is sent all the same, in order: wait for the outcome where the next
   * message makes no sense without the last.
   */
  async enqueue(message: OutgoingMessage, options: { signal?: AbortSignal } = {}): Promise<Receipt> {
    return await this.#driver.enqueue(build(message), options.signal);
  }

  /** The next message; undefined once the session was closed. Throws where it ended otherwise. */
  async next(options: { signal?: AbortSignal } = {}): Promise<Received | undefined> {
    return await this.#driver.next(options.signal);
  }

  /**
   * The messages as they come, for those who want no handlers; each is to be acknowledged. Ends with the session: in order where it was closed,
   * otherwise by throwing. An abort throws the reason of the signal.
   */
  async *messages<T = unknown>(options: { signal?: AbortSignal } = {}): AsyncGenerator<Received<T>, void, undefined> {
    for (;;) {
      const received = await this.next(options);
      if (received === undefined) return;
      yield received as Received<T>;
    }
  }

  [Symbol.asyncIterator](): AsyncGenerator<Received, void, undefined> {
    return this.messages();
  }

  /**
   * Registers the handler of a topic. Payloads are decoded from JSON, and checked where a schema is given. A message whose handler succeeds is
   * acknowledged; one whose handler fails, or whose payload is something else, is logged, and delivered again later.
   */
  on<T = unknown>(topic: string, handler: Handler<T>): this;
  on<T>(topic: string, schema: Schema<T>, handler: Handler<T>): this;
  on<T>(topic: string, schemaOrHandler: Schema<T> | Handler<T>, handler?: Handler<T>): this {
    this.#handlers.on(topic, schemaOrHandler, handler);
    return this;
  }

  /** Registers the handler of every topic that has none. */
  onOther(handler: (message: Received) => unknown): this {
    this.#handlers.onOther(handler);
    return this;
  }

  /**
   * Hands messages to their handlers, one after another, in the order of their arrival, until the session ends. An abort closes the session in
   * order, once the present handler is done.
   */
  async run(options: { signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    try {
      for await (const received of this.messages({ ...(signal === undefined ? {} : { signal }) })) {
        this.#work = this.#handlers.handle(received);
        await this.#work;
      }
    } catch (error) {
      if (signal?.aborted !== true) throw error;
      await this.close();
    }
  }

  /**
   * Ends the session in order, within 5 seconds: the handler that is at work comes to its end, and what was acknowledged or sent is handed to the hub.
   * What was received and not acknowledged is delivered again. A handler that is to end its own session aborts the signal of {@link run} instead.
   */
  async close(): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  async #close(): Promise<void> {
    this.#forget(this);
    this.#driver.stop();
    const late = () => failure("TIMEOUT", "the session did not close in time");
    const ending = async () => {
      await this.#work;
      this.#driver.close();
      await this.#driver.over.promise;
    };
    try {
      await within(CLOSING, ending, late);
    } catch {
      this.#driver.abandon();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
