/** Streams a large context into the hub, and goes on where a connection broke. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import {
  type StreamContextRequestSchema,
  type StreamContextResponse,
  StreamContextRequest_StartSchema,
  type StreamProgress as WireProgress,
  StreamService,
} from "../gen/acb/v1/stream_pb.js";
import { ATTEMPT, type Caller, type CallOptions, type Line } from "./caller.js";
import { accessOf, Context, type Sharing, SHARING_KEYS } from "./contexts.js";
import { during, failure, isOurs, malformed } from "./error.js";
import { known } from "./known.js";
import { Broke, noteResumption, type Progress, type Resumption, STALLED, tell, tries, Whole } from "./transfer.js";
import type { Duplex } from "./transport.js";
import { deferred, within } from "./wait.js";
import { duration } from "./wire.js";

/** Chunks sent and not yet durable. */
const WINDOW = 8;
const MOST = 100 << 20;
const LARGEST_CHUNK = 2 << 20;

/** What can be read anywhere: a part that was lost on the way is read again. */
export interface Source {
  /** Bytes in all. */
  readonly size: number;
  /** Exactly so many bytes from there on. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

export interface UploadOptions extends Sharing {
  /** What the payload is. */
  readonly contentType?: string;
  /** Goes on with an upload that an earlier process left unfinished. */
  readonly uploadId?: string;
  /** Told whenever more of it is durable. Must not block; where it throws, that is logged. */
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}

/** A finished upload. */
export interface Uploaded {
  /** The context that it became. */
  readonly context: Context;
  /** The id that it had: to go on in another process, choose one beforehand. */
  readonly uploadId: string;
  /** Where it went on after a broken connection, in order. */
  readonly resumptions: readonly Resumption[];
  /** The replicas that took part, in order. */
  readonly replicas: readonly string[];
  readonly bytes: number;
  /** SHA-256 of the payload. */
  readonly sha256: Uint8Array;
}

/** How far an upload is. */
export interface UploadProgress {
  readonly uploadId: string;
  /** The first chunk that is not stored: every lower one is durable. */
  readonly nextChunk: number;
  readonly chunkCount: number;
  readonly chunkSize: number;
  readonly bytesStored: number;
  readonly size: number;
  /** Set once the upload is finished. */
  readonly contextId: string;
  readonly replica: string;
}

type Frame = MessageInitShape<typeof StreamContextRequestSchema>;
type Stream = Duplex<typeof StreamService.method.streamContext>;

export async function uploadProgress(caller: Caller, uploadId: string, options: CallOptions): Promise<UploadProgress> {
  const method = StreamService.method.getStreamProgress;
  const wire = await caller.call("get stream progress", { method, request: () => ({ uploadId }), ...options });
  const { nextChunk, chunkCount, chunkSize, contextId, replica } = wire;
  return { uploadId: wire.uploadId, nextChunk, chunkCount, chunkSize, bytesStored: Number(wire.bytesStored), size: Number(wire.size), contextId, replica };
}

export async function upload(caller: Caller, type: string, source: Source, options: UploadOptions): Promise<Uploaded> {
  if (!Number.isInteger(source.size) || source.size < 1 || source.size > MOST) {
    throw failure("USAGE", `a payload of ${source.size} bytes can't be streamed: 1 to ${MOST} bytes can`);
  }
  known("an upload", options, [...SHARING_KEYS, "contentType", "uploadId", "onProgress", "signal"]);
  return await caller.tied((id) => new Upload(caller, type, source, options, id).run());
}

class Upload {
  readonly #caller: Caller;
  readonly #source: Source;
  readonly #options: UploadOptions;
  readonly #correlationId: string;
  readonly #uploadId: string;
  readonly #start: Frame;
  readonly #whole: Whole;
  /** The hub's last word on it. Undefined until it has answered once. */
  #stored: WireProgress | undefined;
  readonly #resumptions: Resumption[] = [];
  readonly #replicas: string[] = [];

  constructor(caller: Caller, type: string, source: Source, options: UploadOptions, correlationId: string) {
    this.#caller = caller;
    this.#source = source;
    this.#options = options;
    this.#correlationId = correlationId;
    this.#uploadId = options.uploadId ?? crypto.randomUUID();
    this.#whole = new Whole(caller.platform.sha256());
    const { contentType = "", metadata = {}, ttlMs, scope } = options;
    const value = create(StreamContextRequest_StartSchema, {
      type,
      size: BigInt(source.size),
      metadata: { ...metadata },
      contentType,
      ...(ttlMs === undefined ? {} : { ttl: duration(ttlMs)! }),
      access: accessOf(scope),
      uploadId: this.#uploadId,
    });
    this.#start = { frame: { case: "start", value } };
  }

  async run(): Promise<Uploaded> {
    try {
      const answer = await tries(this.#caller, {
        doing: `upload ${this.#uploadId}`,
        correlationId: this.#correlationId,
        signal: this.#options.signal,
        done: () => this.#nextChunk,
        attempt: (line) => this.#attempt(line),
      });
      const context = new Context(answer);
      const { size: bytes } = this.#source;
      const [uploadId, resumptions, replicas] = [this.#uploadId, this.#resumptions, this.#replicas];
      return { context, uploadId, resumptions, replicas, bytes, sha256: this.#whole.digest() };
    } catch (error) {
      throw isOurs(error) ? during(this.#whereabouts(), error) : error;
    }
  }

  async #attempt(line: Line) {
    const { signal } = this.#options;
    const stream = line.channel.duplex(StreamService.method.streamContext, line.headers);
    try {
      stream.send(this.#stored === undefined ? this.#start : { frame: { case: "resume", value: { uploadId: this.#uploadId } } });
      const late = () => new Broke("the hub did not answer the stream in time");
      const answer = await within(ATTEMPT, () => stream.receive(), late, signal);
      if (answer?.frame.case === "context") return answer.frame.value;
      if (answer?.frame.case !== "progress") throw new Broke("the hub closed the stream at once");
      const progress = answer.frame.value;
      this.#begin(progress);
      // Where it was finished, and only the answer was lost, the hub says again what became of it, if that is what is here.
      const from = progress.contextId === "" ? progress.nextChunk : progress.chunkCount;
      while (this.#whole.chunks < from) await this.#chunk(this.#whole.chunks, progress);
      return await this.#exchange(stream, from, progress);
    } finally {
      stream.cancel();
    }
  }

  /** Sends and listens at once, until the hub has said what became of it. */
  async #exchange(stream: Stream, from: number, shape: WireProgress) {
    let over = false;
    let moved = deferred<void>();
    const move = () => {
      moved.resolve();
      moved = deferred<void>();
    };
    const sending = async () => {
      for (let next = from; next < shape.chunkCount; next += 1) {
        while (!over && next - Math.min(this.#nextChunk, next) >= WINDOW) await moved.promise;
        const chunk = await this.#chunk(next, shape);
        if (!over && !stream.hasRoom) await stream.room();
        if (over) return;
        stream.send({ frame: { case: "chunk", value: { index: next, ...chunk } } });
      }
      stream.send({ frame: { case: "finish", value: { sha256: this.#whole.digest() } } });
    };
    const listening = async () => {
      for (;;) {
        const late = () => new Broke(`nothing was stored for ${STALLED / 1000} s`);
        const answer: StreamContextResponse | undefined = await within(STALLED, () => stream.receive(), late, this.#options.signal);
        if (answer === undefined) throw new Broke("the hub closed the stream");
        if (answer.frame.case === "context") return answer.frame.value;
        if (answer.frame.case === "progress") this.#note(answer.frame.value);
        move();
      }
    };
    // A source that can't be read ends it, too.
    const { promise: unreadable, reject } = deferred<never>();
    const sent = sending().catch(reject);
    try {
      return await Promise.race([listening(), unreadable]);
    } finally {
      over = true;
      stream.cancel();
      move();
      await sent;
    }
  }

  /** Takes the hub's answer to the first frame. */
  #begin(progress: WireProgress): void {
    const { chunkSize, chunkCount, nextChunk, replica } = progress;
    const fits =
      chunkSize >= 1 &&
      chunkSize <= LARGEST_CHUNK &&
      chunkCount === Math.ceil(this.#source.size / chunkSize) &&
      nextChunk <= chunkCount &&
      (this.#stored === undefined || this.#stored.chunkSize === chunkSize);
    if (!fits) throw malformed(`the hub wants ${chunkCount} chunks of ${chunkSize} bytes for ${this.#source.size} bytes`);
    if (this.#stored !== undefined || nextChunk > 0) noteResumption(this.#resumptions, nextChunk, replica);
    if (this.#replicas.at(-1) !== replica) this.#replicas.push(replica);
    this.#caller.nameReplica(replica);
    this.#note(progress);
  }

  #note(progress: WireProgress): void {
    this.#stored = progress;
    tell(this.#caller.platform.log, this.#options.onProgress, { bytes: Number(progress.bytesStored), total: this.#source.size });
  }

  get #nextChunk(): number {
    return this.#stored?.nextChunk ?? 0;
  }

  /** Reads and hashes a chunk; one that is sent again does not count for the whole a second time. */
  async #chunk(index: number, shape: WireProgress): Promise<{ data: Uint8Array; sha256: Uint8Array }> {
    const offset = index * shape.chunkSize;
    const length = Math.min(shape.chunkSize, this.#source.size - offset);
    const changed = "was it changed while it was uploaded?";
    let data: Uint8Array;
    try {
      data = await this.#source.read(offset, length);
    } catch (error) {
      throw failure("IO", `reading chunk ${index} of the source: ${(error as Error).message}; ${changed}`);
    }
    if (data.length !== length) throw failure("IO", `reading chunk ${index} of the source: it has ${data.length} bytes, and not ${length}; ${changed}`);
    if (this.#whole.chunks === index) this.#whole.take(data);
    const hash = this.#caller.platform.sha256();
    hash.update(data);
    return { data, sha256: hash.digest() };
  }

  #whereabouts(): string {
    const stored = this.#stored;
    const how = stored === undefined ? "" : ` (${stored.nextChunk} of ${stored.chunkCount} chunks are stored)`;
    return `upload ${this.#uploadId}${how}`;
  }
}

/** Bytes, or what a browser and Node both know as a file. */
export function sourceOf(source: Uint8Array | Blob | Source): Source {
  if (source instanceof Uint8Array) return { size: source.length, read: async (offset, length) => source.subarray(offset, offset + length) };
  if (typeof Blob !== "undefined" && source instanceof Blob) {
    return { size: source.size, read: async (offset, length) => new Uint8Array(await source.slice(offset, offset + length).arrayBuffer()) };
  }
  if (typeof (source as Source).read !== "function") throw failure("USAGE", "this can't be uploaded: give bytes, a Blob or a Source");
  return source as Source;
}
