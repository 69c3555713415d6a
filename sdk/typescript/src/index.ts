/// <reference lib="esnext.disposable" preserve="true" />

/**
 * The TypeScript client of an ACB hub: messages, contexts, streams and agents of one tenant, over whichever replica answers.
 *
 * Start at {@link connect}.
 */

export type { AgentInfo, CredentialInfo, Criteria, Heartbeats, Registered, Registration } from "./core/agents.js";
export {
  type AuditCheckpoint,
  type AuditClaim,
  AuditFollower,
  type AuditFollowOptions,
  type AuditQuery,
  type AuditRecord,
  auditRecord,
  type LoggedAuditRecord,
} from "./core/audit.js";
export type { CallOptions } from "./core/caller.js";
export { Client } from "./core/client.js";
export { Context, type ContextQuery, type PayloadRef, type Scope, type ShareOptions, type Sharing, type Update } from "./core/contexts.js";
export { ApiKey, type Identity, Tokens } from "./core/credential.js";
export type { Downloaded, DownloadOptions, Sink } from "./core/download.js";
export { AcbError, type Code, type LocalReason } from "./core/error.js";
export type { Handler } from "./core/handler.js";
export type { DeadLetter, DeadLetterOutcome, DeadLetterReason, DeadLetterState, Letters, WhichLetters } from "./core/letters.js";
export { type Answer, FAILURE, Message, type OutgoingMessage, Received, type Sent } from "./core/message.js";
export type { RequestOptions } from "./core/messages.js";
export { JSON_TYPE, type Payload, type Schema } from "./core/payload.js";
export { type Pulled, Puller, type PullerOptions } from "./core/pull.js";
export type { Scheduled, ScheduledMessage } from "./core/schedule.js";
export { type Receipt, Session, type SessionOptions } from "./core/session.js";
export { type ContextEvent, type Position, type Since, type SubscribeOptions, Subscription } from "./core/subscription.js";
export type { MessageTrace, TraceEvent, TraceRecipient } from "./core/trace.js";
export type { Progress, Resumption } from "./core/transfer.js";
export type { Logger } from "./core/transport.js";
export type { UnreadCount, UnreadMessages, UnreadQuery, UnreadWait } from "./core/unread.js";
export type { Source, Uploaded, UploadOptions, UploadProgress } from "./core/upload.js";
export type { Usage, UsageGap, UsageQuery, UsageSum } from "./core/usage.js";
export type { Address, Kind, Recipient, RequestAddress } from "./core/wire.js";
export { correlated, correlationId, traced } from "./core/work.js";
export type { Where } from "./node/config.js";
export { connect, type ConnectOptions } from "./node/connect.js";
export { type FileSource, openFile } from "./node/file.js";
