/** The one error of the SDK. */

/** What kind of failure it is, as gRPC names them. */
export type Code =
  | "OK"
  | "CANCELLED"
  | "UNKNOWN"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "UNAUTHENTICATED";

const CODES: readonly Code[] = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

/** The name of a gRPC status code; an unknown one is UNKNOWN. */
export function codeOf(number: number): Code {
  return CODES[number] ?? "UNKNOWN";
}

const LOCAL = {
  UNAVAILABLE: "UNAVAILABLE",
  UNTRUSTED: "UNAUTHENTICATED",
  TIMEOUT: "DEADLINE_EXCEEDED",
  USAGE: "INVALID_ARGUMENT",
  PAYLOAD: "INVALID_ARGUMENT",
  DAMAGED: "DATA_LOSS",
  IO: "UNKNOWN",
} as const satisfies Record<string, Code>;

/** Reasons of failures that no hub answered with. */
export type LocalReason = keyof typeof LOCAL;

interface Facts {
  retryAfter?: number | undefined;
  correlationId?: string | undefined;
}

/**
 * Why a call did not succeed.
 *
 * ```ts
 * try {
 *   await agent.send({ to: "nobody", text: "hello" });
 * } catch (error) {
 *   if (error instanceof AcbError && error.reason === "RECIPIENT_NOT_FOUND") console.log("name another one");
 *   else throw error;
 * }
 * ```
 */
export class AcbError extends Error {
  override readonly name = "AcbError";
  /** What kind of failure it is. */
  readonly code: Code;
  /**
   * Stable, in capitals, such as `RECIPIENT_NOT_FOUND`; empty where the hub gave none. Where no hub answered: `UNAVAILABLE` (no replica answered, or
   * the connection broke), `UNTRUSTED` (no replica showed a certificate of the given CA; nothing was sent), `TIMEOUT`, `USAGE` (wrong use or a wrong
   * setting: no request was made), `PAYLOAD` (it can't be encoded or decoded), `DAMAGED` (it does not have the checksum that was announced), `IO`.
   */
  readonly reason: string;
  /** In how many milliseconds a limit has room again: the SDK has waited for that already, up to two minutes. Unset: waiting does not help. */
  readonly retryAfter: number | undefined;
  /** By what the call is found in the hub's log and in the audit trail. Unset for what is no single call, such as a message of a session. */
  readonly correlationId: string | undefined;

  /** @internal */
  constructor(code: Code, reason: string, message: string, facts: Facts = {}) {
    super(reason in LOCAL ? message : ending(message, `(${reason === "" ? code : reason})`));
    this.code = code;
    this.reason = reason;
    this.retryAfter = facts.retryAfter;
    this.correlationId = facts.correlationId;
  }

  /** Whether the same call may succeed later, without anything being changed. */
  get isRetryable(): boolean {
    return this.code === "UNAVAILABLE" || this.code === "DEADLINE_EXCEEDED" || this.code === "RESOURCE_EXHAUSTED";
  }
}

/** What a hub refused says its reason at its end, once. */
function ending(message: string, reason: string): string {
  return message.endsWith(reason) ? message : `${message} ${reason}`;
}

/** A failure that no hub answered with. */
export function failure(reason: LocalReason, message: string): AcbError {
  return new AcbError(LOCAL[reason], reason, message);
}

/** A hub answered with what the contract does not have. */
export function malformed(message: string): AcbError {
  return new AcbError("INTERNAL", "", message);
}

/** The same failure, with what was being done in front of its message. */
export function during(what: string, error: AcbError): AcbError {
  return copied(error, `${what}: ${error.message}`, error.correlationId);
}

/** The same refusal, of this call. What no hub answered has no place in its log. */
export function ofCall(id: string, error: AcbError): AcbError {
  return error.correlationId !== undefined || error.reason in LOCAL ? error : copied(error, error.message, id);
}

function copied(error: AcbError, message: string, correlationId: string | undefined): AcbError {
  const copy = new AcbError(error.code, error.reason, message, { retryAfter: error.retryAfter, correlationId });
  if (error.cause !== undefined) copy.cause = error.cause;
  return copy;
}

/** What a caller threw of its own, such as an abort, passes as it is. */
export function isOurs(error: unknown): error is AcbError {
  return error instanceof AcbError;
}
