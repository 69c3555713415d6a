/** Messages by single calls: sent, asked and answered. */

import { MessageService } from "../gen/acb/v1/message_pb.js";
import { clock } from "./backoff.js";
import type { Caller, CallOptions } from "./caller.js";
import { malformed } from "./error.js";
import { known } from "./known.js";
import { type Answer, answering, build, type Message, type OutgoingMessage, Received, type Replier, type Sent, type WireOutgoing } from "./message.js";
import { Status } from "./transport.js";
import { duration } from "./wire.js";
import { traced } from "./work.js";

const REPLY_WITHIN = 30_000;

export interface RequestOptions extends CallOptions {
  /** How long to wait for the reply: at most 5 minutes; 30 s unless said otherwise. */
  readonly withinMs?: number;
}

async function sendBuilt(caller: Caller, message: WireOutgoing, options: CallOptions): Promise<Sent> {
  const call = { method: MessageService.method.sendMessage, request: () => ({ message }), ...options };
  const { messageId, deduplicated } = await ofMessage(message, () => caller.call("send", call));
  return { messageId, deduplicated };
}

/** Makes the call that sends a message as part of that message's trace. */
function ofMessage<T>(message: WireOutgoing, body: () => T): T {
  return message.traceparent === "" ? body() : traced(message.traceparent, message.tracestate, body);
}

export async function send(caller: Caller, message: OutgoingMessage, options: CallOptions): Promise<Sent> {
  return await sendBuilt(caller, build(message), options);
}

export async function reply(caller: Caller, to: Message, answer: Answer, options: CallOptions): Promise<Sent> {
  return await sendBuilt(caller, answering(answer, to.wire), options);
}

export async function request(caller: Caller, replier: Replier, message: OutgoingMessage, options: RequestOptions): Promise<Received> {
  known("a request", options, ["withinMs", "signal"]);
  const { withinMs = REPLY_WITHIN, signal } = options;
  const wire = build(message, "query");
  const until = clock.now() + withinMs;
  const made = () => {
    const left = until - clock.now();
    // The hub takes an empty timeout for a mistake of the caller.
    if (left <= 0) throw new Status("DEADLINE_EXCEEDED", `no reply within ${withinMs / 1000} s`, false, "");
    return { message: wire, timeout: duration(left)! };
  };
  const call = { method: MessageService.method.request, request: made, withinMs: Infinity, until, signal };
  const { reply } = await ofMessage(wire, () => caller.call("request", call));
  if (reply === undefined) throw malformed("request: the hub answered without a reply");
  return new Received(reply, replier);
}

