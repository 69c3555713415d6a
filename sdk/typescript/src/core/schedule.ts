/** Messages that are sent later. */

import { ScheduleService } from "../gen/acb/v1/schedule_pb.js";
import { type Caller, type CallOptions, pages } from "./caller.js";
import { build, type OutgoingMessage } from "./message.js";
import { type Address, addressOf, dateOf, duration, type Kind, kindOf } from "./wire.js";

/** A message that was scheduled. */
export interface Scheduled {
  /** The message keeps this id when it is sent. */
  readonly messageId: string;
  /** When it is sent, by the clock of the hub's PostgreSQL. */
  readonly dueAt: Date | undefined;
  /** Whether the message had been scheduled before. */
  readonly deduplicated: boolean;
}

/** A message that waits, without its content. */
export interface ScheduledMessage {
  readonly messageId: string;
  readonly from: string;
  readonly to: Address | undefined;
  readonly topic: string;
  readonly kind: Kind;
  /** Bytes of the payload. */
  readonly size: number;
  readonly dueAt: Date | undefined;
  readonly scheduledAt: Date | undefined;
}

export async function schedule(caller: Caller, message: OutgoingMessage, afterMs: number, options: CallOptions): Promise<Scheduled> {
  const request = { message: build(message), deliverAfter: duration(afterMs)! };
  const answer = await caller.call("schedule", { method: ScheduleService.method.scheduleMessage, request: () => request, ...options });
  return { messageId: answer.messageId, dueAt: dateOf(answer.dueAt), deduplicated: answer.deduplicated };
}

export function scheduled(caller: Caller, all: boolean, options: CallOptions): AsyncGenerator<ScheduledMessage, void, undefined> {
  return pages(async (pageToken) => {
    const method = ScheduleService.method.listScheduledMessages;
    const page = await caller.call("list scheduled messages", { method, request: () => ({ all, pageToken }), ...options });
    const items = page.scheduledMessages.map(({ messageId, from, to, topic, type, size, dueAt, scheduledAt }) => ({
      messageId,
      from,
      to: addressOf(to),
      topic,
      kind: kindOf(type),
      size: Number(size),
      dueAt: dateOf(dueAt),
      scheduledAt: dateOf(scheduledAt),
    }));
    return { items, next: page.nextPageToken };
  });
}

export async function cancelScheduled(caller: Caller, messageId: string, options: CallOptions): Promise<boolean> {
  const method = ScheduleService.method.cancelScheduledMessage;
  const answer = await caller.call("cancel scheduled message", { method, request: () => ({ messageId }), ...options });
  return answer.before;
}
