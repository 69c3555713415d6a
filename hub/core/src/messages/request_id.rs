//! The ids of requests that wait for a reply.

use std::fmt;

use uuid::Uuid;

use crate::{directory::agent::AgentId, kit::hmac::keyed};

/// What request ids are made with: the same on all replicas of a tenant, and nobody else's.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestKey([u8; 32]);

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestKey")
    }
}

impl RequestKey {
    /// From 32 secret bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The id of a request. A repeated one has the same, whichever replica it comes to, and so waits for the reply to the first. Whoever
    /// knows the id may answer: so it must not follow from what others may know, such as the sender and its idempotency key.
    #[must_use]
    pub fn id(&self, from: AgentId, idempotency_key: &str) -> Uuid {
        if idempotency_key.is_empty() {
            return Uuid::new_v4();
        }
        let hash = keyed(&self.0, &[from.0.as_bytes(), idempotency_key.as_bytes()].concat());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_the_secret_alone() {
        let (one, other) = (RequestKey::new([1; 32]), RequestKey::new([2; 32]));
        let (alice, bob) = (AgentId(Uuid::from_u128(1)), AgentId(Uuid::from_u128(2)));
        assert_eq!(one.id(alice, "k"), one.id(alice, "k"));
        assert_ne!(one.id(alice, "k"), other.id(alice, "k"), "who knows sender and key does not know the id");
        assert_ne!(one.id(alice, "k"), one.id(bob, "k"));
        assert_ne!(one.id(alice, ""), one.id(alice, ""));
        assert_eq!(format!("{one:?}"), "RequestKey");
    }
}
