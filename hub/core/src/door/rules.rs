//! What each operation of the hub needs. The one table: what is not here does not exist for callers.

use crate::directory::agent::Permission;

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Anyone who can connect, without a token.
    Public,
    /// A proven agent whose role allows at least one of these.
    AnyOf(&'static [Permission]),
}

/// What the audit trail has of the calls of an operation, and when. Refusals are summed, of every operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audited {
    /// Nothing.
    Not,
    /// A proven login, before its caller has the tokens; others are summed: anybody can call it.
    Login,
    /// The intent before anything handles it, and what became of it.
    Change,
    /// What was read, before the first byte of it reaches the caller.
    Read,
}

/// Where an operation is found, in each protocol that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bindings {
    /// The gRPC path, such as `/acb.v1.AgentRegistry/Heartbeat`.
    pub grpc: &'static str,
}

/// What one operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which one.
    pub operation: Operation,
    /// Where it is found.
    pub bindings: Bindings,
    /// Who may call it.
    pub access: Requirement,
    /// What the audit trail has of its calls.
    pub audited: Audited,
    /// Whether the directory's generation is read first: for calls that last, and so must not begin by old facts.
    pub fresh: bool,
    /// Whether a call takes any number of requests, and not just one.
    pub asks_many: bool,
    /// Whether a call gives any number of answers: it has begun long before it is known what became of it.
    pub answers_many: bool,
}

impl Rule {
    /// Whether a call of it is a stream.
    #[must_use]
    pub const fn lasts(&self) -> bool {
        self.asks_many || self.answers_many
    }

    /// The same, of an operation that takes any number of requests.
    const fn asks_many(self) -> Self {
        Self { asks_many: true, ..self }
    }

    /// The same, of an operation that gives any number of answers.
    const fn answers_many(self) -> Self {
        Self { answers_many: true, ..self }
    }

    const fn audited(self, audited: Audited) -> Self {
        Self { audited, ..self }
    }

    /// The same, of an operation that proves who calls.
    const fn login(self) -> Self {
        self.audited(Audited::Login)
    }

    /// The same, of an operation that changes what the tenant would want to know of.
    const fn change(self) -> Self {
        self.audited(Audited::Change)
    }

    /// The same, of an operation that reads what the tenant would want to know of.
    const fn read(self) -> Self {
        self.audited(Audited::Read)
    }

    /// The same, of an operation that must not begin by old facts.
    const fn fresh(self) -> Self {
        Self { fresh: true, ..self }
    }
}

const fn rule(operation: Operation, access: Requirement, grpc: &'static str) -> Rule {
    Rule {
        operation,
        bindings: Bindings { grpc },
        access,
        audited: Audited::Not,
        fresh: false,
        asks_many: false,
        answers_many: false,
    }
}

const fn public(operation: Operation, grpc: &'static str) -> Rule {
    rule(operation, Requirement::Public, grpc)
}

const fn needs(operation: Operation, any_of: &'static [Permission], grpc: &'static str) -> Rule {
    rule(operation, Requirement::AnyOf(any_of), grpc)
}

/// Makes the list of operations and the table of one set of rows, so that none is without a rule.
macro_rules! operations {
    ($($operation:ident: $kind:ident($($needs:expr),+) $(.$more:ident())*;)+) => {
        /// What a caller can have done, whatever the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "an operation is documented where it is bound, in the protos")]
        pub enum Operation {
            $($operation,)+
        }

        impl Operation {
            /// The one of this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($operation) => Some(Self::$operation),)+
                    _ => None,
                }
            }

            /// Its name in records and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$operation => stringify!($operation),)+
                }
            }

            /// The name of a limit of its calls.
            pub(super) const fn limit_name(self) -> &'static str {
                match self {
                    $(Self::$operation => concat!("requestsPerMinute/", stringify!($operation)),)+
                }
            }

            /// What it needs.
            #[must_use]
            pub const fn rule(self) -> &'static Rule {
                match self {
                    $(Self::$operation => &const { $kind(Self::$operation, $($needs),+)$(.$more())* },)+
                }
            }
        }

        /// What every operation of the hub needs.
        pub const RULES: &[&Rule] = &[$(Operation::$operation.rule()),+];
    };
}

use Permission::{
    AllContexts, AllCredentials, AllDeadLetters, AllRegistrations, AllScheduledMessages, AllTraces, AllUsage, Discover,
    OwnCredentials, OwnDeadLetters, OwnScheduledMessages, OwnTraces, OwnUsage, Presence, PublishContext, ReadAddressedContext,
    ReadAudit, ReadContext, ReadOwnStream, Receive, RegisterOthers, Send,
};

/// What reading a context takes: which of them each of these lets its holder see is said in `contexts/visibility.rs`.
const READS: &[Permission] = &[ReadContext, ReadAddressedContext, AllContexts];

/// What making, changing or ending a context takes.
const PUBLISHES: &[Permission] = &[PublishContext, AllContexts];

// A row is the operation, the permissions of which one is needed, and the gRPC path. That a message was sent, the log itself records.
operations! {
    // Without a token: what hands tokens out, and what probes and tools need before they have one.
    ExchangeToken: public("/acb.v1.AuthService/ExchangeToken").login();
    ExchangeSubjectToken: public("/acb.v1.AuthService/ExchangeSubjectToken").login();
    RefreshToken: public("/acb.v1.AuthService/RefreshToken").login();
    RevokeToken: public("/acb.v1.AuthService/RevokeToken").login();
    GetJwks: public("/acb.v1.AuthService/GetJwks");
    CheckHealth: public("/grpc.health.v1.Health/Check");
    WatchHealth: public("/grpc.health.v1.Health/Watch").answers_many();
    Reflect: public("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").asks_many().answers_many();
    ReflectAlpha: public("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo").asks_many().answers_many();

    ListCredentials: needs(&[OwnCredentials, AllCredentials], "/acb.v1.CredentialService/ListCredentials").read();

    PublishEncryptionKey: needs(&[Send, Receive], "/acb.v1.EncryptionKeyService/PublishEncryptionKey").change();
    WithdrawEncryptionKey: needs(&[Send, Receive], "/acb.v1.EncryptionKeyService/WithdrawEncryptionKey").change();
    ListEncryptionKeys: needs(&[Discover], "/acb.v1.EncryptionKeyService/ListEncryptionKeys");

    Register: needs(&[Presence, RegisterOthers], "/acb.v1.AgentRegistry/Register").change();
    Unregister: needs(&[Presence, RegisterOthers, AllRegistrations], "/acb.v1.AgentRegistry/Unregister").change();
    Heartbeat: needs(&[Presence], "/acb.v1.AgentRegistry/Heartbeat");
    Discover: needs(&[Discover], "/acb.v1.AgentRegistry/Discover");
    GetAgent: needs(&[Discover], "/acb.v1.AgentRegistry/GetAgent");
    ListAgents: needs(&[Discover], "/acb.v1.AgentRegistry/ListAgents");

    SendMessage: needs(&[Send], "/acb.v1.MessageService/SendMessage");
    Request: needs(&[Send], "/acb.v1.MessageService/Request");
    Session: needs(&[Send, Receive], "/acb.v1.MessageService/Session").read().fresh().asks_many().answers_many();

    ScheduleMessage: needs(&[Send], "/acb.v1.ScheduleService/ScheduleMessage").change();
    ListScheduledMessages: needs(&[OwnScheduledMessages, AllScheduledMessages], "/acb.v1.ScheduleService/ListScheduledMessages").read();
    CancelScheduledMessage: needs(&[OwnScheduledMessages, AllScheduledMessages], "/acb.v1.ScheduleService/CancelScheduledMessage").change();

    PullMessages: needs(&[Receive], "/acb.v1.MailboxService/PullMessages");
    AcknowledgeMessages: needs(&[Receive], "/acb.v1.MailboxService/AcknowledgeMessages");
    ListUnread: needs(&[Receive], "/acb.v1.MailboxService/ListUnread");
    CountUnread: needs(&[Receive], "/acb.v1.MailboxService/CountUnread");
    WaitForUnread: needs(&[Receive], "/acb.v1.MailboxService/WaitForUnread");

    ListDeadLetters: needs(&[OwnDeadLetters, AllDeadLetters], "/acb.v1.DeadLetterService/ListDeadLetters").read();
    GetDeadLetter: needs(&[OwnDeadLetters, AllDeadLetters], "/acb.v1.DeadLetterService/GetDeadLetter").read();
    ReplayDeadLetters: needs(&[OwnDeadLetters, AllDeadLetters], "/acb.v1.DeadLetterService/ReplayDeadLetters").change();
    DropDeadLetters: needs(&[OwnDeadLetters, AllDeadLetters], "/acb.v1.DeadLetterService/DropDeadLetters").change();

    GetMessageTrace: needs(&[OwnTraces, AllTraces], "/acb.v1.TraceService/GetMessageTrace").read();

    GetUsage: needs(&[OwnUsage, AllUsage], "/acb.v1.UsageService/GetUsage");
    ListUsage: needs(&[OwnUsage, AllUsage], "/acb.v1.UsageService/ListUsage").read();

    ListAuditRecords: needs(&[ReadAudit], "/acb.v1.AuditService/ListAuditRecords").read();
    FollowAuditRecords: needs(&[ReadAudit], "/acb.v1.AuditService/FollowAuditRecords").read().answers_many();
    GetAuditCheckpoint: needs(&[ReadAudit], "/acb.v1.AuditService/GetAuditCheckpoint");
    GetAuditProof: needs(&[ReadAudit], "/acb.v1.AuditService/GetAuditProof");

    CreateContext: needs(PUBLISHES, "/acb.v1.ContextService/CreateContext").change();
    GetContext: needs(READS, "/acb.v1.ContextService/GetContext").read();
    UpdateContext: needs(PUBLISHES, "/acb.v1.ContextService/UpdateContext").change();
    SetContextAccess: needs(PUBLISHES, "/acb.v1.ContextService/SetContextAccess").change();
    DeleteContext: needs(PUBLISHES, "/acb.v1.ContextService/DeleteContext").change();
    ListContexts: needs(READS, "/acb.v1.ContextService/ListContexts").read();
    Subscribe: needs(READS, "/acb.v1.ContextService/Subscribe").read().answers_many();

    StreamContext: needs(PUBLISHES, "/acb.v1.StreamService/StreamContext").change().asks_many().answers_many();
    ReceiveContext: needs(READS, "/acb.v1.StreamService/ReceiveContext").read().answers_many();
    GetStreamProgress: needs(&[ReadOwnStream], "/acb.v1.StreamService/GetStreamProgress");
}

/// The rule of a gRPC method.
#[must_use]
pub fn of_grpc(path: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.bindings.grpc == path).copied()
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs, path::PathBuf};

    use super::*;
    use crate::directory::agent::Role;

    const BEGIN: &str =
        "<!-- What follows is printed from hub/core/src/door/rules.rs by `UPDATE_DOCS=1 cargo test -p acb-hub-core`. -->\n";
    const END: &str = "<!-- End of what is printed. -->\n";

    /// With what a role may do an operation; empty: not at all.
    fn cell(role: Role, rule: &Rule) -> String {
        let Requirement::AnyOf(any_of) = rule.access else { return "anyone".to_owned() };
        let mut held: Vec<Permission> = any_of.iter().copied().filter(|permission| role.allows(*permission)).collect();
        if let Some(all) = held.iter().copied().find(|permission| permission.is_of_all()) {
            held = vec![all];
        }
        held.into_iter().map(Permission::resource).collect::<Vec<_>>().join("; ")
    }

    fn table() -> String {
        let mut page = String::from("| operation |");
        for role in Role::ALL {
            write!(page, " `{}` |", role.as_str()).unwrap();
        }
        page.push_str(" recorded |\n|---|");
        page.push_str(&"---|".repeat(Role::ALL.len() + 1));
        page.push('\n');
        for rule in RULES {
            let method = rule.bindings.grpc.trim_start_matches('/').trim_start_matches("acb.v1.");
            write!(page, "| `{method}` |").unwrap();
            for role in Role::ALL {
                write!(page, " {} |", cell(role, rule)).unwrap();
            }
            let recorded = match rule.audited {
                Audited::Not => "refusals",
                Audited::Login => "logins, before they are answered",
                Audited::Change => "before it is done, and its end",
                Audited::Read => "before it is answered",
            };
            writeln!(page, " {recorded} |").unwrap();
        }
        page
    }

    #[test]
    fn the_page_of_permissions_is_current() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/permissions.md");
        let found = fs::read_to_string(&path).unwrap();
        let (before, rest) = found.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let page = format!("{before}{BEGIN}{}{END}{after}", table());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, &page).unwrap();
            return;
        }
        assert!(found == page, "docs/permissions.md is out of date: run UPDATE_DOCS=1 cargo test -p acb-hub-core");
    }

    #[test]
    fn every_permission_is_needed_by_something_and_held_by_somebody() {
        for permission in Permission::ALL {
            let needed = |rule: &Rule| matches!(rule.access, Requirement::AnyOf(any_of) if any_of.contains(&permission));
            assert!(RULES.iter().copied().any(needed), "nothing needs {permission:?}");
            assert!(Role::Admin.allows(permission), "an admin lacks {permission:?}");
        }
        for role in Role::ALL {
            let none = Permission::ALL.into_iter().all(|permission| !role.allows(permission));
            assert!(!none, "{role:?} may do nothing");
        }
    }
}
