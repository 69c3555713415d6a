/** What a client proves itself with. Nothing here shows its secret when it is printed. */

import { failure } from "./error.js";

/** An access token and the refresh token that renews it. */
export class Tokens {
  readonly #access: string;
  readonly #refresh: string;

  constructor(
    access: string,
    refresh: string,
    /** When the access token ends. */
    readonly accessExpiresAt: Date,
  ) {
    this.#access = access;
    this.#refresh = refresh;
  }

  /** Sent with each request. Do not log it. */
  get access(): string {
    return this.#access;
  }

  /** Exchanged once for new tokens. Empty where there is none: the token of a ServiceAccount is exchanged anew instead. Do not log it. */
  get refresh(): string {
    return this.#refresh;
  }
}

/** Whom the tokens of a client speak for. */
export interface Identity {
  /** The tenant's name. */
  readonly tenant: string;
  /** The agent's name. */
  readonly agent: string;
  /** The UID of the Agent resource. */
  readonly agentId: string;
}

/** An API key, `acb_<prefix>_<secret>`. */
export class ApiKey {
  readonly #text: string;

  private constructor(text: string) {
    this.#text = text;
  }

  /** Reads one; spaces and line ends around it are dropped. */
  static parse(text: string): ApiKey {
    const trimmed = text.trim();
    if (!/^acb_[^_]+_.+$/.test(trimmed) || !/^[\x21-\x7e]+$/.test(trimmed)) {
      throw failure("USAGE", "this is not an API key: one looks like acb_<prefix>_<secret>");
    }
    return new ApiKey(trimmed);
  }

  /** The whole key. Do not log it. */
  expose(): string {
    return this.#text;
  }

  toString(): string {
    return `acb_${this.#text.split("_")[1] ?? ""}_…`;
  }

  toJSON(): string {
    return this.toString();
  }
}

/** What is exchanged for tokens. */
export type Credential =
  | { readonly kind: "apiKey"; readonly key: ApiKey }
  | { readonly kind: "tokens"; readonly tokens: Tokens }
  /** The token of a ServiceAccount. It is read each time, since the kubelet replaces its file. */
  | { readonly kind: "subjectToken"; readonly name: string; read(): Promise<string> };
