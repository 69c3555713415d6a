/** Between the wire's types and those of the SDK. */

import { create, type MessageShape } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";

import { type Address as WireAddress, AddressSchema, type MessageType } from "../gen/acb/v1/message_pb.js";
import { failure } from "./error.js";

export function dateOf(timestamp: Timestamp | undefined): Date | undefined {
  return timestamp === undefined ? undefined : timestampDate(timestamp);
}

export function timestamp(date: Date | undefined): Timestamp | undefined {
  if (date === undefined) return undefined;
  const ms = date.getTime();
  if (Number.isNaN(ms)) throw failure("USAGE", "a date is none");
  // Before 1970 it is that.
  return ms < 0 ? create(TimestampSchema) : timestampFromDate(date);
}

export function duration(ms: number | undefined): Duration | undefined {
  if (ms === undefined) return undefined;
  if (!Number.isFinite(ms) || ms < 0) throw failure("USAGE", `${ms} ms is no duration`);
  const seconds = Math.floor(ms / 1000);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) % 1e9 });
}

export function millisecondsOf(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** What a message is: a fact, an order, a question, an answer. */
export type Kind = "event" | "command" | "query" | "response";

const KINDS: readonly (Kind | undefined)[] = [undefined, "event", "command", "query", "response"];

export function kindOf(type: MessageType): Kind {
  return KINDS[type] ?? "event";
}

export function messageType(kind: Kind): MessageType {
  const type = KINDS.indexOf(kind);
  if (type < 1) throw failure("USAGE", `${JSON.stringify(kind)} is no kind of message: event, command, query or response`);
  return type;
}

/** Where a message goes: an agent by its name, several agents by theirs (2 to 64, for all of them or for none), a group, or every other agent of the tenant. */
export type Recipient = string | readonly string[] | { readonly group: string } | { readonly all: true };

/** The waiting caller of one request, as found in {@link Received.replyTo}. */
export interface RequestAddress {
  readonly request: { readonly agent: string; readonly requestId: string };
}

export type Address = Recipient | RequestAddress;

/** Agents that a message can be for. */
const MOST_RECIPIENTS = 64;

export function addressOf(wire: WireAddress | undefined): Address | undefined {
  const to = wire?.to;
  switch (to?.case) {
    case "agent":
      return to.value;
    case "agents":
      return to.value.names;
    case "group":
      return { group: to.value };
    case "all":
      return { all: true };
    case "request":
      return { request: { agent: to.value.agent, requestId: to.value.requestId } };
    default:
      return undefined;
  }
}

export function wireAddress(address: Address): MessageShape<typeof AddressSchema> {
  const to = wireTo(address);
  return create(AddressSchema, { to: to as WireAddress["to"] });
}

function wireTo(address: Address): object {
  if (typeof address === "string") {
    if (address === "") throw failure("USAGE", "the message names no recipient");
    return { case: "agent", value: address };
  }
  if (Array.isArray(address)) {
    // The hub would end the session that a flawed list is sent in.
    const names = address as readonly string[];
    if (names.length === 0 || names.length > MOST_RECIPIENTS || names.some((name) => typeof name !== "string" || name === "")) {
      throw failure("USAGE", `a message names 1 to ${MOST_RECIPIENTS} agents, each by its name`);
    }
    const twice = names.find((name, at) => names.indexOf(name) !== at);
    if (twice !== undefined) throw failure("USAGE", `agent ${JSON.stringify(twice)} is named twice`);
    return { case: "agents", value: { $typeName: "acb.v1.AgentNames", names: [...names] } };
  }
  if (typeof address === "object" && address !== null) {
    if ("group" in address && typeof address.group === "string" && address.group !== "") return { case: "group", value: address.group };
    if ("all" in address && address.all === true) return { case: "all", value: true };
    if ("request" in address) return { case: "request", value: { $typeName: "acb.v1.RequestAddress", ...address.request } };
  }
  throw failure("USAGE", "the message names no recipient");
}

export const utf8 = { encoder: new TextEncoder(), decoder: new TextDecoder("utf-8", { fatal: true }) };
