//! What is limited: of a tenant as a whole, of each of its agents, and by a Quota. The effective limit is the smallest that applies.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! limits {
    ($(#[$meta:meta])* $type:ident { $($(#[$field_meta:meta])* $field:ident as $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $type {
            $(
                $(#[$field_meta])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<i64>,
            )*
        }

        impl $type {
            /// The names of the fields.
            pub const FIELDS: &[&str] = &[$($name),*];

            /// Each limit with the name of its field.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, Option<i64>)> {
                vec![$(($name, self.$field)),*]
            }

            /// The smaller of each.
            #[must_use]
            pub fn smallest(&self, other: &Self) -> Self {
                Self { $($field: smaller(self.$field, other.$field)),* }
            }

            /// Those of `overrides`, and one's own where it has none.
            #[must_use]
            pub fn overridden_by(&self, overrides: &Self) -> Self {
                Self { $($field: overrides.$field.or(self.$field)),* }
            }

            /// The limits that are above `ceiling`: field, limit, ceiling.
            #[must_use]
            pub fn above(&self, ceiling: &Self) -> Vec<(&'static str, i64, i64)> {
                let pairs = [$(($name, self.$field, ceiling.$field)),*].into_iter();
                pairs.filter_map(|(field, limit, most)| Some((field, limit?, most?))).filter(|(_, limit, most)| limit > most).collect()
            }
        }
    };
}

fn smaller(left: Option<i64>, right: Option<i64>) -> Option<i64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

limits! {
    /// Limits of a tenant as a whole. One that is unset is not limited here.
    TenantLimits {
        /// The most Agents that may be provisioned. When there are more, the youngest are Stalled with TooManyAgents.
        #[schemars(range(min = 0, max = 1_000_000))]
        max_agents as "maxAgents",
        /// The most messages that all of the tenant's agents send in a minute.
        #[schemars(range(min = 0))]
        messages_per_minute as "messagesPerMinute",
        /// The most bytes that all of the tenant's agents send in a minute.
        #[schemars(range(min = 0))]
        bytes_per_minute as "bytesPerMinute",
        /// The most messages that all of the tenant's agents send in a calendar month.
        #[schemars(range(min = 0))]
        messages_per_month as "messagesPerMonth",
        /// The most requests that all of the tenant's agents make in a minute. What is sent on a session is none.
        #[schemars(range(min = 0))]
        requests_per_minute as "requestsPerMinute",
        /// The most bytes of one request of any of the tenant's agents. On a session it is the payload of each message that counts. Above 2 MiB no hub takes any.
        #[schemars(range(min = 0))]
        request_bytes as "requestBytes",
        /// The most streams that all of the tenant's agents have open at a time.
        #[schemars(range(min = 0, max = 1_000_000))]
        concurrent_streams as "concurrentStreams",
        /// The most connections that all of the tenant's agents have calls open on at a time. A replica takes 64 from an agent at most.
        #[schemars(range(min = 0, max = 1_000_000))]
        connections as "connections",
        /// The most bytes of the tenant's stored contexts.
        #[schemars(range(min = 0))]
        storage_bytes as "storageBytes",
        /// The most contexts of the tenant that are stored.
        #[schemars(range(min = 0))]
        contexts as "contexts",
    }
}

limits! {
    /// Limits of one agent. One that is unset is not limited here.
    AgentLimits {
        /// The most messages that an agent sends in a minute.
        #[schemars(range(min = 0))]
        messages_per_minute as "messagesPerMinute",
        /// The most bytes that an agent sends in a minute.
        #[schemars(range(min = 0))]
        bytes_per_minute as "bytesPerMinute",
        /// The most messages that an agent sends in a calendar month.
        #[schemars(range(min = 0))]
        messages_per_month as "messagesPerMonth",
        /// The most requests that an agent makes in a minute. What is sent on a session is none.
        #[schemars(range(min = 0))]
        requests_per_minute as "requestsPerMinute",
        /// The most bytes of one request of an agent. On a session it is the payload of each message that counts. Above 2 MiB no hub takes any.
        #[schemars(range(min = 0))]
        request_bytes as "requestBytes",
        /// The most streams that an agent has open at a time.
        #[schemars(range(min = 0, max = 1_000_000))]
        concurrent_streams as "concurrentStreams",
        /// The most connections that an agent has calls open on at a time. A replica takes 64 from it at most.
        #[schemars(range(min = 0, max = 1_000_000))]
        connections as "connections",
        /// The most bytes of contexts that an agent stores.
        #[schemars(range(min = 0))]
        storage_bytes as "storageBytes",
        /// The most contexts that an agent stores.
        #[schemars(range(min = 0))]
        contexts as "contexts",
    }
}

limits! {
    /// Limits that a Quota sets: of each agent that its selector means, or of the tenant as a whole.
    QuotaLimits {
        /// The most Agents, of those that the selector means. When there are more, the youngest are Stalled with TooManyAgents.
        #[schemars(range(min = 0, max = 1_000_000))]
        max_agents as "maxAgents",
        /// The most messages in a minute: of each agent that the selector means, or without one of all together.
        #[schemars(range(min = 0))]
        messages_per_minute as "messagesPerMinute",
        /// The most bytes that are sent in a minute: of each agent that the selector means, or without one of all together.
        #[schemars(range(min = 0))]
        bytes_per_minute as "bytesPerMinute",
        /// The most messages in a calendar month: of each agent that the selector means, or without one of all together.
        #[schemars(range(min = 0))]
        messages_per_month as "messagesPerMonth",
        /// The most requests in a minute: of each agent that the selector means, or without one of all together.
        #[schemars(range(min = 0))]
        requests_per_minute as "requestsPerMinute",
        /// The most bytes of one request: of each agent that the selector means, or without one of any agent. On a session it is the payload of each message that counts. Above 2 MiB no hub takes any.
        #[schemars(range(min = 0))]
        request_bytes as "requestBytes",
        /// The most streams that are open at a time: of each agent that the selector means, or without one of all together.
        #[schemars(range(min = 0, max = 1_000_000))]
        concurrent_streams as "concurrentStreams",
        /// The most connections with open calls at a time: of each agent that the selector means, or without one of all together. A replica takes 64 from an agent at most.
        #[schemars(range(min = 0, max = 1_000_000))]
        connections as "connections",
        /// The most bytes of stored contexts: of each agent that the selector means, or without one of all together.
        #[schemars(range(min = 0))]
        storage_bytes as "storageBytes",
        /// The most stored contexts: of each agent that the selector means, or without one of all together.
        #[schemars(range(min = 0))]
        contexts as "contexts",
    }
}

impl QuotaLimits {
    /// As what they are without a selector.
    #[must_use]
    pub fn of_tenant(&self) -> TenantLimits {
        TenantLimits {
            max_agents: self.max_agents,
            messages_per_minute: self.messages_per_minute,
            bytes_per_minute: self.bytes_per_minute,
            messages_per_month: self.messages_per_month,
            requests_per_minute: self.requests_per_minute,
            request_bytes: self.request_bytes,
            concurrent_streams: self.concurrent_streams,
            connections: self.connections,
            storage_bytes: self.storage_bytes,
            contexts: self.contexts,
        }
    }

    /// As what they are to each agent that a selector means. How many there may be of them is no limit of one.
    #[must_use]
    pub fn of_agent(&self) -> AgentLimits {
        AgentLimits {
            messages_per_minute: self.messages_per_minute,
            bytes_per_minute: self.bytes_per_minute,
            messages_per_month: self.messages_per_month,
            requests_per_minute: self.requests_per_minute,
            request_bytes: self.request_bytes,
            concurrent_streams: self.concurrent_streams,
            connections: self.connections,
            storage_bytes: self.storage_bytes,
            contexts: self.contexts,
        }
    }
}

impl From<TenantLimits> for QuotaLimits {
    fn from(limits: TenantLimits) -> Self {
        Self {
            max_agents: limits.max_agents,
            messages_per_minute: limits.messages_per_minute,
            bytes_per_minute: limits.bytes_per_minute,
            messages_per_month: limits.messages_per_month,
            requests_per_minute: limits.requests_per_minute,
            request_bytes: limits.request_bytes,
            concurrent_streams: limits.concurrent_streams,
            connections: limits.connections,
            storage_bytes: limits.storage_bytes,
            contexts: limits.contexts,
        }
    }
}

impl From<AgentLimits> for QuotaLimits {
    fn from(limits: AgentLimits) -> Self {
        Self {
            max_agents: None,
            messages_per_minute: limits.messages_per_minute,
            bytes_per_minute: limits.bytes_per_minute,
            messages_per_month: limits.messages_per_month,
            requests_per_minute: limits.requests_per_minute,
            request_bytes: limits.request_bytes,
            concurrent_streams: limits.concurrent_streams,
            connections: limits.connections,
            storage_bytes: limits.storage_bytes,
            contexts: limits.contexts,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_limit_is_named_as_in_the_document() {
        let all = |fields: &[&str]| Value::Object(fields.iter().map(|field| ((*field).to_owned(), json!(1))).collect());
        let tenant: TenantLimits = serde_json::from_value(all(TenantLimits::FIELDS)).unwrap();
        let agent: AgentLimits = serde_json::from_value(all(AgentLimits::FIELDS)).unwrap();
        let quota: QuotaLimits = serde_json::from_value(all(QuotaLimits::FIELDS)).unwrap();
        for entries in [tenant.entries(), agent.entries(), quota.entries()] {
            assert!(entries.iter().all(|(_, limit)| *limit == Some(1)), "{entries:?}");
        }
        assert_eq!((quota.of_tenant(), quota.of_agent()), (tenant, agent));
    }

    #[test]
    fn the_smallest_holds_and_what_is_above_is_named() {
        let ours = AgentLimits { messages_per_minute: Some(9), storage_bytes: Some(1), ..AgentLimits::default() };
        let theirs = AgentLimits { messages_per_minute: Some(5), bytes_per_minute: Some(7), ..AgentLimits::default() };
        let both = AgentLimits { bytes_per_minute: Some(7), storage_bytes: Some(1), ..theirs.clone() };
        assert_eq!(ours.smallest(&theirs), both);
        assert_eq!(theirs.overridden_by(&ours), AgentLimits { bytes_per_minute: Some(7), ..ours.clone() });
        assert_eq!(ours.above(&theirs), [("messagesPerMinute", 9, 5)]);
    }
}
