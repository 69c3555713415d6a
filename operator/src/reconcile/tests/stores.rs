//! The driver with a real PostgreSQL, and a Kafka that takes connections and never answers.

use acb_testbed::{Postgres, Version};
use tokio::{net::TcpListener, sync::oneshot};

use super::*;
use crate::{
    bootstrap::claim_leadership,
    effect::postgres_observe::observe_tenant,
    plan::{AgentRow, PostgresStep, ServiceAccountRow, TenantRow},
    tenant::adoption,
};

const AGENT: &str = "00000000-0000-4000-8000-000000000001";

/// As a leader has it.
async fn database(postgres: &Postgres) -> Database {
    let reader = PostgresReader::lazy(postgres.operator_options(), postgres.operator_options());
    let epoch = claim_leadership(&reader.pool, "test").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secrets = ObjectStore::open(&StateDir::open(folder.path()).unwrap()).unwrap();
    let effect = PostgresEffect::new(reader.pool.clone(), epoch, Arc::new(secrets));
    Database { reader, effect }
}

/// Says when somebody first connects, and leaves everybody waiting.
async fn silent_kafka() -> (KafkaEffect, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, first) = oneshot::channel();
    tokio::spawn(async move {
        let mut open = vec![listener.accept().await.unwrap().0];
        asked.send(()).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    (KafkaEffect::new(acb_kafka::Settings::new(&address, "acb", "secret"), -1), first)
}

#[tokio::test]
async fn what_is_taken_away_from_an_agent_waits_for_no_kafka() {
    let postgres = Postgres::start(Version::Installed).await;
    let database = database(&postgres).await;
    let mut tenancy = acme(None, None);
    let agent = &mut tenancy.agents[0];
    agent.metadata.uid = Some(AGENT.to_owned());
    agent.spec.credentials = Some(serde_json::from_value(json!({"apiKey": {}, "serviceAccount": {"name": "worker"}})).unwrap());
    let tenant_id = adoption::own(&tenancy.tenants[0]).hex();
    let tenant = TenantRow {
        name: "acme".to_owned(),
        tier: "Free".to_owned(),
        registration: "Declared".to_owned(),
        suspended: false,
        limits: json!({}),
        operation_limits: std::collections::BTreeMap::new(),
        audit_days: 90,
        context_types: Vec::new(),
        issuer: None,
        oidc_issuers: Vec::new(),
    };
    // Its account was there until a moment ago.
    let account = ServiceAccountRow { namespace: "acb-acme".into(), name: "worker".into(), uid: "uid-worker".into() };
    let agent = AgentRow {
        id: AGENT.to_owned(),
        name: "a".to_owned(),
        r#type: String::new(),
        capabilities: Vec::new(),
        groups: Vec::new(),
        location: String::new(),
        metadata: json!({}),
        role: "agent-full".to_owned(),
        publishes: Vec::new(),
        subscribes: Vec::new(),
        limits: json!({}),
        suspended: false,
        service_account: Some(account),
    };
    for step in [
        PostgresStep::ProjectTenant { tenant_id: tenant_id.clone(), tenant },
        PostgresStep::ProjectAgent { tenant_id: tenant_id.clone(), agent, api_key: None },
    ] {
        database.effect.apply(&step).await.unwrap();
    }
    let row = async || observe_tenant(&database.reader.pool, &tenant_id).await.unwrap().agents[AGENT].clone();
    assert!(row().await.service_account.is_some());
    let (kafka, asked) = silent_kafka().await;
    let mut wood = Wood { database: Some(database.clone()), kafka: Some(kafka), ..Wood::new(tenancy) };
    wood.platform.has_service_accounts = true;
    let tenancies = Arc::new(Tenancies::new(Arc::new(wood)));
    let look = tokio::spawn(async move { tenancies.reconcile("acb-acme").await });
    asked.await.unwrap();
    let row = row().await;
    assert!(row.service_account.is_none() && !row.suspended, "Kafka is asked, and it is let in: {row:?}");
    assert!(!look.is_finished());
    look.abort();
}
