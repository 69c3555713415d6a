/** What the agent may use, and what it has used of that. */

import { UsagePeriod, UsageService } from "../gen/acb/v1/usage_pb.js";
import { type Caller, type CallOptions, pages } from "./caller.js";
import { dateOf, timestamp } from "./wire.js";

/** Sums to a call. */
const PAGE = 1_000;

/** One limit, and what was used of it. */
export interface Usage {
  /** Whose limit it is: `agent` and its name, or `tenant` and its name. */
  readonly subject: string;
  /** As in the resources: `messagesPerMinute`, `bytesPerMinute` (of payloads), `messagesPerMonth`. */
  readonly limit: string;
  /** Unset: there is no limit. */
  readonly most: number | undefined;
  readonly used: number;
  /** When it is 0 again. */
  readonly resetsAt: Date | undefined;
}

/** Which sums of usage; what is not said is not asked for. */
export interface UsageQuery extends CallOptions {
  /** Summed by hour, by day or by calendar month, UTC. */
  readonly by: "hour" | "day" | "month";
  /** Only that of this agent, which may be gone. Of another than oneself with the role admin or auditor. */
  readonly agent?: string;
  /** Only from the period on that this time is in. */
  readonly since?: Date;
  /** Only periods that begin before this time. */
  readonly until?: Date;
}

export interface UsageSum {
  readonly startsAt: Date | undefined;
  readonly agentId: string;
  readonly agent: string;
  readonly messages: number;
  /** Of their payloads. */
  readonly bytes: number;
}

/** A place at which the sums are too low. */
export interface UsageGap {
  readonly foundAt: Date | undefined;
  readonly what: string;
  /** Of the log; each has up to 64 messages. Unset: nobody knows how many. */
  readonly records: number | undefined;
}

const PERIODS = { hour: UsagePeriod.HOUR, day: UsagePeriod.DAY, month: UsagePeriod.MONTH };

export async function usage(caller: Caller, agent: string, options: CallOptions): Promise<Usage[]> {
  const answer = await caller.call("get usage", { method: UsageService.method.getUsage, request: () => ({ agent }), ...options });
  return answer.usage.map(({ subject, limit, most, used, resetsAt }) => {
    return { subject, limit, most: numberOf(most), used: Number(used), resetsAt: dateOf(resetsAt) };
  });
}

function numberOf(count: bigint | undefined): number | undefined {
  return count === undefined ? undefined : Number(count);
}

async function page(caller: Caller, query: UsageQuery, pageSize: number, pageToken: string) {
  const { by, agent = "", since, until, signal } = query;
  const times = { ...(since && { from: timestamp(since)! }), ...(until && { to: timestamp(until)! }) };
  const request = () => ({ agent, by: PERIODS[by], pageSize, pageToken, ...times });
  return await caller.call("list usage", { method: UsageService.method.listUsage, request, signal });
}

export function usageSums(caller: Caller, query: UsageQuery): AsyncGenerator<UsageSum, void, undefined> {
  return pages(async (pageToken) => {
    const { sums, nextPageToken } = await page(caller, query, PAGE, pageToken);
    const items = sums.map(({ startsAt, agentId, agent, messages, bytes }) => {
      return { startsAt: dateOf(startsAt), agentId, agent, messages: Number(messages), bytes: Number(bytes) };
    });
    return { items, next: nextPageToken };
  });
}

export async function usageGaps(caller: Caller, query: UsageQuery): Promise<UsageGap[]> {
  const { gaps } = await page(caller, query, 1, "");
  return gaps.map(({ foundAt, what, records }) => ({ foundAt: dateOf(foundAt), what, records: numberOf(records) }));
}
