//! What a hub decides: types, permissions, sequencing, deduplication, sessions. Its ports are traits; nothing here knows gRPC, SQL, Kafka or
//! Kubernetes.
//!
//! A folder is a room. A room uses only rooms that stand above it in this list. `log` and `timers` never use each other, nor do the last three:
//!
//! | room | holds |
//! |---|---|
//! | [`fault`] | the one error that callers see |
//! | [`kit`] | what any server could use |
//! | [`metrics`] | what is counted |
//! | [`log`] | the bus port, and what follows from order alone |
//! | [`timers`] | what is to be done later, and once |
//! | [`directory`] | who is in the tenant |
//! | [`audit`] | who did what |
//! | [`door`] | who calls, and what the call needs |
//! | [`messages`] | messages between agents |
//! | [`contexts`] | shared contexts and streams |

pub mod audit;
pub mod contexts;
pub mod directory;
pub mod door;
pub mod fault;
pub mod kit;
pub mod log;
pub mod messages;
pub mod metrics;
pub mod timers;
