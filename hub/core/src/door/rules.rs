//! What each method needs. The one table: a method that is not here does not exist for callers.

use crate::directory::agent::Permission;

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone who can connect, without a token.
    Public,
    /// A proven agent whose role allows at least one of these.
    AnyOf(&'static [Permission]),
}

/// One method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The gRPC path, such as `/acb.v1.AgentRegistry/Heartbeat`.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Whether every call leaves an audit record. Refusals always do.
    pub audited: bool,
    /// Whether the directory's generation is read first: for calls that last, and so must not begin by old facts.
    pub fresh: bool,
    /// Whether a call takes any number of requests, and not just one.
    pub asks_many: bool,
    /// Whether a call gives any number of answers: it has begun long before it is known what became of it.
    pub answers_many: bool,
}

impl Rule {
    /// The method's name, for people.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }

    /// The same, of a method that takes any number of requests.
    const fn asks_many(self) -> Self {
        Self { asks_many: true, ..self }
    }

    /// The same, of a method that gives any number of answers.
    const fn answers_many(self) -> Self {
        Self { answers_many: true, ..self }
    }
}

const fn public(path: &'static str, audited: bool) -> Rule {
    Rule { path, access: Access::Public, audited, fresh: false, asks_many: false, answers_many: false }
}

const fn needs(path: &'static str, any_of: &'static [Permission], audited: bool) -> Rule {
    Rule { path, access: Access::AnyOf(any_of), audited, fresh: false, asks_many: false, answers_many: false }
}

/// Every method of the hub. That a message was sent, the log itself records.
pub const RULES: &[Rule] = {
    use Permission::{
        AllDeadLetters, Discover, OwnDeadLetters, Presence, PublishContext, ReadContext, ReadOwnStream, Receive, Send,
    };
    &[
        // Without a token: what hands tokens out, and what probes and tools need before they have one.
        public("/acb.v1.AuthService/ExchangeToken", true),
        public("/acb.v1.AuthService/RefreshToken", true),
        public("/acb.v1.AuthService/RevokeToken", true),
        public("/acb.v1.AuthService/GetJwks", false),
        public("/grpc.health.v1.Health/Check", false),
        public("/grpc.health.v1.Health/Watch", false).answers_many(),
        public("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", false).asks_many().answers_many(),
        public("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", false).asks_many().answers_many(),
        needs("/acb.v1.AgentRegistry/Register", &[Presence], true),
        needs("/acb.v1.AgentRegistry/Unregister", &[Presence], true),
        needs("/acb.v1.AgentRegistry/Heartbeat", &[Presence], false),
        needs("/acb.v1.AgentRegistry/Discover", &[Discover], false),
        needs("/acb.v1.AgentRegistry/GetAgent", &[Discover], false),
        needs("/acb.v1.AgentRegistry/ListAgents", &[Discover], false),
        needs("/acb.v1.MessageService/SendMessage", &[Send], false),
        needs("/acb.v1.MessageService/Request", &[Send], false),
        Rule { fresh: true, ..needs("/acb.v1.MessageService/Session", &[Send, Receive], true).asks_many().answers_many() },
        needs("/acb.v1.MailboxService/PullMessages", &[Receive], false),
        needs("/acb.v1.MailboxService/AcknowledgeMessages", &[Receive], false),
        needs("/acb.v1.MailboxService/ListUnread", &[Receive], false),
        needs("/acb.v1.MailboxService/CountUnread", &[Receive], false),
        needs("/acb.v1.MailboxService/WaitForUnread", &[Receive], false),
        needs("/acb.v1.DeadLetterService/ListDeadLetters", &[OwnDeadLetters, AllDeadLetters], true),
        needs("/acb.v1.DeadLetterService/GetDeadLetter", &[OwnDeadLetters, AllDeadLetters], true),
        needs("/acb.v1.DeadLetterService/ReplayDeadLetters", &[OwnDeadLetters, AllDeadLetters], true),
        needs("/acb.v1.DeadLetterService/DropDeadLetters", &[OwnDeadLetters, AllDeadLetters], true),
        needs("/acb.v1.ContextService/CreateContext", &[PublishContext], true),
        needs("/acb.v1.ContextService/GetContext", &[ReadContext], true),
        needs("/acb.v1.ContextService/UpdateContext", &[PublishContext], true),
        needs("/acb.v1.ContextService/DeleteContext", &[PublishContext], true),
        needs("/acb.v1.ContextService/ListContexts", &[ReadContext], true),
        needs("/acb.v1.ContextService/Subscribe", &[ReadContext], true).answers_many(),
        needs("/acb.v1.StreamService/StreamContext", &[PublishContext], true).asks_many().answers_many(),
        needs("/acb.v1.StreamService/ReceiveContext", &[ReadContext], true).answers_many(),
        needs("/acb.v1.StreamService/GetStreamProgress", &[ReadOwnStream], false),
    ]
};

/// The rule of a method.
#[must_use]
pub fn rule(path: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.path == path)
}
