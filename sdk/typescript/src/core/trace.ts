/** What happened to a message. */

import { TraceEvent_Kind, TraceService } from "../gen/acb/v1/trace_pb.js";
import type { Caller, CallOptions } from "./caller.js";
import { malformed } from "./error.js";
import { type Address, addressOf, dateOf, type Kind, kindOf } from "./wire.js";

export interface TraceEvent {
  /** By the clock of the replica. */
  readonly time: Date | undefined;
  readonly kind: "accepted" | "delivered" | "redelivered" | "acknowledged" | "dead" | "unknown";
  /** The name of the replica. */
  readonly replica: string;
  /** The recipient, or of what was accepted the sender. Empty where that agent is gone, or where there is none. */
  readonly agent: string;
  /** The number of the attempt, of a delivery. */
  readonly attempt: number;
  /** Why it is among the dead letters. */
  readonly reason: string;
}

export interface TraceRecipient {
  readonly agent: string;
  /** Whether it has acknowledged the message. Seen within about a second. */
  readonly acknowledged: boolean;
}

/** A message, without its content, and what happened to it. */
export interface MessageTrace {
  readonly messageId: string;
  readonly from: string;
  readonly to: Address | undefined;
  readonly topic: string;
  readonly kind: Kind;
  /** Bytes of the payload. */
  readonly size: number;
  readonly correlationId: string;
  readonly traceparent: string;
  readonly acceptedAt: Date | undefined;
  readonly loggedAt: Date | undefined;
  readonly expiresAt: Date | undefined;
  /** Where the log has it: `<partition>-<number>`. */
  readonly place: string;
  /** In the order of their times: 1,000 at most. */
  readonly events: readonly TraceEvent[];
  /** 100 at most. */
  readonly recipients: readonly TraceRecipient[];
  /** How many more there are. */
  readonly moreRecipients: number;
  readonly moreEvents: boolean;
}

const KINDS: Partial<Record<TraceEvent_Kind, TraceEvent["kind"]>> = {
  [TraceEvent_Kind.ACCEPTED]: "accepted",
  [TraceEvent_Kind.DELIVERED]: "delivered",
  [TraceEvent_Kind.REDELIVERED]: "redelivered",
  [TraceEvent_Kind.ACKNOWLEDGED]: "acknowledged",
  [TraceEvent_Kind.DEAD]: "dead",
};

export async function messageTrace(caller: Caller, messageId: string, options: CallOptions): Promise<MessageTrace> {
  const request = () => ({ messageId });
  const { trace } = await caller.call("get message trace", { method: TraceService.method.getMessageTrace, request, ...options });
  if (trace === undefined) throw malformed("get message trace: the hub answered without one");
  const { from, topic, correlationId, traceparent, place, moreRecipients, moreEvents } = trace;
  const events = trace.events.map(({ time, kind, replica, agent, attempt, reason }) => {
    return { time: dateOf(time), kind: KINDS[kind] ?? "unknown", replica, agent, attempt, reason };
  });
  const recipients = trace.recipients.map(({ agent, acknowledged }) => ({ agent, acknowledged }));
  const [acceptedAt, loggedAt, expiresAt] = [dateOf(trace.acceptedAt), dateOf(trace.loggedAt), dateOf(trace.expiresAt)];
  const known = { messageId: trace.messageId, from, to: addressOf(trace.to), topic, kind: kindOf(trace.type), size: Number(trace.size) };
  const rest = { correlationId, traceparent, acceptedAt, loggedAt, expiresAt, place, events, recipients, moreRecipients, moreEvents };
  return { ...known, ...rest };
}
