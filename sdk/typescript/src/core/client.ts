/** One tenant's hub, seen as one agent. */

import * as agents from "./agents.js";
import * as audit from "./audit.js";
import { Caller, type CallOptions } from "./caller.js";
import * as contexts from "./contexts.js";
import type { Credential, Identity, Tokens } from "./credential.js";
import { download, type Downloaded, type DownloadOptions, type Sink } from "./download.js";
import { failure, isOurs } from "./error.js";
import { type Handler, Handlers } from "./handler.js";
import * as letters from "./letters.js";
import type { Answer, Message, OutgoingMessage, Received, Replier, Sent } from "./message.js";
import * as messages from "./messages.js";
import type { Payload, Schema } from "./payload.js";
import { Puller, type PullerOptions } from "./pull.js";
import * as schedules from "./schedule.js";
import { Session, type SessionOptions } from "./session.js";
import { type SubscribeOptions, Subscription } from "./subscription.js";
import * as traces from "./trace.js";
import type { Platform, Replicas } from "./transport.js";
import * as unread from "./unread.js";
import { type Source, sourceOf, upload, type Uploaded, type UploadOptions, uploadProgress, type UploadProgress } from "./upload.js";
import * as usage from "./usage.js";

/** What {@link Client} needs of its platform. */
export interface Parts {
  readonly replicas: Replicas;
  readonly credential: Credential;
  readonly retryForMs: number;
  readonly platform: Platform;
}

/**
 * One tenant's hub, seen as one agent: what {@link connect} gives.
 *
 * Reconnecting, trying again and renewing tokens is done here; what callers see is one {@link AcbError}. Every call takes an `AbortSignal`, and throws
 * its reason once it is aborted. Times are in milliseconds. Counts and sizes are of type `number`: none of them can be beyond 2^53. Lists are fetched page after
 * page as they are taken.
 */
export class Client implements AsyncDisposable {
  readonly #caller: Caller;
  readonly #handlers: Handlers;
  readonly #replier: Replier;
  /** What ends with the client. */
  readonly #sessions = new Set<Session>();
  readonly #followings = new Set<{ close(): void }>();
  readonly #heartbeats = new Set<agents.Heartbeats>();
  /** Sessions that are not open yet; none of these rejects. */
  readonly #openings = new Set<Promise<void>>();
  readonly #ending = new AbortController();
  #closed: Promise<void> | undefined;

  private constructor(parts: Parts) {
    this.#caller = new Caller(parts.replicas, parts.credential, parts.retryForMs, parts.platform);
    this.#handlers = new Handlers(parts.platform.log);
    this.#replier = { reply: (to, answer, options = {}) => this.reply(to, answer, options) };
  }

  /** @internal Connects and authenticates. */
  static async connect(parts: Parts, signal?: AbortSignal): Promise<Client> {
    const client = new Client(parts);
    const patience = client.#caller.patience();
    try {
      for (;;) {
        signal?.throwIfAborted();
        try {
          await client.#caller.line("", patience, signal);
          return client;
        } catch (error) {
          if (!isOurs(error) || !error.isRetryable) throw error;
          await patience.wait(error, signal);
        }
      }
    } catch (error) {
      client.#caller.close();
      throw error;
    }
  }

  /** Whom this client speaks for. */
  get identity(): Identity {
    return this.#caller.auth.identity as Identity;
  }

  /** The current tokens. */
  get tokens(): Tokens {
    return this.#caller.auth.tokens as Tokens;
  }

  /** The address of the replica that the client is connected to. */
  async endpoint(): Promise<string> {
    return await this.#caller.endpoint();
  }

  /** The name of the replica that last answered a session or a transfer. */
  get replica(): string | undefined {
    return this.#caller.replica;
  }

  /** Ends it in order: sessions hand over what they have sent and acknowledged first. Calls that are not answered by then fail with `UNAVAILABLE`. */
  async close(): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  async #close(): Promise<void> {
    this.#ending.abort(failure("UNAVAILABLE", "the client is closed"));
    for (const heartbeats of this.#heartbeats) heartbeats.stop();
    for (const following of [...this.#followings]) following.close();
    await Promise.all([...this.#openings, ...[...this.#sessions].map((session) => session.close())]);
    this.#caller.close();
  }

  /** Opens what is closed with the client. */
  async #follow<F extends { open(): Promise<F>; close(): void }>(make: (forget: () => void) => F): Promise<F> {
    this.#refuseWhenClosed();
    const following: F = make(() => this.#followings.delete(following));
    this.#followings.add(following);
    return await following.open();
  }

  #refuseWhenClosed(): void {
    if (this.#ending.signal.aborted) throw failure("USAGE", "the client is closed");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // Messages.

  /**
   * Sends one message and waits until it is durable. It is tried again on other replicas under the same idempotency key, so that it is in the log once.
   *
   * ```ts
   * const sent = await agent.send({ to: { group: "workers" }, topic: "task", json: { document: "readme" } });
   * console.log(sent.messageId);
   * ```
   */
  async send(message: OutgoingMessage, options: CallOptions = {}): Promise<Sent> {
    return await messages.send(this.#caller, message, options);
  }

  /**
   * Sends a question and waits for its reply.
   *
   * ```ts
   * const answer = await agent.request<string[]>({ to: "librarian", topic: "lookup", text: "isolation" }, { withinMs: 10_000 });
   * console.log(answer.json());
   * ```
   */
  async request<T = unknown>(message: OutgoingMessage, options: messages.RequestOptions = {}): Promise<Received<T>> {
    return (await messages.request(this.#caller, this.#replier, message, options)) as Received<T>;
  }

  /** Answers a received message: to its `replyTo`, or else to its sender. */
  async reply(to: Message, answer: Answer, options: CallOptions = {}): Promise<Sent> {
    return await messages.reply(this.#caller, to, answer, options);
  }

  /** Opens a session. An agent has one session that receives: a newer one ends the older, unless it is told not to ({@link SessionOptions.takeOver}). */
  async session(options: SessionOptions = {}): Promise<Session> {
    return await this.#open(options, new Handlers(this.#caller.platform.log));
  }

  async #open(options: SessionOptions, handlers: Handlers): Promise<Session> {
    this.#refuseWhenClosed();
    const forget = (session: Session) => this.#sessions.delete(session);
    const { signal } = this.#ending;
    const opening = (async () => {
      const session = await Session.open(this.#caller, this.#replier, options, handlers, forget, signal);
      this.#sessions.add(session);
      if (!signal.aborted) return session;
      // The client was closed in the moment in which it opened, and did not know of it.
      await session.close();
      throw signal.reason;
    })();
    const over = opening.then(
      () => undefined,
      () => undefined,
    );
    this.#openings.add(over);
    void over.then(() => this.#openings.delete(over));
    return await opening;
  }

  /** Undefined where the client is closed meanwhile: what goes on until then is over. */
  async #openUnlessClosed(options: SessionOptions, handlers: Handlers): Promise<Session | undefined> {
    const { signal } = this.#ending;
    this.#refuseWhenClosed();
    try {
      return await this.#open(options, handlers);
    } catch (error) {
      if (signal.aborted && error === signal.reason) return undefined;
      throw error;
    }
  }

  /**
   * Receives, on a session of its own that ends with the loop. Each message is to be acknowledged; what is not is delivered again.
   *
   * ```ts
   * for await (const message of agent.messages()) {
   *   console.log(message.from, message.text());
   *   message.ack();
   * }
   * ```
   */
  async *messages<T = unknown>(options: SessionOptions = {}): AsyncGenerator<Received<T>, void, undefined> {
    const session = await this.#openUnlessClosed(options, new Handlers(this.#caller.platform.log));
    if (session === undefined) return;
    try {
      yield* session.messages<T>(options.signal === undefined ? {} : { signal: options.signal });
    } finally {
      await session.close();
    }
  }

  /**
   * Registers the handler of a topic for {@link run}. Payloads are decoded from JSON, and checked where a schema (of zod, valibot or any other
   * Standard Schema) is given. A message whose handler succeeds is acknowledged; one whose handler fails is logged, and delivered again later.
   *
   * ```ts
   * agent.on<{ document: string }>("task", async (task, message) => {
   *   await message.reply({ topic: "done", text: task.document });
   * });
   * await agent.run();
   * ```
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

  /** Hands messages to their handlers, one after another, until the client is closed. An abort ends it in order, once the present handler is done. */
  async run(options: SessionOptions = {}): Promise<void> {
    const { signal } = options;
    const session = await this.#openUnlessClosed(options, this.#handlers);
    if (session === undefined) return;
    try {
      await session.run(signal === undefined ? {} : { signal });
    } finally {
      await session.close();
    }
  }

  /** Receives by single calls, for a program that holds no session. */
  puller(options: PullerOptions = {}): Puller {
    return new Puller(this.#caller, options);
  }

  /** Has a message sent after this time, 7 days at most. By the clock of the hub's PostgreSQL: this machine's need not be right. */
  async schedule(message: OutgoingMessage, afterMs: number, options: CallOptions = {}): Promise<schedules.Scheduled> {
    return await schedules.schedule(this.#caller, message, afterMs, options);
  }

  /** What waits to be sent, in the order in which it is due: what this agent scheduled, or what `all` agents did, which takes the role `admin`. */
  scheduled(options: CallOptions & { readonly all?: boolean } = {}): AsyncGenerator<schedules.ScheduledMessage, void, undefined> {
    const { all = false, signal } = options;
    return schedules.scheduled(this.#caller, all, { signal });
  }

  /** Cancels a scheduled message. Whether it had been cancelled before. */
  async cancelScheduled(messageId: string, options: CallOptions = {}): Promise<boolean> {
    return await schedules.cancelScheduled(this.#caller, messageId, options);
  }

  /** The unread messages of the agent's mailbox. Nothing is acknowledged, and no session ends. */
  unread(query: unread.UnreadQuery = {}): AsyncGenerator<Message, void, undefined> {
    return unread.unread(this.#caller, query);
  }

  /** How much is unread, of all senders or of one. */
  async countUnread(options: CallOptions & { readonly from?: string } = {}): Promise<unread.UnreadCount> {
    const { from = "", signal } = options;
    return await unread.countUnread(this.#caller, from, { signal });
  }

  /** The unread messages after a position of an earlier answer, and where there are none those that come next. */
  async waitForUnread(wait: unread.UnreadWait = {}): Promise<unread.UnreadMessages> {
    return await unread.waitForUnread(this.#caller, wait);
  }

  /** Follows what is unread, from the oldest on: each message once, as it comes, taken by nobody. */
  watchUnread(query: unread.UnreadQuery = {}): AsyncGenerator<Message, void, undefined> {
    return unread.watchUnread(this.#caller, query);
  }

  /** The dead letters that match, in the order in which their messages were accepted. */
  deadLetters(which: letters.Letters = {}, options: CallOptions = {}): AsyncGenerator<letters.DeadLetter, void, undefined> {
    return letters.deadLetters(this.#caller, which, options);
  }

  /** A dead letter and its message. */
  async deadLetter(id: string, options: CallOptions = {}): Promise<{ letter: letters.DeadLetter; message: Message }> {
    return await letters.deadLetter(this.#caller, id, options);
  }

  /**
   * Sends dead letters again, as new messages from their first senders: to whom they were for, or to another agent (which takes the role `admin`).
   * What becomes of each is an item, a failure too: the others go on. A letter that was sent again is not sent once more.
   */
  replayDeadLetters(
    which: letters.WhichLetters,
    options: CallOptions & { readonly to?: string } = {},
  ): AsyncGenerator<letters.DeadLetterOutcome, void, undefined> {
    return letters.replayDeadLetters(this.#caller, which, options.to, { signal: options.signal });
  }

  /** Drops dead letters. What becomes of each is an item, a failure too: the others go on. */
  dropDeadLetters(which: letters.WhichLetters, options: CallOptions = {}): AsyncGenerator<letters.DeadLetterOutcome, void, undefined> {
    return letters.dropDeadLetters(this.#caller, which, options);
  }

  /** One message, without its content, and what happened to it: of what this agent sent or is to receive, and with the roles admin and auditor of all. */
  async messageTrace(messageId: string, options: CallOptions = {}): Promise<traces.MessageTrace> {
    return await traces.messageTrace(this.#caller, messageId, options);
  }

  // Contexts.

  /**
   * Shares a payload of at most 1 MiB as a context of this type. Larger ones are {@link upload | uploaded}.
   *
   * ```ts
   * const context = await agent.share("documents", { text: "# Plan" }, { scope: { groups: ["reviewers"] }, ttlMs: 3_600_000 });
   * console.log(context.id, context.version);
   * ```
   */
  async share(type: string, payload: Payload, options: contexts.ShareOptions = {}): Promise<contexts.Context> {
    return await contexts.share(this.#caller, type, payload, options);
  }

  /** A context by its id, with its payload where that is inline. */
  async context(id: string, options: CallOptions = {}): Promise<contexts.Context> {
    return await contexts.context(this.#caller, id, options);
  }

  /** Makes a new version of a context that was read. `ABORTED` where that is no longer the current version: read it again first. */
  async update(read: contexts.Context, change: contexts.Update, options: CallOptions = {}): Promise<contexts.Context> {
    return await contexts.update(this.#caller, read, change, options);
  }

  /** Replaces who may read a context of one's own; its payload stays. Whoever loses sight of it hears so, and reads no more of it. */
  async setAccess(id: string, scope: contexts.Scope, options: CallOptions = {}): Promise<contexts.Context> {
    return await contexts.setAccess(this.#caller, id, scope, options);
  }

  /** Deletes a context of one's own. */
  async deleteContext(id: string, options: CallOptions = {}): Promise<void> {
    await contexts.deleteContext(this.#caller, id, options);
  }

  /** Every context that may be read, of a type or of all, without payloads. */
  contexts(query: contexts.ContextQuery = {}): AsyncGenerator<contexts.Context, void, undefined> {
    return contexts.contexts(this.#caller, query);
  }

  /**
   * Subscribes to the contexts of a type. Resolves once nothing more is missed.
   *
   * ```ts
   * await using documents = await agent.subscribe("documents");
   * for await (const event of documents) console.log(event.kind, event.context.id);
   * ```
   */
  async subscribe(type: string, options: SubscribeOptions = {}): Promise<Subscription> {
    return await this.#follow((forget) => new Subscription(this.#caller, type, options, forget));
  }

  /**
   * Streams a payload of 1 byte to 100 MiB into a context of this type. Resolves when the whole is durable and verified. A broken connection is
   * mended with any replica; the time for that starts anew with each chunk that became durable.
   *
   * ```ts
   * await using file = await openFile("weights.bin");
   * const uploaded = await agent.upload("models", file, { onProgress: ({ bytes, total }) => console.log(`${bytes} of ${total}`) });
   * console.log(uploaded.context.id);
   * ```
   */
  async upload(type: string, source: Uint8Array | Blob | Source, options: UploadOptions = {}): Promise<Uploaded> {
    return await upload(this.#caller, type, sourceOf(source), options);
  }

  /** How far an upload of this agent is. */
  async uploadProgress(uploadId: string, options: CallOptions = {}): Promise<UploadProgress> {
    return await uploadProgress(this.#caller, uploadId, options);
  }

  /**
   * Downloads the payload of a context, streamed or inline. Each chunk is verified before it is written, the whole at the end: on an error what was
   * written is no more than a part. The time to mend a broken connection starts anew with each chunk.
   *
   * ```ts
   * const downloaded = await agent.download(id, Writable.toWeb(createWriteStream("weights.bin.part")));
   * ```
   */
  async download(contextId: string, sink: Sink, options: DownloadOptions = {}): Promise<Downloaded> {
    return await download(this.#caller, contextId, sink, options);
  }

  // Agents.

  /** Announces this agent as online. */
  async announce(options: CallOptions = {}): Promise<agents.AgentInfo> {
    return (await agents.register(this.#caller, {}, options)).agent;
  }

  /**
   * Registers another agent of this agent's role, in a tenant whose registration is `Open`. It may do what this agent may, and ends with it. Called
   * again under the same name it describes the agent anew, and gives it another key: the one before ends.
   */
  async register(registration: agents.Registration, options: CallOptions = {}): Promise<agents.Registered> {
    return await agents.registerOther(this.#caller, registration, options);
  }

  /** Takes the calling agent offline where no name is given, or removes one that it registered. */
  async unregister(name = "", options: CallOptions = {}): Promise<void> {
    await agents.unregister(this.#caller, name, options);
  }

  /** Sends one heartbeat; says in how many milliseconds the next is due. */
  async heartbeat(options: CallOptions = {}): Promise<number> {
    return await agents.heartbeat(this.#caller, options);
  }

  /** Sends heartbeats as the hub wants them, from now on until they are stopped, or the client is closed. */
  heartbeats(): agents.Heartbeats {
    const heartbeats = agents.heartbeats(this.#caller, () => this.#heartbeats.delete(heartbeats));
    this.#heartbeats.add(heartbeats);
    return heartbeats;
  }

  /** An agent of the tenant, by name. */
  async agent(name: string, options: CallOptions = {}): Promise<agents.AgentInfo> {
    return await agents.agent(this.#caller, name, options);
  }

  /** Every agent of the tenant. */
  agents(options: CallOptions = {}): AsyncGenerator<agents.AgentInfo, void, undefined> {
    return agents.agents(this.#caller, options);
  }

  /**
   * The agents that match.
   *
   * ```ts
   * for await (const { name } of agent.discover({ capabilities: ["summarize"] })) console.log(name);
   * ```
   */
  discover(criteria: agents.Criteria, options: CallOptions = {}): AsyncGenerator<agents.AgentInfo, void, undefined> {
    return agents.discover(this.#caller, criteria, options);
  }

  /** The credentials of the agent: which there are, since when, until when, and when a token was last issued for each. With the role admin those of another agent, or of all where it is empty. */
  credentials(options: CallOptions & { readonly agent?: string } = {}): AsyncGenerator<agents.CredentialInfo, void, undefined> {
    const { agent = "", signal } = options;
    return agents.credentials(this.#caller, agent, { signal });
  }

  // Usage and audit.

  /** The limits of the agent and of its tenant, with what was used of each in this minute or month. Of another agent, by its name, with the role admin. */
  async usage(options: CallOptions & { readonly agent?: string } = {}): Promise<usage.Usage[]> {
    const { agent = "", signal } = options;
    return await usage.usage(this.#caller, agent, { signal });
  }

  /** What agents have sent, by period and then by agent. The sums are some seconds behind. */
  usageSums(query: usage.UsageQuery): AsyncGenerator<usage.UsageSum, void, undefined> {
    return usage.usageSums(this.#caller, query);
  }

  /** Where the sums lack something, as far as that was found in the time that the query is about: the latest first. */
  async usageGaps(query: usage.UsageQuery): Promise<usage.UsageGap[]> {
    return await usage.usageGaps(this.#caller, query);
  }

  /** The audit records that match, by number. Takes the role `auditor` or `admin`. */
  auditRecords(query: audit.AuditQuery = {}): AsyncGenerator<audit.LoggedAuditRecord, void, undefined> {
    return audit.auditRecords(this.#caller, query);
  }

  /**
   * Follows the audit trail: from number `first` on, and without it from now on. Resolves once nothing more is missed. Takes the role `auditor` or `admin`.
   *
   * ```ts
   * await using trail = await agent.followAudit({ operation: "GetContext" });
   * for await (const { number, record } of trail) console.log(number, auditRecord(record)?.agent);
   * ```
   */
  async followAudit(options: audit.AuditFollowOptions = {}): Promise<audit.AuditFollower> {
    return await this.#follow((forget) => new audit.AuditFollower(this.#caller, options, forget));
  }

  /** The latest checkpoint of the audit trail, and the keys that signed one. Takes the role `auditor` or `admin`. */
  async auditCheckpoint(options: CallOptions = {}): Promise<audit.AuditCheckpoint> {
    return await audit.auditCheckpoint(this.#caller, options);
  }

  /** The hashes that prove it. Takes the role `auditor` or `admin`. */
  async auditProof(claim: audit.AuditClaim, options: CallOptions = {}): Promise<Uint8Array[]> {
    return await audit.auditProof(this.#caller, claim, options);
  }
}

