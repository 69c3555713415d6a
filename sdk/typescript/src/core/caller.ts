/** Makes calls of one tenant's hub: with a token, again where that helps and is allowed, on whichever replica answers. */

import type { DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";

import { Auth, type Bearer, isNoBearer } from "./auth.js";
import { clock, Limited, Patience } from "./backoff.js";
import type { Credential } from "./credential.js";
import { type AcbError, during, failure, isOurs, ofCall } from "./error.js";
import { type Channel, type Headers, type Link, type Platform, type Replicas, Status } from "./transport.js";
import { abortable, type Ending, within } from "./wait.js";
import { headersOf, present } from "./work.js";

/** How long a call may take, unless something else is said. */
export const ATTEMPT = 15_000;
/** How much longer than its caller a call waits, so that what the hub says of a time that is over is heard. */
const SLACK = 1_000;

/** When a call may be made a second time: twice is as good as once, or only as long as it certainly was not done. */
export type Retry = "always" | "beforeSent";

/** An authenticated connection for one call. */
export interface Line {
  readonly channel: Channel;
  readonly headers: Headers;
  readonly link: number;
  readonly serial: number;
}

/** What to do about a failed call: try again at once with a new token, or after a pause on whichever replica answers, or not. */
export type Next = { readonly kind: "again" } | { readonly kind: "later" | "never"; readonly error: AcbError };

/** A new token is tried once. */
export interface Renewal {
  renewed: boolean;
}

export interface CallOptions {
  /** Ends the call: it throws the reason of the signal. */
  readonly signal?: AbortSignal | undefined;
}

export interface Call<M extends DescMethodUnary> extends CallOptions {
  readonly method: M;
  /** Made anew for each try. */
  readonly request: () => MessageInitShape<M["input"]>;
  readonly retry?: Retry;
  readonly withinMs?: number;
  /** The caller waits no longer than until then, whatever is waited for: a connection, an answer, another try, a limit that has no room. */
  readonly until?: number;
}

export class Caller {
  readonly #replicas: Replicas;
  readonly #auth: Auth;
  #replica: string | undefined;
  readonly #ending = new AbortController();

  constructor(
    replicas: Replicas,
    credential: Credential,
    readonly retryFor: number,
    readonly platform: Platform,
  ) {
    this.#replicas = replicas;
    this.#auth = new Auth(credential);
  }

  get auth(): Auth {
    return this.#auth;
  }

  /** The name of the replica that last answered a session or a transfer. */
  get replica(): string | undefined {
    return this.#replica;
  }

  nameReplica(name: string): void {
    if (name !== "") this.#replica = name;
  }

  async endpoint(): Promise<string> {
    return (await abortable(this.#replicas.link(), this.#ending.signal)).endpoint;
  }

  /** It ends with the client. */
  patience(ms = this.retryFor): Patience {
    return new Patience(ms, clock, this.#ending.signal);
  }

  /** Ends everything that waits, and each call, with `UNAVAILABLE`. */
  close(): void {
    this.#ending.abort(failure("UNAVAILABLE", "the client is closed"));
    this.#replicas.close();
  }

  /** An authenticated connection, in what is left of the patience. */
  async line(correlationId: string, patience: Patience, ...signals: Ending[]): Promise<Line> {
    return await patience.connecting((ending) => this.#line(correlationId, ending), ...signals);
  }

  async #line(correlationId: string, ending: AbortSignal): Promise<Line> {
    // Others may wait for the same connection or token: what one of them gives up goes on.
    const link: Link = await abortable(this.#replicas.link(), ending);
    let bearer: Bearer;
    try {
      bearer = await abortable(this.#auth.bearer(link.channel), ending);
    } catch (error) {
      if (!isNoBearer(error)) throw error;
      if (error.broken) this.#replicas.leave(link.id);
      throw error.error;
    }
    const headers = { authorization: bearer.header, ...headersOf(correlationId) };
    return { channel: link.channel, headers, link: link.id, serial: bearer.serial };
  }

  /** Goes to another replica with the next call. */
  leave(line: Line): void {
    this.#replicas.leave(line.link);
  }

  /** What to do after a failed call. */
  judge(line: Line, status: Status, renewal: Renewal): Next {
    if (status.code === "UNAUTHENTICATED" && !status.broke && !renewal.renewed) {
      renewal.renewed = true;
      this.#auth.spoil(line.serial);
      return { kind: "again" };
    }
    if (status.broke) {
      this.leave(line);
      return { kind: "later", error: status.toError() };
    }
    return { kind: "never", error: status.toError() };
  }

  /** Makes a unary call. */
  async call<M extends DescMethodUnary>(what: string, call: Call<M>): Promise<MessageShape<M["output"]>> {
    return await this.tied(async (id) => {
      try {
        return await this.#inTime(id, call);
      } catch (error) {
        throw isOurs(error) ? during(what, error) : error;
      }
    });
  }

  /** Gives something, with all its tries, a correlation id of its own where it is part of nothing that has one. */
  async tied<T>(body: (correlationId: string) => Promise<T>): Promise<T> {
    // What is on its way when the client is closed fails with UNAVAILABLE. What is begun afterwards is a mistake.
    if (this.#ending.signal.aborted) throw failure("USAGE", "the client is closed");
    const id = present().correlationId ?? crypto.randomUUID();
    try {
      return await body(id);
    } catch (error) {
      throw isOurs(error) ? ofCall(id, error) : error;
    }
  }

  async #inTime<M extends DescMethodUnary>(id: string, call: Call<M>): Promise<MessageShape<M["output"]>> {
    const { until = Infinity, signal } = call;
    if (until === Infinity) return await this.#tries(id, call);
    const left = Math.max(until - clock.now(), 0);
    const late = () => failure("TIMEOUT", `no answer within ${Math.round(left / 1000)} s`);
    return await within(left + SLACK, (ending) => this.#tries(id, { ...call, signal: ending }), late, signal, this.#ending.signal);
  }

  async #tries<M extends DescMethodUnary>(id: string, call: Call<M>): Promise<MessageShape<M["output"]>> {
    const { signal, method, request, retry = "always", withinMs = ATTEMPT, until = Infinity } = call;
    const patience = this.patience();
    const limited = new Limited();
    const renewal: Renewal = { renewed: false };
    for (;;) {
      signal?.throwIfAborted();
      let error: AcbError;
      let line: Line | undefined;
      try {
        const began = clock.now();
        line = await this.line(id, patience, signal);
        const { channel, headers } = line;
        const late = () => failure("TIMEOUT", `no answer within ${Math.round(withinMs / 1000)} s`);
        // Connecting is part of its time; what was sent has some of it all the same.
        const left = Math.max(withinMs - (clock.now() - began), SLACK);
        return await within(left, (ending) => channel.unary(method, request(), headers, ending), late, signal, this.#ending.signal);
      } catch (thrown) {
        if (thrown instanceof Status && line !== undefined) {
          const next = this.judge(line, thrown, renewal);
          if (next.kind === "again") continue;
          if (next.kind === "never" || retry !== "always") {
            const again = limited.againAt(next.error);
            if (again === undefined || again > until) throw next.error;
            this.platform.log.warn("waiting for a limit", { error: next.error.message });
            await clock.sleep(again - clock.now(), signal, this.#ending.signal);
            continue;
          }
          error = next.error;
        } else if (isOurs(thrown)) {
          // A time that is over says nothing of whether the call was done; without a line nothing was sent.
          if (line !== undefined) this.leave(line);
          if (!thrown.isRetryable || (line !== undefined && retry === "beforeSent")) throw thrown;
          error = thrown;
        } else {
          throw thrown;
        }
      }
      await patience.wait(error, signal);
    }
  }
}

/** Every item of a list that comes in pages, fetching a page when the one before is used up. */
export async function* pages<T>(fetch: (pageToken: string) => Promise<{ items: T[]; next: string }>): AsyncGenerator<T, void, undefined> {
  let token = "";
  do {
    const page = await fetch(token);
    yield* page.items;
    token = page.next;
  } while (token !== "");
}
