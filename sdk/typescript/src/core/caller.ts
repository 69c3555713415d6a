/** Makes calls of one tenant's hub: with a token, again where that helps and is allowed, on whichever replica answers. */

import type { DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";

import { Auth, type Bearer, isNoBearer } from "./auth.js";
import { clock, Limited, Patience } from "./backoff.js";
import type { Credential } from "./credential.js";
import { type AcbError, during, failure, isOurs, ofCall } from "./error.js";
import { type Channel, type Headers, type Link, type Platform, type Replicas, Status } from "./transport.js";
import { within } from "./wait.js";
import { headersOf, present } from "./work.js";

/** How long a call may take, unless something else is said. */
export const ATTEMPT = 15_000;

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
  /** The caller waits no longer than until then for a limit that has no room. */
  readonly until?: number;
}

export class Caller {
  readonly #replicas: Replicas;
  readonly #auth: Auth;
  #replica: string | undefined;

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
    return (await this.#replicas.link()).endpoint;
  }

  patience(): Patience {
    return new Patience(this.retryFor);
  }

  close(): void {
    this.#replicas.close();
  }

  /** An authenticated connection. */
  async line(correlationId = ""): Promise<Line> {
    const link: Link = await this.#replicas.link();
    let bearer: Bearer;
    try {
      bearer = await this.#auth.bearer(link.channel);
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
        return await this.#tries(id, call);
      } catch (error) {
        throw isOurs(error) ? during(what, error) : error;
      }
    });
  }

  /** Gives something, with all its tries, a correlation id of its own where it is part of nothing that has one. */
  async tied<T>(body: (correlationId: string) => Promise<T>): Promise<T> {
    const id = present().correlationId ?? crypto.randomUUID();
    try {
      return await body(id);
    } catch (error) {
      throw isOurs(error) ? ofCall(id, error) : error;
    }
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
        line = await this.line(id);
        const { channel, headers } = line;
        const late = () => failure("TIMEOUT", `no answer within ${Math.round(withinMs / 1000)} s`);
        return await within(withinMs, (ending) => channel.unary(method, request(), headers, ending), late, signal);
      } catch (thrown) {
        if (thrown instanceof Status && line !== undefined) {
          const next = this.judge(line, thrown, renewal);
          if (next.kind === "again") continue;
          if (next.kind === "never" || retry !== "always") {
            const again = limited.againAt(next.error);
            if (again === undefined || again > until) throw next.error;
            this.platform.log.warn("waiting for a limit", { error: next.error.message });
            await clock.sleep(again - clock.now(), signal);
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
