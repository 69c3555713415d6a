//! Real servers for tests: a private PostgreSQL, a private Kafka, on free loopback ports, ended with the test process.
//!
//! PostgreSQL:
//! ```ignore
//! let pg = Postgres::shared().await;              // one server per test process, bootstrapped and migrated
//! let acme = pg.tenant("acme").await;             // provisioned by the operator's own effect; the same name gives the same tenant
//! acme.connect_options()                          // PgConnectOptions of its login acb_t_<id>, database acb
//! acme.id_hex(); acme.id_bytes();                 // the tenant's id: 20 hex digits, 10 bytes
//! acme.username(); acme.password();
//! acme.ensure_topic("sys.messages", 8).await;     // TopicSpec of acb.acme.sys.messages; makes it, or gives it more partitions
//! acme.context_type("notes", 4).await;            // adds a context type and its topic acb.acme.notes
//! let agent = acme.agent("alice").await;          // an agent-full agent; TestAgent { id, name, api_key }
//! acme.project(&row).await;                       // or any AgentRow (see TestTenant::agent_row for one to start from)
//! acme.remove(agent.id).await;
//! acme.pepper()                                   // 32 bytes; API keys' HMACs are made with it
//! pg.superuser().await                            // a connection as superuser, for looking behind the walls
//! Postgres::start(Version::V17).await             // a server of one's own
//! ```
//! A new tenant has the topics `sys.messages` (8 partitions), `sys.control`, `sys.audit`, `sys.dlq` and `sys.usage` (1 each).
//! Names are shared within a test process: give each test tenants of its own (`pg.fresh_tenant("acme")` adds a random tail).
//!
//! These panic where something is missing, and say what to install: in a test that is the useful answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod clock;
pub mod gate;
pub mod issuer;
pub mod kafka;
pub mod operator;
pub mod outside;
pub mod postgres;
pub mod relay;
pub mod standalone;
pub mod standby;

pub use acb_operator::plan::AgentRow;
pub use clock::ServerClock;
pub use gate::Gate;
pub use issuer::{RealIssuer, Response, TestIssuer, issuer_row, public_key};
pub use kafka::{Kafka, KafkaListener};
pub use operator::OperatorFiles;
pub use outside::Outside;
pub use postgres::{Postgres, Secrets, TestAgent, TestTenant, Version};
pub use relay::Relay;
pub use standby::Standby;
