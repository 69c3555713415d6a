/** What is unread in the agent's mailbox, seen without taking it. */

import { MailboxService } from "../gen/acb/v1/mailbox_pb.js";
import { type Caller, type CallOptions, pages } from "./caller.js";
import { Message } from "./message.js";
import { duration } from "./wire.js";

/** The longest wait of one call. */
const MOST = 20_000;
/** How much longer than the hub the client waits. */
const SLACK = 10_000;

/** Which unread messages. */
export interface UnreadQuery extends CallOptions {
  /** Only what this agent sent. */
  readonly from?: string;
  /** Only what matches: a CEL expression over `message`, such as `message.topic == "orders"`. */
  readonly filter?: string;
}

/** How a wait is to be. */
export interface UnreadWait extends UnreadQuery {
  /** The position of an earlier answer; from the oldest message on where it is left out. */
  readonly after?: string;
  /** How long to wait: at most 20 s, which is also meant where it is left out. */
  readonly withinMs?: number;
}

/** How much is unread. */
export interface UnreadCount {
  /** In all; at most 10,000 are counted. */
  readonly messages: number;
  /** By the sender's name; empty for senders that are gone. */
  readonly bySender: Readonly<Record<string, number>>;
  /** Whether there are more than were counted. */
  readonly more: boolean;
}

/** What a wait came to. */
export interface UnreadMessages {
  /** None where none came in time. */
  readonly messages: readonly Message[];
  /** Where to go on. */
  readonly position: string;
}

export function unread(caller: Caller, query: UnreadQuery): AsyncGenerator<Message, void, undefined> {
  const { from = "", filter = "", signal } = query;
  return pages(async (pageToken) => {
    const request = () => ({ from, filter, pageToken });
    const page = await caller.call("list unread", { method: MailboxService.method.listUnread, request, signal });
    return { items: page.messages.map((wire) => new Message(wire)), next: page.nextPageToken };
  });
}

export async function countUnread(caller: Caller, from: string, options: CallOptions): Promise<UnreadCount> {
  const count = await caller.call("count unread", { method: MailboxService.method.countUnread, request: () => ({ from }), ...options });
  const bySender = Object.fromEntries(Object.entries(count.bySender).map(([sender, messages]) => [sender, Number(messages)]));
  return { messages: Number(count.messages), bySender, more: count.more };
}

export async function waitForUnread(caller: Caller, wait: UnreadWait): Promise<UnreadMessages> {
  const { from = "", filter = "", after = "", signal } = wait;
  const within = Math.min(wait.withinMs ?? MOST, MOST);
  const request = () => ({ from, filter, after, timeout: duration(within)! });
  const call = { method: MailboxService.method.waitForUnread, request, withinMs: within + SLACK, signal };
  const found = await caller.call("wait for unread", call);
  return { messages: found.messages.map((wire) => new Message(wire)), position: found.position };
}

/** Each message once, from the oldest on, as it comes, taken by nobody. */
export async function* watchUnread(caller: Caller, query: UnreadQuery): AsyncGenerator<Message, void, undefined> {
  let after = "";
  for (;;) {
    const found = await waitForUnread(caller, { ...query, after });
    after = found.position;
    yield* found.messages;
  }
}
