/** Payloads: what is sent, and how what was received is read. */

import { AcbError, failure } from "./error.js";
import { known } from "./known.js";
import { utf8 } from "./wire.js";

/** The content type of payloads that are given as `json`. */
export const JSON_TYPE = "application/json";
const TEXT_TYPE = "text/plain; charset=utf-8";

/** One of three: a value as JSON, a text, or bytes of any content type. None is an empty payload. */
export interface Payload {
  /** A value that is sent as JSON. */
  readonly json?: unknown;
  /** A text. */
  readonly text?: string;
  /** Bytes, of the content type `contentType`. */
  readonly bytes?: Uint8Array;
  /** What the payload is; of `json` and `text` it is known. */
  readonly contentType?: string;
}

/** The keys of {@link Payload}. */
export const PAYLOAD_KEYS = ["json", "text", "bytes", "contentType"] as const;

/** The same, of an object that has nothing else. */
export function encodeAlone(payload: Payload): { payload: Uint8Array; contentType: string } {
  known("a payload", payload, PAYLOAD_KEYS);
  return encode(payload);
}

export function encode(payload: Payload): { payload: Uint8Array; contentType: string } {
  const { json, text, bytes, contentType } = payload;
  if ([json, text, bytes].filter((given) => given !== undefined).length > 1) {
    throw failure("USAGE", "a payload is one of json, text and bytes");
  }
  if (json !== undefined) {
    let encoded: string | undefined;
    try {
      encoded = JSON.stringify(json);
    } catch {
      // What the engine says quotes what it was given: no payload may get into an error, and from there into a log.
      throw failure("PAYLOAD", "the payload can't be encoded as JSON: it refers to itself, holds a bigint, or its toJSON fails");
    }
    if (encoded === undefined) throw failure("PAYLOAD", "the payload can't be encoded as JSON: it is a function or a symbol");
    return { payload: utf8.encoder.encode(encoded), contentType: contentType ?? JSON_TYPE };
  }
  if (text !== undefined) return { payload: utf8.encoder.encode(text), contentType: contentType ?? TEXT_TYPE };
  if (bytes !== undefined && !(bytes instanceof Uint8Array)) throw failure("USAGE", "bytes is a Uint8Array: give other values as json");
  return { payload: bytes ?? new Uint8Array(), contentType: contentType ?? "" };
}

/** `what` is what a failure is about. */
export function decodeText(payload: Uint8Array, what: string): string {
  try {
    return utf8.decoder.decode(payload);
  } catch {
    throw failure("PAYLOAD", `${what} is not UTF-8`);
  }
}

export function decodeJson(payload: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(decodeText(payload, what));
  } catch (error) {
    if (error instanceof AcbError) throw error;
    // The engine's own words quote the payload.
    const at = /at position \d+/.exec((error as Error).message)?.[0] ?? "";
    throw failure("PAYLOAD", `${what} is not JSON${at === "" ? "" : `: ${at}`}`);
  }
}

/**
 * A schema by the interface that zod (3.24 and later), valibot, arktype and others have in common (https://standardschema.dev). None of them is
 * needed, and any fits.
 */
export interface Schema<T = unknown> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<T> | Promise<SchemaResult<T>>;
    readonly types?: { readonly input: unknown; readonly output: T } | undefined;
  };
}

type SchemaResult<T> =
  | { readonly value: T; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string; readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined }[] };

/** The value as the schema has it; throws `PAYLOAD` with the place of the first flaw. Not with the words of the schema: many quote the value. */
export async function validated<T>(schema: Schema<T>, value: unknown, what: string): Promise<T> {
  const result = await schema["~standard"].validate(value);
  if (result.issues === undefined) return result.value;
  const issue = result.issues[0];
  const path = (issue?.path ?? []).map((part) => String(typeof part === "object" ? part.key : part)).join(".");
  throw failure("PAYLOAD", `${what} is not what was expected: the schema refuses ${path === "" ? "it" : `its ${path}`}`);
}
