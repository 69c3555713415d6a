/** Keeps a valid access token: exchanged, refreshed before its end, and renewed where a hub no longer takes it. */

import type { MessageShape } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";

import { AuthService, type TokenResponseSchema } from "../gen/acb/v1/auth_pb.js";
import { clock } from "./backoff.js";
import { type Credential, type Identity, Tokens } from "./credential.js";
import { AcbError, during, failure, malformed } from "./error.js";
import { type Channel, Status } from "./transport.js";
import { within } from "./wait.js";

const ATTEMPT = 10_000;
const SHORTEST = 30_000;
/** RFC 8693. */
const JWT = "urn:ietf:params:oauth:token-type:jwt";

type TokenResponse = MessageShape<typeof TokenResponseSchema>;

/** What a request to the auth service ended as. */
class Denied extends Error {
  constructor(
    /** The connection is at fault; or the hub said no; or what is to be shown to the hub can't be read. */
    readonly kind: "broken" | "refused" | "unreadable",
    readonly error: AcbError,
  ) {
    super(error.message);
  }

  get broken(): boolean {
    return this.kind === "broken";
  }

  /** Whether the same may be answered otherwise later. */
  get mayPass(): boolean {
    return this.kind !== "refused" || this.error.isRetryable;
  }
}

interface Held {
  readonly tokens: Tokens;
  readonly identity: Identity;
  /** When to renew it, by this process's own clock: a hub's clock may differ. */
  renewAt: number;
  endsAt: number;
  readonly serial: number;
}

/** A token for one request. The serial number says which it was, where a hub does not take it. */
export interface Bearer {
  readonly header: string;
  readonly serial: number;
}

/** What {@link Auth.bearer} throws. */
export interface NoBearer {
  readonly error: AcbError;
  readonly broken: boolean;
}

export function isNoBearer(error: unknown): error is NoBearer {
  return error instanceof Denied;
}

export class Auth {
  readonly #credential: Credential;
  #held: Held | undefined;
  /** Callers that come while it is renewed wait for that. */
  #renewal: Promise<Bearer> | undefined;

  constructor(credential: Credential) {
    this.#credential = credential;
  }

  get identity(): Identity | undefined {
    return this.#held?.identity;
  }

  get tokens(): Tokens | undefined {
    return this.#held?.tokens;
  }

  /** The token for the next request. Throws what {@link isNoBearer} knows. */
  async bearer(channel: Channel): Promise<Bearer> {
    const held = this.#held;
    if (held !== undefined && clock.now() < held.renewAt) return bearerOf(held);
    this.#renewal ??= this.#renew(channel).finally(() => {
      this.#renewal = undefined;
    });
    return await this.#renewal;
  }

  /** The hub did not take this token: the next request gets a new one. */
  spoil(serial: number): void {
    if (this.#held?.serial === serial) {
      this.#held.renewAt = -Infinity;
      this.#held.endsAt = -Infinity;
    }
  }

  async #renew(channel: Channel): Promise<Bearer> {
    const held = this.#held;
    try {
      const fresh = hold(await this.#exchange(channel, held), (held?.serial ?? -1) + 1);
      this.#held = fresh;
      return bearerOf(fresh);
    } catch (error) {
      // A token that still holds is better than none.
      if (held !== undefined && clock.now() < held.endsAt && error instanceof Denied && error.mayPass) return bearerOf(held);
      throw error;
    }
  }

  async #exchange(channel: Channel, held: Held | undefined): Promise<TokenResponse> {
    const credential = this.#credential;
    switch (credential.kind) {
      case "tokens":
        return await refresh(channel, held?.tokens ?? credential.tokens);
      case "subjectToken":
        return await exchangeSubject(channel, credential);
      case "apiKey": {
        const exchange = () =>
          answer((signal) =>
            channel.unary(AuthService.method.exchangeToken, { credential: { case: "apiKey", value: credential.key.expose() } }, {}, signal),
          );
        if (held === undefined) return await exchange();
        try {
          return await refresh(channel, held.tokens);
        } catch (error) {
          // The family was revoked or has ended: the key may still be good.
          if (error instanceof Denied && error.kind === "refused" && error.error.code === "UNAUTHENTICATED") return await exchange();
          throw error;
        }
      }
    }
  }
}

function bearerOf(held: Held): Bearer {
  return { header: `Bearer ${held.tokens.access}`, serial: held.serial };
}

async function exchangeSubject(channel: Channel, credential: Extract<Credential, { kind: "subjectToken" }>): Promise<TokenResponse> {
  let subjectToken: string;
  try {
    subjectToken = (await credential.read()).trim();
  } catch (error) {
    // The next look may find it: a token that is held meanwhile goes on.
    throw new Denied("unreadable", failure("USAGE", `the token of the ServiceAccount, ${credential.name}: ${(error as Error).message}`));
  }
  return await answer((signal) =>
    channel.unary(AuthService.method.exchangeSubjectToken, { subjectToken, subjectTokenType: JWT }, {}, signal),
  );
}

function refresh(channel: Channel, tokens: Tokens): Promise<TokenResponse> {
  return answer((signal) => channel.unary(AuthService.method.refreshToken, { refreshToken: tokens.refresh }, {}, signal));
}

async function answer(call: (signal: AbortSignal) => Promise<TokenResponse>): Promise<TokenResponse> {
  try {
    return await within(ATTEMPT, call, () => failure("TIMEOUT", `authentication: no answer within ${ATTEMPT / 1000} s`));
  } catch (error) {
    if (error instanceof AcbError) throw new Denied("broken", error);
    if (!(error instanceof Status)) throw error;
    throw error.broke ? new Denied("broken", error.toError()) : new Denied("refused", during("authentication", error.toError()));
  }
}

function hold(response: TokenResponse, serial: number): Held {
  if (!/^[\x21-\x7e]+$/.test(response.accessToken)) {
    throw new Denied("refused", malformed("authentication: the hub answered with a malformed token"));
  }
  const expiresAt = response.accessTokenExpiresAt === undefined ? new Date(0) : timestampDate(response.accessTokenExpiresAt);
  const lifetime = Math.max(expiresAt.getTime() - Date.now(), SHORTEST);
  const now = clock.now();
  return {
    tokens: new Tokens(response.accessToken, response.refreshToken, expiresAt),
    identity: { tenant: response.tenant, agent: response.agent, agentId: response.agentId },
    renewAt: now + lifetime * 0.8,
    endsAt: now + lifetime,
    serial,
  };
}
