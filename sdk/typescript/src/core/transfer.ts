/** What uploads and downloads share. */

import type { Hasher, Logger } from "./transport.js";

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
