/** Calls by gRPC. */

import type { DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack, type Any } from "@bufbuild/protobuf/wkt";
import { Client, type ClientDuplexStream, type ClientReadableStream, Metadata, type ServiceError, status as Code } from "@grpc/grpc-js";

import { codeOf } from "../core/error.js";
import { type Channel, type Duplex, type Headers, type Incoming, Status } from "../core/transport.js";
import { millisecondsOf } from "../core/wire.js";
import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "../gen/google/rpc/error_pb.js";

/** Messages that are read ahead of who takes them. */
const READ_AHEAD = 16;

type In<M extends DescMethod> = MessageInitShape<M["input"]>;
type Out<M extends DescMethod> = MessageShape<M["output"]>;

export class GrpcChannel implements Channel {
  readonly #client: Client;
  #closed = false;
  /** What ends the calls that are on their way. */
  readonly #live = new Set<() => void>();
  #retired: { readonly afterMs: number; readonly closed: () => void } | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(client: Client) {
    this.#client = client;
  }

  /** Closes it once no call has used it for so long: who took it a moment ago may be about to call. */
  retire(afterMs: number, closed: () => void): void {
    this.#retired = { afterMs, closed };
    this.#watch();
  }

  #begin(end: () => void): () => void {
    this.#live.add(end);
    clearTimeout(this.#timer);
    return () => {
      if (this.#live.delete(end)) this.#watch();
    };
  }

  #watch(): void {
    const retired = this.#retired;
    if (retired === undefined || this.#live.size > 0 || this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.close();
      retired.closed();
    }, retired.afterMs);
    this.#timer.unref();
  }

  unary<M extends DescMethod>(method: M, request: In<M>, headers: Headers, signal?: AbortSignal): Promise<Out<M>> {
    if (this.#closed) return Promise.reject(GONE());
    return new Promise((resolve, reject) => {
      const [path, write, read] = glue(method);
      const message = made(method, request);
      const call = this.#client.makeUnaryRequest(path, write, read, message, metadataOf(headers), (error: ServiceError | null, response?: Out<M>) => {
        signal?.removeEventListener("abort", cancel);
        over();
        if (error !== null) reject(statusOf(error));
        else resolve(response as Out<M>);
      });
      const cancel = () => call.cancel();
      const over = this.#begin(() => {
        reject(GONE());
        cancel();
      });
      signal?.addEventListener("abort", cancel, { once: true });
    });
  }

  receiving<M extends DescMethod>(method: M, request: In<M>, headers: Headers): Incoming<M> {
    if (this.#closed) return new Nothing<M>();
    const [path, write, read] = glue(method);
    const stream = this.#client.makeServerStreamRequest(path, write, read, made(method, request), metadataOf(headers));
    const reader: Reader<M> = new Reader<M>(stream, () => over());
    const over = this.#begin(() => reader.cancel(GONE()));
    return reader;
  }

  duplex<M extends DescMethod>(method: M, headers: Headers): Duplex<M> {
    if (this.#closed) return new Nothing<M>();
    const [path, write, read] = glue(method);
    const both: Both<M> = new Both<M>(method, this.#client.makeBidiStreamRequest(path, write, read, metadataOf(headers)), () => over());
    const over = this.#begin(() => both.cancel(GONE()));
    return both;
  }

  /** Ends what is on its way, too: gRPC would leave that to its own end. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const end of [...this.#live]) end();
    this.#client.close();
  }
}

/** Of a connection that was closed meanwhile: gRPC would throw something of its own. */
const GONE = () => new Status("UNAVAILABLE", "the connection was closed", true);

class Nothing<M extends DescMethod> implements Duplex<M> {
  readonly hasRoom = true;
  async receive(): Promise<undefined> {
    throw GONE();
  }
  async room(): Promise<void> {}
  send(): void {}
  end(): void {}
  cancel(): void {}
}

function made<M extends DescMethod>(method: M, message: In<M>): MessageShape<M["input"]> {
  return create(method.input, message) as MessageShape<M["input"]>;
}

/** What grpc-js needs to know of a method. */
function glue<M extends DescMethod>(method: M): [string, (message: MessageShape<M["input"]>) => Buffer, (bytes: Buffer) => Out<M>] {
  const write = (message: MessageShape<M["input"]>) => {
    const bytes = toBinary(method.input, message);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
  return [`/${method.parent.typeName}/${method.name}`, write, (bytes) => fromBinary(method.output, bytes) as Out<M>];
}

function metadataOf(headers: Headers): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return metadata;
}

class Reader<M extends DescMethod> implements Incoming<M> {
  readonly #stream: ClientReadableStream<Out<M>> | ClientDuplexStream<MessageShape<M["input"]>, Out<M>>;
  readonly #waiting: Out<M>[] = [];
  #over = false;
  #error: Status | undefined;
  #wake: (() => void) | undefined;

  constructor(
    stream: ClientReadableStream<Out<M>> | ClientDuplexStream<MessageShape<M["input"]>, Out<M>>,
    private readonly over: () => void,
  ) {
    this.#stream = stream;
    stream.on("data", (message: Out<M>) => {
      this.#waiting.push(message);
      if (this.#waiting.length >= READ_AHEAD) stream.pause();
      this.#wake?.();
    });
    // Its end comes once everything before it was read.
    stream.on("end", () => this.finish());
    stream.on("error", (error: ServiceError) => {
      this.#error ??= statusOf(error);
    });
  }

  async receive(): Promise<Out<M> | undefined> {
    for (;;) {
      const message = this.#waiting.shift();
      if (message !== undefined) {
        if (this.#waiting.length < READ_AHEAD / 2) this.#stream.resume();
        return message;
      }
      if (this.#error !== undefined && this.#over) throw this.#error;
      if (this.#over) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  cancel(why = new Status("CANCELLED", "the stream was given up", false)): void {
    this.#error ??= why;
    this.#stream.cancel();
    this.finish();
  }

  protected finish(): void {
    this.#over = true;
    this.over();
    this.#wake?.();
  }
}

class Both<M extends DescMethod> extends Reader<M> implements Duplex<M> {
  readonly #method: M;
  readonly #writer: ClientDuplexStream<MessageShape<M["input"]>, Out<M>>;
  #hasRoom = true;
  #roomy: (() => void)[] = [];
  #ended = false;

  constructor(method: M, stream: ClientDuplexStream<MessageShape<M["input"]>, Out<M>>, over: () => void) {
    super(stream, over);
    this.#method = method;
    this.#writer = stream;
    stream.on("drain", () => this.#makeRoom());
  }

  get hasRoom(): boolean {
    return this.#hasRoom;
  }

  async room(): Promise<void> {
    if (!this.#hasRoom) await new Promise<void>((resolve) => this.#roomy.push(resolve));
  }

  send(message: In<M>): void {
    if (this.#ended) return;
    this.#hasRoom = this.#writer.write(made(this.#method, message));
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#writer.end();
  }

  protected override finish(): void {
    this.#ended = true;
    this.#makeRoom();
    super.finish();
  }

  #makeRoom(): void {
    this.#hasRoom = true;
    for (const resolve of this.#roomy.splice(0)) resolve();
  }
}

/** What grpc-js says where the connection is at fault: a status that a hub sent has other words. */
const TRANSPORT = /RST_STREAM|GOAWAY|HTTP\/?2|^Call cancelled$|^Received HTTP status code|Connection dropped|ECONN|^Bad response|^14 /i;

export function statusOf(error: ServiceError): Status {
  const details = detailsOf(error.metadata);
  const named = error.metadata?.get("x-correlation-id")[0];
  const correlationId = typeof named === "string" && named !== "" ? named : undefined;
  const broke = error.code === Code.UNAVAILABLE || (details.reason === "" && TRANSPORT.test(error.details ?? ""));
  return new Status(codeOf(error.code), error.details || error.message, broke, details.reason, details.retryAfter, correlationId);
}

function detailsOf(metadata: Metadata | undefined): { reason: string; retryAfter: number | undefined } {
  let reason = "";
  let retryAfter: number | undefined;
  const bytes = metadata?.get("grpc-status-details-bin")[0];
  if (bytes instanceof Uint8Array) {
    try {
      for (const detail of fromBinary(StatusSchema, bytes).details as Any[]) {
        reason = anyUnpack(detail, ErrorInfoSchema)?.reason ?? reason;
        retryAfter = millisecondsOf(anyUnpack(detail, RetryInfoSchema)?.retryDelay) ?? retryAfter;
      }
    } catch {
      // What is no status has no reason.
    }
  }
  return { reason, retryAfter };
}
