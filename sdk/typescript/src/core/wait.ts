/** Waiting that always ends: with what was waited for, with a time that is over, or with an abort. */

/** What `body` comes to, or what `late` says once the time is over. The signal that `body` gets is aborted then, and where the outer one is. */
export async function within<T>(
  ms: number,
  body: (signal: AbortSignal) => Promise<T>,
  late: () => Error,
  outer?: AbortSignal,
): Promise<T> {
  outer?.throwIfAborted();
  const inner = new AbortController();
  const { promise, reject } = deferred<never>();
  const timer = setTimeout(() => reject(late()), ms);
  const aborted = () => reject(outer?.reason as Error);
  outer?.addEventListener("abort", aborted, { once: true });
  try {
    return await Promise.race([body(inner.signal), promise]);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", aborted);
    inner.abort();
  }
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

/** Rejects with the reason of the signal where that is aborted first. */
export async function abortable<T>(work: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (signal === undefined) return await work;
  // What it comes to later is of no interest, and must not end the process.
  work.catch(() => undefined);
  signal.throwIfAborted();
  const { promise, reject } = deferred<never>();
  const aborted = () => reject(signal.reason);
  signal.addEventListener("abort", aborted, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", aborted);
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
