//! Refresh tokens: how they look, how long they live, and what is to be done about one that is presented. Pure.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{directory::agent::AgentId, fault::Fault, kit::random::random};

/// How long a refresh token is valid, if it is not used.
pub const REFRESH_TOKEN_LIFE: Duration = Duration::days(7);
/// A lost answer may be asked for again this long.
pub const REUSE_GRACE: Duration = Duration::seconds(30);
/// Families of one agent: exchanging once more forgets the one that was unused for longest.
pub const MAX_FAMILIES: u32 = 64;
/// Tokens of one family: two for each hour of a token's life. An older used one is no longer recognised as used again, only refused.
pub const MAX_FAMILY_TOKENS: u32 = 336;

/// SHA-256 of a refresh token.
pub type TokenHash = [u8; 32];

/// A refresh token, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRefresh {
    /// All tokens that came from one exchange.
    pub family: Uuid,
    /// Whose.
    pub agent: AgentId,
    /// Until when.
    pub expires_at: OffsetDateTime,
    /// When it was exchanged for its successor.
    pub used_at: Option<OffsetDateTime>,
    /// Whether its family was revoked.
    pub revoked: bool,
    /// Whether the API key that its family came from is still its agent's, and valid.
    pub key_lives: bool,
}

/// What is to be done about a refresh token that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Mark it used and make its successor.
    Rotate,
    /// It was just used, and the answer may be lost: its successor again.
    Repeat,
    /// It was used long ago, so two parties hold it: revoke the family.
    Revoke,
    /// It is expired or revoked.
    Refuse,
    /// It is good, and the key that it came from is not: removed, rotated or past its overlap.
    KeyGone,
}

impl StoredRefresh {
    /// Decides about a token that is presented now.
    #[must_use]
    pub fn judge(&self, now: OffsetDateTime) -> Judgement {
        if self.revoked || self.expires_at <= now {
            return Judgement::Refuse;
        }
        match self.used_at {
            Some(used_at) if now - used_at > REUSE_GRACE => Judgement::Revoke,
            _ if !self.key_lives => Judgement::KeyGone,
            None => Judgement::Rotate,
            Some(_) => Judgement::Repeat,
        }
    }
}

/// What became of a refresh token that was presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Its successor is stored, and ends then.
    Successor {
        /// Whose.
        agent: AgentId,
        /// The prefix of the API key that it came from.
        key: String,
        /// When the successor ends, by the clock of this machine.
        expires_at: OffsetDateTime,
    },
    /// It was used before: its family is now revoked.
    Reused {
        /// Whose.
        agent: AgentId,
    },
    /// It is good, and its API key is gone.
    KeyGone {
        /// Whose.
        agent: AgentId,
    },
    /// Unknown, expired or revoked.
    Refused,
}

/// A family of refresh tokens, as it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFamily {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub agent: AgentId,
    /// The prefix of the API key that was exchanged.
    pub key: String,
    /// How long its first token lives. From when on is the store's to say: its clock judges later on.
    pub life: Duration,
}

pub(crate) fn random_token() -> Result<String, Fault> {
    Ok(format_token(&random()?))
}

pub(crate) fn format_token(bytes: &[u8; 32]) -> String {
    format!("acbr_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

pub(crate) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> StoredRefresh {
        StoredRefresh {
            family: Uuid::nil(),
            agent: AgentId(Uuid::nil()),
            expires_at: OffsetDateTime::UNIX_EPOCH + REFRESH_TOKEN_LIFE,
            used_at: None,
            revoked: false,
            key_lives: true,
        }
    }

    #[test]
    fn a_refresh_token_is_used_once_and_repeated_for_half_a_minute() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
        assert_eq!(stored().judge(at(10)), Judgement::Rotate);
        let used = StoredRefresh { used_at: Some(at(10)), ..stored() };
        assert_eq!(used.judge(at(40)), Judgement::Repeat);
        assert_eq!(used.judge(at(41)), Judgement::Revoke);
        assert_eq!(StoredRefresh { revoked: true, ..used }.judge(at(11)), Judgement::Refuse);
        assert_eq!(stored().judge(stored().expires_at), Judgement::Refuse);
    }

    #[test]
    fn a_refresh_token_ends_with_the_key_that_it_came_from() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
        let orphan = StoredRefresh { key_lives: false, ..stored() };
        assert_eq!(orphan.judge(at(10)), Judgement::KeyGone);
        let used = StoredRefresh { used_at: Some(at(10)), ..orphan };
        assert_eq!(used.judge(at(40)), Judgement::KeyGone);
        assert_eq!(used.judge(at(41)), Judgement::Revoke, "a stolen token is noticed all the same");
        assert_eq!(StoredRefresh { revoked: true, ..used }.judge(at(41)), Judgement::Refuse);
    }
}
