/** What ties the calls and messages of one exchange together, through several agents and hubs: correlation ids, and the W3C trace context. */

/** What something that is being done is part of. */
export interface Work {
  /** What the application named. */
  readonly correlationId?: string | undefined;
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
}

/** Follows what is being done through everything that it awaits. */
export interface WorkStore {
  run<T>(work: Work, body: () => T): T;
  getStore(): Work | undefined;
}

/** Without a store of the platform nothing is tied together by itself. */
let store: WorkStore = { run: (_work, body) => body(), getStore: () => undefined };

/** @internal */
export function keepWorkIn(platform: WorkStore): void {
  store = platform;
}

/** What is being done. */
export function present(): Work {
  return store.getStore() ?? {};
}

/**
 * Ties together all that `body` does with a client: each of its calls, and each message that names nothing else, has this correlation id. It is in
 * the hub's log, in its audit trail, and with those who receive the messages. At most 128 visible ASCII characters; the hub takes no notice of others.
 * Handlers run with that of their message.
 *
 * ```ts
 * await correlated("order-4711", () => agent.send({ to: "packer", text: "pack it" }));
 * ```
 */
export function correlated<T>(correlationId: string, body: () => T): T {
  return store.run({ ...present(), correlationId }, body);
}

/** The correlation id of what is being done, such as in a handler that of its message. Undefined outside of {@link correlated}. */
export function correlationId(): string | undefined {
  return present().correlationId;
}

/** Has all that `body` does with a client be part of a trace: each of its calls, and each message that names no other. Handlers run as part of that of their message. */
export function traced<T>(traceparent: string, tracestate: string, body: () => T): T {
  return store.run({ ...present(), traceparent, tracestate }, body);
}

/** What a header can say. */
const VISIBLE = /^[\x21-\x7e]{1,512}$/;

/** The headers of a call that is made now, with the correlation id that it has where it is part of nothing that has one. */
export function headersOf(ownId: string): Record<string, string> {
  const { correlationId, traceparent, tracestate } = present();
  const headers: Record<string, string> = {};
  const id = correlationId ?? ownId;
  if (VISIBLE.test(id)) headers["x-correlation-id"] = id;
  if (traceparent !== undefined && VISIBLE.test(traceparent)) {
    headers["traceparent"] = traceparent;
    if (tracestate !== undefined && VISIBLE.test(tracestate)) headers["tracestate"] = tracestate;
  }
  return headers;
}
