//! Every service of the hub as one set of routes. What is added here must be in core's table of methods, or the door refuses it.

use acb_hub_core::kit::readiness::Readiness;
use acb_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{
        agent_registry_server::AgentRegistryServer, audit_service_server::AuditServiceServer,
        auth_service_server::AuthServiceServer, context_service_server::ContextServiceServer,
        credential_service_server::CredentialServiceServer, dead_letter_service_server::DeadLetterServiceServer,
        encryption_key_service_server::EncryptionKeyServiceServer, mailbox_service_server::MailboxServiceServer,
        message_service_server::MessageServiceServer, schedule_service_server::ScheduleServiceServer,
        stream_service_server::StreamServiceServer, trace_service_server::TraceServiceServer,
        usage_service_server::UsageServiceServer,
    },
};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    grpc::{
        agent::Agents, audit::AuditGate, auth::Auth, context::ContextGate, credential::CredentialGate,
        dead_letter::DeadLetterGate, encryption::EncryptionKeyGate, mailbox::MailboxGate, message::MessageGate,
        schedule::ScheduleGate, stream::StreamGate, trace::TraceGate, usage::UsageGate,
    },
    status::{MAX_PUBLIC_REQUEST_BYTES, MAX_REQUEST_BYTES},
};

/// What answers agents.
#[derive(Clone)]
pub struct Services {
    /// Tokens.
    pub auth: Auth,
    /// What agents prove themselves with.
    pub credentials: CredentialGate,
    /// By what they receive what the hub can't read.
    pub encryption_keys: EncryptionKeyGate,
    /// Who is there.
    pub agents: Agents,
    /// Messages.
    pub messages: MessageGate,
    /// Mailboxes.
    pub mailboxes: MailboxGate,
    /// Dead letters.
    pub dead_letters: DeadLetterGate,
    /// Messages that are sent later.
    pub schedule: ScheduleGate,
    /// Contexts.
    pub contexts: ContextGate,
    /// Large contexts.
    pub streams: StreamGate,
    /// What happened to messages.
    pub traces: TraceGate,
    /// Limits.
    pub usage: UsageGate,
    /// The audit trail.
    pub audit: AuditGate,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

/// Says through gRPC's health service whether this replica serves.
#[derive(Clone, Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Says the same as `/readyz`, until the hub is gone.
    pub async fn follow(self, readiness: Readiness) {
        let mut changes = readiness.changes();
        loop {
            changes.mark_unchanged();
            let status = if readiness.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.0.set_service_status("", status).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Services {
    /// All of them, with health and reflection.
    pub fn routes(self) -> Result<(Routes, Health), tonic_reflection::server::Error> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let mut routes = Routes::builder();
        routes
            .add_service(health.max_decoding_message_size(MAX_PUBLIC_REQUEST_BYTES))
            .add_service(reflection().build_v1()?.max_decoding_message_size(MAX_PUBLIC_REQUEST_BYTES))
            .add_service(reflection().build_v1alpha()?.max_decoding_message_size(MAX_PUBLIC_REQUEST_BYTES))
            .add_service(AuthServiceServer::new(self.auth).max_decoding_message_size(MAX_PUBLIC_REQUEST_BYTES))
            .add_service(CredentialServiceServer::new(self.credentials).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(
                EncryptionKeyServiceServer::new(self.encryption_keys).max_decoding_message_size(MAX_PUBLIC_REQUEST_BYTES),
            )
            .add_service(AgentRegistryServer::new(self.agents).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(MessageServiceServer::new(self.messages).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(MailboxServiceServer::new(self.mailboxes).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(DeadLetterServiceServer::new(self.dead_letters).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(ScheduleServiceServer::new(self.schedule).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(ContextServiceServer::new(self.contexts).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(StreamServiceServer::new(self.streams).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(TraceServiceServer::new(self.traces).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(UsageServiceServer::new(self.usage).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(AuditServiceServer::new(self.audit).max_decoding_message_size(MAX_REQUEST_BYTES));
        Ok((routes.routes(), Health(reporter)))
    }
}

#[cfg(test)]
mod tests {
    use acb_hub_core::door::rules::{Operation, RULES, Requirement};
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Without a token. This list only shrinks.
    const EXCEPTIONS: [Operation; 9] = [
        Operation::ExchangeToken,
        Operation::ExchangeSubjectToken,
        Operation::RefreshToken,
        Operation::RevokeToken,
        Operation::GetJwks,
        Operation::CheckHealth,
        Operation::WatchHealth,
        Operation::Reflect,
        Operation::ReflectAlpha,
    ];

    /// Each method, whether it takes many requests, and whether it gives many answers.
    fn methods() -> Vec<(String, bool, bool)> {
        let sets = [
            FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = Vec::new();
        for set in sets {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    methods.extend(service.method.iter().map(|method| {
                        let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        (path, method.client_streaming(), method.server_streaming())
                    }));
                }
            }
        }
        methods.sort();
        methods
    }

    #[test]
    fn every_method_has_a_rule_and_every_rule_a_method() {
        let rules = RULES.iter().map(|rule| (rule.bindings.grpc.to_owned(), rule.asks_many, rule.answers_many));
        let mut rules: Vec<_> = rules.collect();
        rules.sort_unstable();
        assert_eq!(methods(), rules);
    }

    #[test]
    fn nothing_but_the_exceptions_is_public() {
        let public: Vec<_> = RULES.iter().filter(|rule| rule.access == Requirement::Public).map(|rule| rule.operation).collect();
        assert_eq!(public, EXCEPTIONS);
    }
}
