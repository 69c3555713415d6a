/** How long to wait before the next try, and when to stop trying. */

import { type AcbError, during } from "./error.js";

const FIRST = 50;
const MOST = 5_000;

/** How the SDK sees time, so that tests can have another one. */
export interface Clock {
  now(): number;
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  random(): number;
}

/** Milliseconds that never go back. */
export const clock: Clock = {
  now: () => performance.now(),
  sleep,
  random: Math.random,
};

/** Throws the reason of the signal once it is aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, ms);
    const aborted = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", aborted, { once: true });
  });
}

/**
 * Exponential backoff with jitter, within a time that progress renews. It runs from the first failure: what went well for long, and then breaks, has
 * all of it.
 */
export class Patience {
  #until: number | undefined;
  #next = FIRST;

  constructor(
    readonly within: number,
    readonly time: Clock = clock,
  ) {}

  /** Something succeeded: the full time again. */
  renew(): void {
    this.#until = undefined;
    this.#next = FIRST;
  }

  /** Waits before the next try, or throws the error where the time is over. */
  async wait(error: AcbError, signal?: AbortSignal): Promise<void> {
    const pause = this.#next * (0.5 + this.time.random() / 2);
    const now = this.time.now();
    this.#until ??= now + this.within;
    if (now + pause > this.#until) throw during(`gave up after ${Math.round(this.within / 1000)} s`, error);
    this.#next = Math.min(this.#next * 2, MOST);
    await this.time.sleep(pause, signal);
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
