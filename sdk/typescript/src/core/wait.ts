/** Waiting that always ends: with what was waited for, with a time that is over, or with an abort. */

/** A signal, where there is one. */
export type Ending = AbortSignal | undefined;

/** The longest that a timer of JavaScript takes. */
const LONGEST = 0x7fffffff;

/** Throws the reason of the first of these that is aborted. */
export function throwIfAny(signals: readonly Ending[]): void {
  for (const signal of signals) signal?.throwIfAborted();
}

/** Calls `aborted` with the reason of one of these that is aborted from now on. What it gives ends that. */
function listen(signals: readonly Ending[], aborted: (reason: unknown) => void): () => void {
  const heard = (event: Event) => aborted((event.target as AbortSignal).reason);
  for (const signal of signals) signal?.addEventListener("abort", heard, { once: true });
  return () => {
    for (const signal of signals) signal?.removeEventListener("abort", heard);
  };
}

/** What `body` comes to, or what `late` says once the time is over. The signal that `body` gets is aborted then, and where one of the outer ones is. */
export async function within<T>(
  ms: number,
  body: (signal: AbortSignal) => Promise<T>,
  late: () => Error,
  ...outer: Ending[]
): Promise<T> {
  throwIfAny(outer);
  const inner = new AbortController();
  const { promise, reject } = deferred<never>();
  const timer = setTimeout(() => reject(late()), Math.min(ms, LONGEST));
  const deaf = listen(outer, reject);
  try {
    return await Promise.race([body(inner.signal), promise]);
  } finally {
    clearTimeout(timer);
    deaf();
    inner.abort();
  }
}

/** Throws the reason of a signal once it is aborted. */
export function sleep(ms: number, ...signals: Ending[]): Promise<void> {
  return new Promise((resolve, reject) => {
    throwIfAny(signals);
    const timer = setTimeout(() => {
      deaf();
      resolve();
    }, ms);
    const deaf = listen(signals, (reason) => {
      clearTimeout(timer);
      deaf();
      reject(reason);
    });
  });
}

export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

export function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  // Whoever waits hears of it all the same; who does not wait does not end the process.
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}

/** Rejects with the reason of a signal where one is aborted first. */
export async function abortable<T>(work: Promise<T>, ...signals: Ending[]): Promise<T> {
  if (signals.every((signal) => signal === undefined)) return await work;
  // What it comes to later is of no interest, and must not end the process.
  work.catch(() => undefined);
  throwIfAny(signals);
  const { promise, reject } = deferred<never>();
  const deaf = listen(signals, reject);
  try {
    return await Promise.race([work, promise]);
  } finally {
    deaf();
  }
}

/** Wakes the one that waits; a wake that nobody waited for is kept. */
export class Wake {
  #woken = false;
  #waiting: (() => void) | undefined;

  notify(): void {
    this.#woken = true;
    this.#waiting?.();
  }

  /** Until it is woken, or until so many milliseconds are over. */
  async wait(ms = Infinity): Promise<void> {
    if (!this.#woken) {
      await new Promise<void>((resolve) => {
        const timer = ms === Infinity ? undefined : setTimeout(resolve, Math.max(0, Math.min(ms, 0x7fffffff)));
        this.#waiting = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#woken = false;
    this.#waiting = undefined;
  }
}
