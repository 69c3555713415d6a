/**
 * What the SDK needs of a connection. Node has it by gRPC (`node/grpc.ts`); a browser would have it by the hub's WebSocket. Nothing in this folder
 * knows which it is, and nothing in it uses a module of Node.
 */

import type { DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";

import { AcbError, type Code } from "./error.js";

/** How a call ended that did not succeed. */
export class Status extends Error {
  constructor(
    readonly code: Code,
    message: string,
    /** Whether the connection, or the replica at its end, is at fault, so that another replica may do better. */
    readonly broke: boolean,
    readonly reason = "",
    readonly retryAfter?: number,
    readonly correlationId?: string,
  ) {
    super(message);
  }

  /** As callers see it. */
  toError(): AcbError {
    if (this.broke && this.reason === "") return new AcbError("UNAVAILABLE", "UNAVAILABLE", this.message);
    return new AcbError(this.code, this.reason, this.message, { retryAfter: this.retryAfter, correlationId: this.correlationId });
  }
}

/** Names of headers in lower case. */
export type Headers = Readonly<Record<string, string>>;

/** What a hub sends, one after another. */
export interface Incoming<M extends DescMethod> {
  /** The next one; undefined at the end. Throws {@link Status}. One call at a time. */
  receive(): Promise<MessageShape<M["output"]> | undefined>;
  /** Wants no more of it. */
  cancel(): void;
}

/** Both directions of a stream. */
export interface Duplex<M extends DescMethod> extends Incoming<M> {
  /** Whether more can be sent now without being piled up. */
  readonly hasRoom: boolean;
  /** Resolves when there is room, or when the stream is over. */
  room(): Promise<void>;
  send(message: MessageInitShape<M["input"]>): void;
  /** Sends no more. */
  end(): void;
}

/** One connection to one replica. */
export interface Channel {
  /** Throws {@link Status}. An aborted call is given up. */
  unary<M extends DescMethod>(
    method: M,
    request: MessageInitShape<M["input"]>,
    headers: Headers,
    signal?: AbortSignal,
  ): Promise<MessageShape<M["output"]>>;
  receiving<M extends DescMethod>(method: M, request: MessageInitShape<M["input"]>, headers: Headers): Incoming<M>;
  duplex<M extends DescMethod>(method: M, headers: Headers): Duplex<M>;
  /** Ends it, with what is on its way. */
  close(): void;
}

/** A connection that is in use. */
export interface Link {
  /** Rises with each connection, so that a late complaint does not drop a newer one. */
  readonly id: number;
  readonly endpoint: string;
  readonly channel: Channel;
}

/** The replicas of one hub. */
export interface Replicas {
  /** The current connection, or a new one to the first replica that answers. Throws {@link AcbError}. */
  link(): Promise<Link>;
  /** Turns away from a connection that failed: the next one goes to the next replica. */
  leave(id: number): void;
  close(): void;
}

/** The hash of bytes that come one after another. */
export interface Hasher {
  update(data: Uint8Array): void;
  /** Of what was taken so far; more may follow. */
  digest(): Uint8Array;
}

/** What differs between Node and a browser beside the connection. */
export interface Platform {
  sha256(): Hasher;
  log: Logger;
}

/** Where the SDK says what it does by itself: `console` fits. No secret is ever in it. */
export interface Logger {
  debug(message: string, facts?: object): void;
  warn(message: string, facts?: object): void;
  error(message: string, facts?: object): void;
}
