//! Credentials in, tokens out, and what is refused.

use std::time::Duration;

use acb_hub_core::{
    audit::record::{AuditRecord, Phase},
    directory::agent::AgentId,
};
use acb_operator::plan::PostgresStep;
use acb_proto::v1::{GetJwksRequest, HeartbeatRequest, RefreshTokenRequest, RevokeTokenRequest};
use tonic::Code;

use crate::{
    hub::{Hub, reason, with},
    trail::logged_so_many,
};

async fn refresh(hub: &Hub, token: &str) -> Result<acb_proto::v1::TokenResponse, tonic::Status> {
    let request = RefreshTokenRequest { refresh_token: token.to_owned() };
    hub.auth().refresh_token(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn an_api_key_gets_tokens_that_speak_for_its_agent() {
    let hub = Hub::start().await;
    let alice = hub.tenant.agent("alice").await;
    let tokens = hub.exchange(&alice.api_key).await.unwrap();
    assert_eq!((tokens.agent.as_str(), tokens.tenant.as_str()), ("alice", hub.tenant.name()));
    assert_eq!(tokens.agent_id, alice.id.to_string());
    hub.agents().heartbeat(with(&tokens.access_token, HeartbeatRequest {})).await.unwrap();
    let jwks = hub.auth().get_jwks(GetJwksRequest {}).await.unwrap().into_inner().jwks_json;
    assert!(jwks.contains("Ed25519"), "{jwks}");
    for bad in ["", "garbage", "acb_none_none", &format!("{}x", alice.api_key)] {
        let status = hub.exchange(bad).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "CREDENTIAL_REFUSED"), "{bad}");
    }
    let log = hub.log();
    assert!(!log.contains(&alice.api_key) && !log.contains(&tokens.access_token), "a secret is in the log");
}

#[tokio::test]
async fn foreign_garbage_and_missing_tokens_are_refused() {
    let (hub, other) = (Hub::start().await, Hub::start().await);
    let (_, foreign) = other.agent("alice", "admin").await;
    let (_, own) = hub.agent("alice", "agent-full").await;
    // The last character of a signature stands for two bits only, and may be this one already: another token gives a signature to swap in.
    let (_, another) = hub.agent("bob", "agent-full").await;
    let changed = format!("{}.{}", own.rsplit_once('.').unwrap().0, another.rsplit_once('.').unwrap().1);
    for token in [foreign.as_str(), "garbage", "a.b.c", "", &changed, &"x".repeat(5000)] {
        let status = hub.agents().heartbeat(with(token, HeartbeatRequest {})).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "TOKEN_INVALID"), "{token}");
    }
    let status = hub.agents().heartbeat(HeartbeatRequest {}).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "TOKEN_REQUIRED"));
    hub.agents().heartbeat(with(&own, HeartbeatRequest {})).await.unwrap();
}

#[tokio::test]
async fn a_reused_refresh_token_repeats_its_successor_and_later_revokes_the_family() {
    let hub = Hub::start().await;
    let alice = hub.tenant.agent("alice").await;
    let first = hub.exchange(&alice.api_key).await.unwrap().refresh_token;
    let second = refresh(&hub, &first).await.unwrap().refresh_token;
    assert_eq!(refresh(&hub, &first).await.unwrap().refresh_token, second, "within 30 s the same successor");
    let third = refresh(&hub, &second).await.unwrap().refresh_token;
    // Time passes.
    let mut connection = hub.tenant.connect().await;
    sqlx::query("UPDATE acb.refresh_token SET used_at = used_at - interval '31 seconds' WHERE used_at IS NOT NULL")
        .execute(&mut connection)
        .await
        .unwrap();
    for token in [&first, &third, &second] {
        assert_eq!(refresh(&hub, token).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let other = hub.exchange(&alice.api_key).await.unwrap().refresh_token;
    hub.auth().revoke_token(RevokeTokenRequest { refresh_token: other.clone() }).await.unwrap();
    assert_eq!(refresh(&hub, &other).await.unwrap_err().code(), Code::Unauthenticated);
    hub.auth().revoke_token(RevokeTokenRequest { refresh_token: "unknown".to_owned() }).await.unwrap();
    hub.auth().revoke_token(RevokeTokenRequest { refresh_token: other.clone() }).await.unwrap();

    // The trail names whose tokens were taken away, and why, once each.
    let named = |record: &AuditRecord| {
        let AuditRecord { phase, operation, agent, object, outcome, .. } = record.clone();
        (record.agent_id == Some(AgentId(alice.id)) && phase == Phase::Outcome && agent == "alice")
            .then_some((operation, object, outcome))
    };
    let records = logged_so_many(&hub, &["RefreshToken", "RevokeToken"], 5).await;
    let records: Vec<_> = records.iter().filter_map(named).filter(|(_, object, _)| !object.is_empty()).collect();
    let told = |operation: &str, object: &str, outcome: &str| (operation.to_owned(), object.to_owned(), outcome.to_owned());
    let reused = told("RefreshToken", "tokens revoked: one was used again", "unauthenticated");
    assert_eq!(records, [reused, told("RevokeToken", "tokens revoked: as was asked for", "done")]);
}

#[tokio::test]
async fn what_was_issued_before_a_restore_ends_and_keys_log_in_as_before() {
    let hub = Hub::start().await;
    let (alice, token) = hub.agent("alice", "agent-full").await;
    let first = hub.exchange(&alice.api_key).await.unwrap().refresh_token;
    let second = refresh(&hub, &first).await.unwrap().refresh_token;
    // As `acb bootstrap --restored` does, for one tenant: other tests go on.
    let mut superuser = acb_testbed::Postgres::shared().await.superuser().await;
    sqlx::query("UPDATE acb.tenant SET credential_epoch = 1800000000, generation = 1800000000 WHERE tenant_id = $1")
        .bind(hub.tenant.id_bytes())
        .execute(&mut superuser)
        .await
        .unwrap();
    for old in [&first, &second] {
        let status = refresh(&hub, old).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "CREDENTIAL_REFUSED"));
    }
    // Nobody has told the hub: it reads what is newer with the next login.
    let anew = hub.exchange(&alice.api_key).await.unwrap();
    let status = hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.unwrap_err();
    assert_eq!(reason(&status), "TOKEN_INVALID");
    hub.agents().heartbeat(with(&anew.access_token, HeartbeatRequest {})).await.unwrap();
    let renewed = refresh(&hub, &anew.refresh_token).await.unwrap();
    hub.agents().heartbeat(with(&renewed.access_token, HeartbeatRequest {})).await.unwrap();
}

#[tokio::test]
async fn a_suspended_agent_is_refused_within_seconds() {
    let hub = Hub::start().await;
    let (alice, token) = hub.agent("alice", "agent-full").await;
    let mut row = hub.tenant.agent_row("alice");
    row.id = alice.id.to_string();
    row.suspended = true;
    hub.tenant.apply(&PostgresStep::ProjectAgent { tenant_id: hub.tenant.id_hex().to_owned(), agent: row, api_key: None }).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "still admitted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
