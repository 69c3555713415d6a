/** Streams a large context out of the hub, verifies it, and goes on where a connection broke. */

import { type Chunk, StreamService } from "../gen/acb/v1/stream_pb.js";
import { ATTEMPT, type Caller, type Line } from "./caller.js";
import { context as getContext, type Context, type PayloadRef } from "./contexts.js";
import { during, failure, isOurs } from "./error.js";
import { Broke, isSame, noteResumption, type Progress, type Resumption, STALLED, tell, tries, Whole } from "./transfer.js";
import { within } from "./wait.js";

export interface DownloadOptions {
  /** Told whenever more of it was verified and written. Must not block; where it throws, that is logged. */
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}

/** Takes the payload, part by part. The next part comes when it has taken this one. */
export type Sink = ((data: Uint8Array) => unknown) | WritableStream<Uint8Array>;

/** A finished download: verified against the checksums of each chunk and of the whole. */
export interface Downloaded {
  /** The context. */
  readonly context: Context;
  /** Where it went on after a broken connection, in order. */
  readonly resumptions: readonly Resumption[];
  /** Bytes that were written. */
  readonly bytes: number;
  /** SHA-256 of what was written. */
  readonly sha256: Uint8Array;
}

/** The application did not take a part: trying again would not help. */
class Untaken extends Error {
  constructor(override readonly cause: unknown) {
    super("the sink failed");
  }
}

export async function download(caller: Caller, contextId: string, sink: Sink, options: DownloadOptions): Promise<Downloaded> {
  const writer = typeof sink === "function" ? undefined : sink.getWriter();
  const write = typeof sink === "function" ? sink : (data: Uint8Array) => writer?.write(data);
  try {
    const downloaded = await caller.tied((id) => new Download(caller, contextId, write, options, id).run());
    await writer?.close();
    return downloaded;
  } catch (error) {
    await writer?.abort(error).catch(() => undefined);
    if (error instanceof Untaken) throw error.cause;
    throw isOurs(error) ? during(`download ${contextId}`, error) : error;
  }
}

class Download {
  readonly #caller: Caller;
  readonly #contextId: string;
  readonly #write: (data: Uint8Array) => unknown;
  readonly #options: DownloadOptions;
  readonly #correlationId: string;
  readonly #whole: Whole;
  readonly #resumptions: Resumption[] = [];
  #bytes = 0;

  constructor(caller: Caller, contextId: string, write: (data: Uint8Array) => unknown, options: DownloadOptions, correlationId: string) {
    this.#caller = caller;
    this.#contextId = contextId;
    this.#write = write;
    this.#options = options;
    this.#correlationId = correlationId;
    this.#whole = new Whole(caller.platform.sha256());
  }

  async run(): Promise<Downloaded> {
    const { signal } = this.#options;
    const context = await getContext(this.#caller, this.#contextId, { signal });
    if (context.payloadRef === undefined) await this.#take(context.payload, context.payload.length);
    else await this.#stream(context.payloadRef);
    const sha256 = this.#whole.digest();
    if (!isSame(context.checksum, sha256)) throw failure("DAMAGED", "what was received does not have the checksum of the context");
    return { context, resumptions: this.#resumptions, bytes: this.#bytes, sha256 };
  }

  async #take(data: Uint8Array, total: number): Promise<void> {
    try {
      await this.#write(data);
    } catch (error) {
      throw new Untaken(error);
    }
    this.#whole.take(data);
    this.#bytes += data.length;
    tell(this.#caller.platform.log, this.#options.onProgress, { bytes: this.#bytes, total });
  }

  async #stream(wanted: PayloadRef): Promise<void> {
    try {
      await tries(this.#caller, {
        doing: `download ${this.#contextId}`,
        correlationId: this.#correlationId,
        signal: this.#options.signal,
        done: () => this.#whole.chunks,
        attempt: (line, broke) => this.#attempt(line, wanted, broke),
      });
    } catch (error) {
      throw isOurs(error) ? during(`${this.#whole.chunks} of ${wanted.chunkCount} chunks were received`, error) : error;
    }
  }

  async #attempt(line: Line, wanted: PayloadRef, resumed: boolean): Promise<void> {
    const { signal } = this.#options;
    const request = { contextId: this.#contextId, fromChunk: this.#whole.chunks };
    const incoming = line.channel.receiving(StreamService.method.receiveContext, request, line.headers);
    let answered = false;
    try {
      while (this.#whole.chunks < wanted.chunkCount) {
        const late = () => new Broke(answered ? "nothing came for a while" : "no answer in time");
        const answer = await within(answered ? STALLED : ATTEMPT, () => incoming.receive(), late, signal);
        if (answer === undefined) throw new Broke("the hub closed the stream");
        if (!answered && resumed) noteResumption(this.#resumptions, this.#whole.chunks, "");
        answered = true;
        if (answer.frame.case === "chunk") await this.#take(this.#verified(answer.frame.value, wanted), wanted.size);
      }
    } finally {
      incoming.cancel();
    }
  }

  /** The chunk's data if it is the next one and undamaged. */
  #verified(chunk: Chunk, wanted: PayloadRef): Uint8Array {
    const next = this.#whole.chunks;
    const length = Math.max(0, Math.min(wanted.chunkSize, wanted.size - next * wanted.chunkSize));
    const { index, data } = chunk;
    if (index !== next || data.length !== length) {
      throw new Broke(`chunk ${next} of ${length} bytes was due, and chunk ${index} of ${data.length} bytes came`, "DAMAGED");
    }
    const hash = this.#caller.platform.sha256();
    hash.update(data);
    if (!isSame(hash.digest(), chunk.sha256)) throw new Broke(`chunk ${next} does not have its checksum`, "DAMAGED");
    return data;
  }
}
