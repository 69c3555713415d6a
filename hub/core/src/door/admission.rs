//! The one door: every request of every protocol passes [`Door::admit`] before anything handles it.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{
    access_token::{Tokens, invalid_token},
    rules::{Access, Rule},
};
use crate::{
    directory::{
        caller::{Caller, lacks},
        refresher::{Connected, Refresher},
    },
    fault::{Code, Fault},
};

/// Proves who calls, and whether the caller's role allows the method.
#[derive(Clone, Debug)]
pub struct Door {
    tokens: Tokens,
    directory: Arc<Refresher>,
}

impl Door {
    /// A door of one tenant.
    #[must_use]
    pub fn new(tokens: Tokens, directory: Arc<Refresher>) -> Self {
        Self { tokens, directory }
    }

    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.tokens.tenant()
    }

    /// Lets a request in. `authorization` is the header's text. The caller is `None` only for public methods.
    pub async fn admit(&self, rule: &Rule, authorization: Option<&str>) -> Result<Option<Caller>, Fault> {
        let Access::AnyOf(permissions) = rule.access else {
            return Ok(None);
        };
        let caller = self.authenticate(rule, authorization).await?;
        if !permissions.iter().any(|permission| caller.agent.role.allows(*permission)) {
            return Err(lacks(&caller.agent, permissions));
        }
        Ok(Some(caller))
    }

    async fn authenticate(&self, rule: &Rule, authorization: Option<&str>) -> Result<Caller, Fault> {
        let Some(authorization) = authorization else {
            return Err(Fault::new(
                Code::Unauthenticated,
                "TOKEN_REQUIRED",
                "this method needs `authorization: Bearer <access token>`: get one from AuthService.ExchangeToken",
            ));
        };
        let (scheme, token) = authorization.split_once(' ').ok_or_else(invalid_token)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(invalid_token());
        }
        let claims = self.tokens.verify(token.trim())?;
        let snapshot = if rule.fresh { self.directory.current().await? } else { self.directory.at_least(claims.r#gen).await? };
        if snapshot.suspended {
            return Err(Fault::new(
                Code::PermissionDenied,
                "TENANT_SUSPENDED",
                format!("tenant {} is suspended: ask the platform team", self.tenant()),
            ));
        }
        let agent = snapshot.agent(claims.agent()).filter(|agent| !agent.suspended).ok_or_else(invalid_token)?;
        if claims.key.as_ref().is_some_and(|key| !snapshot.key_lives(agent.id, key, OffsetDateTime::now_utc())) {
            return Err(invalid_token());
        }
        let expires_at = OffsetDateTime::from_unix_timestamp(claims.exp).map_err(|_| invalid_token())?;
        Ok(Caller { agent: agent.clone(), expires_at, key: claims.key })
    }

    /// Counts a caller as connected while the guard lives: the directory is looked at more often then.
    #[must_use]
    pub fn connected(&self) -> Connected {
        self.directory.connect()
    }

    /// Whether a caller that was let in before still would be: for streams that outlive a change.
    #[must_use]
    pub fn still_admits(&self, rule: &Rule, caller: &Caller, now: OffsetDateTime) -> bool {
        let snapshot = self.directory.directory().snapshot();
        if rule.access == Access::Public {
            return true;
        }
        !snapshot.suspended
            && now < caller.expires_at
            && caller.key.as_ref().is_none_or(|key| snapshot.key_lives(caller.agent.id, key, now))
            && snapshot
                .agent(caller.agent.id)
                // A stream begun by one role goes on by no other: what it may do was looked at when it began.
                .is_some_and(|agent| !agent.suspended && agent.role == caller.agent.role)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{
        directory::{
            agent::{Agent, Role},
            snapshot::{Directory, DirectoryStore, KnownKey, Snapshot},
        },
        door::{
            access_token::tests::{agent, keyring},
            rules::{RULES, rule},
        },
    };

    struct Fixed(Snapshot);

    #[async_trait]
    impl DirectoryStore for Fixed {
        async fn generation(&self) -> Result<u64, Fault> {
            Ok(self.0.generation)
        }

        async fn load(&self) -> Result<Snapshot, Fault> {
            Ok(self.0.clone())
        }
    }

    /// A door before this agent, and a header with a token of it.
    fn door(agent: Agent, change: impl FnOnce(&mut Snapshot)) -> (Door, String) {
        let tokens = Tokens::new("acme", "00", keyring(1));
        let token = tokens.issue(&agent, Some("k1"), 1, OffsetDateTime::now_utc()).unwrap().0;
        let key = KnownKey { agent: agent.id, expires_at: None };
        let mut snapshot = Snapshot::new(1, vec![agent], Vec::new());
        snapshot.api_keys.insert("k1".to_owned(), key);
        change(&mut snapshot);
        let refresher = Refresher::new(Directory::default(), Arc::new(Fixed(snapshot)));
        (Door::new(tokens, Arc::new(refresher)), format!("Bearer {token}"))
    }

    #[tokio::test]
    async fn every_method_refuses_callers_without_a_token_and_roles_without_the_permission() {
        for rule in RULES {
            for role in [Role::Admin, Role::Producer, Role::Consumer, Role::Full, Role::Observer] {
                let (door, header) = door(agent(role), |_| {});
                let Access::AnyOf(permissions) = rule.access else {
                    assert!(door.admit(rule, None).await.unwrap().is_none());
                    continue;
                };
                assert_eq!(door.admit(rule, None).await.unwrap_err().code, Code::Unauthenticated, "{}", rule.path);
                let admitted = door.admit(rule, Some(&header)).await;
                if permissions.iter().any(|permission| role.allows(*permission)) {
                    assert_eq!(admitted.unwrap().unwrap().agent.name, "alice", "{}", rule.path);
                } else {
                    assert_eq!(admitted.unwrap_err().code, Code::PermissionDenied, "{} as {role:?}", rule.path);
                }
            }
        }
    }

    #[tokio::test]
    async fn suspended_and_removed_agents_stay_out() {
        let heartbeat = rule("/acb.v1.AgentRegistry/Heartbeat").unwrap();
        let (suspended, header) = door(Agent { suspended: true, ..agent(Role::Full) }, |_| {});
        assert_eq!(suspended.admit(heartbeat, Some(&header)).await.unwrap_err().code, Code::Unauthenticated);
        let (removed, header) = door(agent(Role::Full), |snapshot| *snapshot = Snapshot::new(1, Vec::new(), Vec::new()));
        assert_eq!(removed.admit(heartbeat, Some(&header)).await.unwrap_err().code, Code::Unauthenticated);
        let (tenant, header) = door(agent(Role::Full), |snapshot| snapshot.suspended = true);
        assert_eq!(tenant.admit(heartbeat, Some(&header)).await.unwrap_err().reason, "TENANT_SUSPENDED");
    }

    #[tokio::test]
    async fn a_token_ends_with_the_key_that_it_came_from() {
        let heartbeat = rule("/acb.v1.AgentRegistry/Heartbeat").unwrap();
        let now = OffsetDateTime::now_utc();
        let limited = |at| {
            door(agent(Role::Full), move |snapshot| {
                snapshot.api_keys.insert("k1".to_owned(), KnownKey { agent: agent(Role::Full).id, expires_at: Some(at) });
            })
        };
        let (overlap, header) = limited(now + time::Duration::minutes(5));
        let caller = overlap.admit(heartbeat, Some(&header)).await.unwrap().unwrap();
        assert!(overlap.still_admits(heartbeat, &caller, now));
        assert!(!overlap.still_admits(heartbeat, &caller, now + time::Duration::minutes(6)), "the overlap is over");
        let (past, header) = limited(now - time::Duration::seconds(1));
        assert_eq!(past.admit(heartbeat, Some(&header)).await.unwrap_err().reason, "TOKEN_INVALID");
        let (removed, header) = door(agent(Role::Full), |snapshot| snapshot.api_keys.clear());
        assert_eq!(removed.admit(heartbeat, Some(&header)).await.unwrap_err().reason, "TOKEN_INVALID");
        let (others, header) = door(agent(Role::Full), |snapshot| {
            let other = crate::directory::agent::AgentId(uuid::Uuid::from_u128(99));
            snapshot.api_keys.insert("k1".to_owned(), KnownKey { agent: other, expires_at: None });
        });
        assert_eq!(others.admit(heartbeat, Some(&header)).await.unwrap_err().reason, "TOKEN_INVALID");
    }

    #[tokio::test]
    async fn a_stream_ends_with_the_right_to_it() {
        let session = rule("/acb.v1.MessageService/Session").unwrap();
        let (door, header) = door(agent(Role::Full), |_| {});
        let caller = door.admit(session, Some(&header)).await.unwrap().unwrap();
        assert!(door.still_admits(session, &caller, OffsetDateTime::now_utc()));
        assert!(!door.still_admits(session, &caller, caller.expires_at));
        // It may still send, but no longer receive.
        let mut changed = Snapshot::new(2, vec![agent(Role::Producer)], Vec::new());
        changed.api_keys = door.directory.directory().snapshot().api_keys.clone();
        door.directory.directory().replace(changed);
        assert!(!door.still_admits(session, &caller, OffsetDateTime::now_utc()));
    }
}
