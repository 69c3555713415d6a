/** How long to wait before the next try, and when to stop trying. */

import { type AcbError, during, failure } from "./error.js";
import { type Ending, sleep, within } from "./wait.js";

const FIRST = 50;
const MOST = 5_000;
/** What connecting may take at least, however short the time is in which something is tried again. */
const CONNECTING = 5_000;

/** How the SDK sees time, so that tests can have another one. */
export interface Clock {
  now(): number;
  sleep(ms: number, ...signals: Ending[]): Promise<void>;
  random(): number;
}

/** Milliseconds that never go back. */
export const clock: Clock = {
  now: () => performance.now(),
  sleep,
  random: Math.random,
};

/**
 * Exponential backoff with jitter, within a time that progress renews. It runs from the first failure: what went well for long, and then breaks, has
 * all of it. Connecting that fails counts from its beginning.
 */
export class Patience {
  #until: number | undefined;
  #next = FIRST;
  /** Why the last try failed: what is cut short says that, too. */
  #last: AcbError | undefined;

  constructor(
    readonly within: number,
    readonly time: Clock = clock,
    /** Ends all its waits, with its reason. */
    readonly ending?: AbortSignal,
  ) {}

  /** Something succeeded: the full time again. */
  renew(): void {
    this.#until = undefined;
    this.#next = FIRST;
    this.#last = undefined;
  }

  /** Connects, in what is left of the time. */
  async connecting<T>(body: (ending: AbortSignal) => Promise<T>, ...signals: Ending[]): Promise<T> {
    const isFirst = this.#until === undefined;
    const now = this.time.now();
    this.#until ??= now + this.within;
    const left = Math.max(this.#until - now, isFirst ? CONNECTING : 0);
    const late = () => this.#last ?? failure("UNAVAILABLE", "no replica of the hub answers in time");
    const connected = await within(left, body, late, this.ending, ...signals);
    if (isFirst) this.#until = undefined;
    return connected;
  }

  /** Waits before the next try, or throws the error where the time is over. */
  async wait(error: AcbError, signal?: AbortSignal): Promise<void> {
    this.ending?.throwIfAborted();
    this.#last = error;
    const pause = this.#next * (0.5 + this.time.random() / 2);
    const now = this.time.now();
    this.#until ??= now + this.within;
    if (now + pause > this.#until) throw during(`gave up after ${Math.round(this.within / 1000)} s`, error);
    this.#next = Math.min(this.#next * 2, MOST);
    await this.time.sleep(pause, signal, this.ending);
  }
}

/** How long one message or call is kept back, all in all, while a limit has no room for it. */
const LIMITED = 120_000;
/** When a limit has room again, not everybody comes at once. */
const SPREAD = 1_000;
/** The reason of a refusal where a month is used up. Nothing waits for the next one: not even at its end, when it is near. */
const MONTH_USED_UP = "MONTHLY_LIMIT_EXCEEDED";

/** Waits of one message or call for a limit. */
export class Limited {
  #until: number | undefined;

  constructor(readonly time: Clock = clock) {}

  /** When to try again after this error, by the clock. Undefined where it is of no limit, or where the wait would be too long. */
  againAt(error: AcbError): number | undefined {
    if (error.reason === MONTH_USED_UP || error.retryAfter === undefined) return undefined;
    const now = this.time.now();
    const again = now + error.retryAfter + SPREAD * this.time.random();
    this.#until ??= now + LIMITED;
    return again <= this.#until ? again : undefined;
  }
}
