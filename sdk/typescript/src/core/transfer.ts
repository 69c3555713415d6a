/** What uploads and downloads share. */

import type { Caller, Line, Renewal } from "./caller.js";
import { type AcbError, failure, isOurs } from "./error.js";
import { type Hasher, type Logger, Status } from "./transport.js";

/** A hub that stores or sends nothing for so long is as good as gone. */
export const STALLED = 30_000;

/** How far a transfer is. */
export interface Progress {
  /** Bytes that are durable at the other end, or verified and written at this one. */
  readonly bytes: number;
  /** Bytes in all. */
  readonly total: number;
}

/** Tells how far it is. One that is told and fails must not end the transfer. */
export function tell(log: Logger, onProgress: ((progress: Progress) => void) | undefined, progress: Progress): void {
  try {
    onProgress?.(progress);
  } catch (error) {
    log.error("onProgress failed", { error });
  }
}

/** Where a transfer went on after its connection broke. */
export interface Resumption {
  /** The first chunk that was transferred afterwards. */
  readonly fromChunk: number;
  /** The name of the replica that it went on with. Empty where that is not known. */
  readonly replica: string;
}

/** The hash of a whole payload, fed chunk by chunk in order. */
export class Whole {
  readonly #hash: Hasher;
  #chunks = 0;

  constructor(hash: Hasher) {
    this.#hash = hash;
  }

  /** How many chunks it has taken. */
  get chunks(): number {
    return this.#chunks;
  }

  /** Takes the next chunk. */
  take(data: Uint8Array): void {
    this.#hash.update(data);
    this.#chunks += 1;
  }

  digest(): Uint8Array {
    return this.#hash.digest();
  }
}

/** Adds a resumption that made a difference: not one on which nothing was transferred before the next break. */
export function noteResumption(resumptions: Resumption[], fromChunk: number, replica: string): void {
  if (resumptions.at(-1)?.fromChunk === fromChunk) resumptions.pop();
  resumptions.push({ fromChunk, replica });
}

export function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

/** The connection is at fault, or damaged what it carried: the transfer goes on over another one. */
export class Broke extends Error {
  constructor(
    message: string,
    readonly reason: "UNAVAILABLE" | "DAMAGED" = "UNAVAILABLE",
  ) {
    super(message);
  }
}

/** A transfer, as what tries it again sees it. */
export interface Transfer<T> {
  /** Such as `upload 0190…`, for the log. */
  readonly doing: string;
  readonly correlationId: string;
  readonly signal: AbortSignal | undefined;
  /** Chunks that are over. */
  done(): number;
  /** Goes on from there to the end, over this connection. `broke`: an earlier connection has broken. */
  attempt(line: Line, broke: boolean): Promise<T>;
}

/** Tries it again where a connection breaks. The time for that starts anew whenever it got further. */
export async function tries<T>(caller: Caller, transfer: Transfer<T>): Promise<T> {
  const { doing, correlationId, signal } = transfer;
  const patience = caller.patience();
  const renewal: Renewal = { renewed: false };
  let broke = false;
  for (;;) {
    signal?.throwIfAborted();
    const before = transfer.done();
    let error: AcbError;
    let line: Line | undefined;
    try {
      line = await caller.line(correlationId, patience, signal);
      return await transfer.attempt(line, broke);
    } catch (thrown) {
      if (thrown instanceof Status && line !== undefined) {
        const next = caller.judge(line, thrown, renewal);
        if (next.kind === "again") continue;
        if (next.kind === "never") throw next.error;
        error = next.error;
      } else if (thrown instanceof Broke && line !== undefined) {
        caller.leave(line);
        error = failure(thrown.reason, thrown.message);
      } else if (isOurs(thrown) && thrown.isRetryable && line === undefined) {
        error = thrown;
      } else {
        throw thrown;
      }
    }
    broke = true;
    if (transfer.done() > before) {
      patience.renew();
      renewal.renewed = false;
    }
    caller.platform.log.debug("a transfer broke, and goes on", { transfer: doing, chunks: transfer.done(), error: error.message });
    await patience.wait(error, signal);
  }
}
