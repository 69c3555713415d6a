//! Which credentials there are, and when each was used last, as those see it who may.

use std::time::Duration;

use acb_operator::plan::{AgentRow, ServiceAccountRow};
use acb_proto::v1::{Credential, ListCredentialsRequest, credential::Kind, credential_service_client::CredentialServiceClient};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    hub::{Hub, reason, with},
    trail::logged_so_many,
};

async fn list(hub: &Hub, token: &str, agent: &str, page_size: u32) -> Result<Vec<Credential>, Status> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListCredentialsRequest { agent: agent.to_owned(), page_size, page_token };
        let page = CredentialServiceClient::new(hub.channel()).list_credentials(with(token, request)).await?.into_inner();
        all.extend(page.credentials);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
}

fn prefix(api_key: &str) -> &str {
    api_key.split('_').nth(1).unwrap()
}

fn names(found: &[Credential]) -> Vec<(&str, &str)> {
    found.iter().map(|credential| (credential.agent.as_str(), credential.name.as_str())).collect()
}

#[tokio::test]
async fn an_agent_sees_its_own_credentials_and_an_admin_everybodys() {
    let hub = Hub::start().await;
    let row = hub.tenant.agent_row("alice");
    let old = hub.tenant.project_key(&row, 1, 0).await;
    let new = hub.tenant.project_key(&row, 2, 3600).await;
    let token = hub.exchange(&new.api_key).await.unwrap().access_token;
    let (admin, all) = hub.agent("adam", "admin").await;
    let account = ServiceAccountRow { namespace: "acb-acme".to_owned(), name: "worker".to_owned(), uid: "one".to_owned() };
    hub.tenant.project_without_key(&AgentRow { service_account: Some(account), ..hub.tenant.agent_row("worker") }).await;

    let mut keys = [prefix(&old.api_key), prefix(&new.api_key)];
    keys.sort_unstable();
    let own = list(&hub, &token, "", 0).await.unwrap();
    assert_eq!(names(&own), keys.map(|key| ("alice", key)));
    for credential in &own {
        assert_eq!((credential.kind(), credential.agent_id.as_str()), (Kind::ApiKey, row.id.as_str()));
        assert_eq!(credential.expires_at.is_some(), credential.name == prefix(&old.api_key), "it was replaced");
        assert!(credential.created_at.is_some());
    }
    assert_eq!(names(&list(&hub, &token, "alice", 0).await.unwrap()), names(&own));
    for other in ["adam", "nobody"] {
        let status = list(&hub, &token, other, 0).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "ROLE_LACKS_PERMISSION"), "{other}");
    }
    let everybodys = [("adam", prefix(&admin.api_key)), ("alice", keys[0]), ("alice", keys[1]), ("worker", "acb-acme/worker")];
    for page_size in [0, 1, 3] {
        assert_eq!(names(&list(&hub, &all, "", page_size).await.unwrap()), everybodys, "{page_size}");
    }
    assert_eq!(list(&hub, &all, "worker", 0).await.unwrap()[0].kind(), Kind::ServiceAccount);
    assert_eq!(list(&hub, &all, "nobody", 0).await.unwrap_err().code(), Code::NotFound);
    for bad in ["x", "a\0 b"] {
        let request = ListCredentialsRequest { page_token: bad.to_owned(), ..ListCredentialsRequest::default() };
        let status = CredentialServiceClient::new(hub.channel()).list_credentials(with(&all, request)).await.unwrap_err();
        assert_eq!(reason(&status), "PAGE_TOKEN_INVALID", "{bad:?}");
    }
    let records = logged_so_many(&hub, &["ListCredentials"], 1).await;
    assert_eq!((records[0].agent.as_str(), records[0].object.as_str()), ("alice", "credentials 2"));
}

#[tokio::test]
async fn when_a_key_was_used_last_is_known_soon_and_no_login_waits_for_it() {
    let hub = Hub::start().await;
    let row = hub.tenant.agent_row("alice");
    let unused = hub.tenant.project_key(&row, 1, 0).await;
    let used = hub.tenant.project_key(&row, 2, 3600).await;
    // Where it can't be written nobody is kept from logging in.
    let mut connection = hub.tenant.connect().await;
    let held = sqlx::query("BEGIN").execute(&mut connection).await;
    held.unwrap();
    sqlx::query(
        "INSERT INTO acb.credential_use (tenant_id, credential, used_at) VALUES (acb.current_tenant(), $1, '2020-01-01')",
    )
    .bind(prefix(&used.api_key))
    .execute(&mut connection)
    .await
    .unwrap();
    let token = hub.exchange(&used.api_key).await.unwrap().access_token;
    hub.exchange(&used.api_key).await.unwrap();
    sqlx::query("ROLLBACK").execute(&mut connection).await.unwrap();
    let began = Instant::now();
    let last = loop {
        let found = list(&hub, &token, "", 0).await.unwrap();
        let of = |key: &str| found.iter().find(|credential| credential.name == prefix(key)).unwrap().last_used_at;
        assert_eq!(of(&unused.api_key), None);
        if let Some(at) = of(&used.api_key) {
            break at;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "never written");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(last.seconds.unsigned_abs()) < 60, "{last:?}");
    // What is there no more is forgotten with the next use.
    sqlx::query("INSERT INTO acb.credential_use (tenant_id, credential, used_at) VALUES (acb.current_tenant(), 'gone', now())")
        .execute(&mut connection)
        .await
        .unwrap();
    hub.agent("bob", "agent-full").await;
    loop {
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM acb.credential_use WHERE credential = 'gone')")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        if !there {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "never forgotten");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
