//! Steps of PostgreSQL on the model and on the server.

use std::sync::Arc;

use acb_crds::names::TenantId;
use acb_hub_pool::{Limits, Pool};
use acb_operator::{
    effect::{
        postgres::{PostgresEffect, StoredKey, stored_key},
        postgres_observe::{ObservedTenant, login_state, observe_tenant},
    },
    plan::{
        AgentRow, ApiKeyRef, ContextTypeRow, IssuerRow, OidcIssuerRow, PostgresStep, ReplacedKey, SecretRef, ServiceAccountRow,
        TenantRow, TopicSpec,
    },
};
use acb_testbed::Postgres;
use serde_json::json;

use crate::{
    outcome,
    postgres::Postgres as Model,
    random::Random,
    secrets::{Secrets, api_key, authority, password, pepper, secret},
};

const SEQUENCES: u64 = 12;
const STEPS: usize = 40;
const GENERATIONS: [u64; 3] = [1, 2, 3];

/// Two tenants, of which one may ask for the name of the other.
struct Draw {
    random: Random,
    seed: u64,
    ids: Vec<String>,
}

impl Draw {
    fn new(seed: u64) -> Self {
        let ids = (0..2).map(|index| TenantId::from_uid(&format!("{seed} {index}")).hex()).collect();
        Self { random: Random::new(seed), seed, ids }
    }

    fn id(&mut self) -> String {
        self.random.pick(&self.ids).clone()
    }

    fn of(&mut self, id: &str, name: &str) -> SecretRef {
        secret(id, name, *self.random.pick(&GENERATIONS))
    }

    fn topic(&mut self) -> TopicSpec {
        TopicSpec {
            name: (*self.random.pick(&["acb.a.documents", "acb.a.reports"])).to_owned(),
            partitions: *self.random.pick(&[1, 2, 4]),
            retention_seconds: *self.random.pick(&[3600, 7200]),
            cleanup: (*self.random.pick(&["delete", "compact"])).to_owned(),
            max_message_bytes: *self.random.pick(&[1000, 2000]),
        }
    }

    fn tenant(&mut self) -> TenantRow {
        let mut context_types: Vec<ContextTypeRow> = Vec::new();
        for name in ["documents", "reports"] {
            if self.random.one_in(2) {
                let topic = self.topic();
                context_types.push(ContextTypeRow {
                    name: name.to_owned(),
                    partitions: topic.partitions,
                    retention_seconds: topic.retention_seconds,
                    cleanup: topic.cleanup,
                    max_message_bytes: topic.max_message_bytes,
                    schema: self.random.one_in(3).then(|| json!({"id": "s", "version": 1, "schema": {}})),
                });
            }
        }
        TenantRow {
            name: format!("{}-{}", self.random.pick(&["acme", "globex"]), self.seed),
            tier: "Starter".to_owned(),
            registration: (*self.random.pick(&["Declared", "Open"])).to_owned(),
            suspended: self.random.one_in(3),
            limits: self.random.pick(&[json!({}), json!({"maxAgents": 3})]).clone(),
            operation_limits: self.random.pick(&[Vec::new(), vec![("GetContext".to_owned(), 5)]]).iter().cloned().collect(),
            audit_days: *self.random.pick(&[90, 365]),
            context_types,
            issuer: self.random.pick(&[None, Some("https://one"), Some("https://two")]).map(|issuer| IssuerRow {
                previous: self.random.one_in(2).then(|| "https://before".to_owned()),
                ..IssuerRow::new(issuer, json!({"keys": [{"kid": issuer, "kty": "RSA"}]}))
            }),
            oidc_issuers: self
                .random
                .pick(&[&[][..], &["https://a"], &["https://a", "https://b"]])
                .iter()
                .map(|url| OidcIssuerRow {
                    issuer: (*url).to_owned(),
                    audiences: vec!["acb".to_owned()],
                    agent: (*self.random.pick(&["claims.sub", "claims.email"])).to_owned(),
                    role: self.random.pick(&[None, Some("'Observer'")]).map(str::to_owned),
                    authorities: None,
                    networks: self.random.pick(&[vec![], vec!["10.0.0.0/8".to_owned()]]).clone(),
                })
                .collect(),
        }
    }

    fn agent(&mut self) -> AgentRow {
        let of = self.random.below(4);
        AgentRow {
            id: format!("00000000-0000-4000-8000-{of:012}"),
            // Two have one name: the second was made when the first had gone.
            name: format!("agent-{}", of / 2),
            r#type: (*self.random.pick(&["", "worker"])).to_owned(),
            capabilities: self.random.pick(&[vec![], vec!["read".to_owned()]]).clone(),
            groups: self.random.pick(&[vec![], vec!["g".to_owned()], vec!["g".to_owned(), "h".to_owned()]]).clone(),
            location: String::new(),
            metadata: self.random.pick(&[json!({}), json!({"k": "v"})]).clone(),
            role: (*self.random.pick(&["admin", "agent-full", "observer"])).to_owned(),
            publishes: self.random.pick(&[vec![], vec!["documents".to_owned()]]).clone(),
            subscribes: Vec::new(),
            limits: self.random.pick(&[json!({}), json!({"messagesPerMinute": 3})]).clone(),
            suspended: self.random.one_in(3),
            service_account: self.random.pick(&[None, Some("a"), Some("b")]).map(|name| ServiceAccountRow {
                namespace: "acb-acme".to_owned(),
                name: name.to_owned(),
                uid: (*self.random.pick(&["one", "two"])).to_owned(),
            }),
        }
    }

    fn key(&mut self, id: &str, agent: &AgentRow) -> ApiKeyRef {
        let of = self.of(id, &format!("key-{}", agent.id));
        let before = of.before().filter(|_| self.random.one_in(2));
        let overlap_seconds = *self.random.pick(&[0, 3600]);
        let keys = secret(id, "hub-keys", 1 + self.random.below(2) as u64);
        ApiKeyRef {
            secret: of,
            keys,
            authority: authority(id),
            before: before.map(|secret| ReplacedKey { secret, overlap_seconds }),
        }
    }

    fn step(&mut self) -> PostgresStep {
        let tenant_id = self.id();
        match self.random.below(20) {
            0..2 => {
                let (secret, connection_limit) = (self.of(&tenant_id, "hub-postgres"), 7 * (1 + self.random.below(2) as u32));
                PostgresStep::EnsureLogin { tenant_id, secret, connection_limit }
            }
            2..5 => PostgresStep::ProjectTenant { tenant: self.tenant(), tenant_id },
            5..11 => {
                let agent = self.agent();
                let api_key = (!self.random.one_in(4)).then(|| self.key(&tenant_id, &agent));
                PostgresStep::ProjectAgent { tenant_id, agent, api_key }
            }
            11 => PostgresStep::RestrainAgent { tenant_id, agent: self.agent() },
            12 => PostgresStep::RemoveAgent { tenant_id, agent_id: self.agent().id },
            13..15 => PostgresStep::EnsureTopic { tenant_id, topic: self.topic() },
            15 => {
                let topic = self.topic();
                PostgresStep::RetireTopic { tenant_id, topic: topic.name, retention_seconds: topic.retention_seconds }
            }
            16 => PostgresStep::ReviveTopic { tenant_id, topic: self.topic().name },
            17 => PostgresStep::RemoveTopic { tenant_id, topic: self.topic().name },
            18 => PostgresStep::DisableLogin { tenant_id },
            _ => PostgresStep::RemoveTenant { tenant_id },
        }
    }

    /// Every Secret that some step may name.
    fn secrets(&self) -> Vec<SecretRef> {
        let mut all = Vec::new();
        for id in &self.ids {
            all.push(authority(id));
            let agents = (0..4).map(|of| format!("key-00000000-0000-4000-8000-{of:012}"));
            for name in agents.chain(["hub-postgres".to_owned(), "hub-keys".to_owned()]) {
                all.extend(GENERATIONS.iter().map(|generation| secret(id, &name, *generation)));
            }
        }
        all
    }
}

/// As the model has it: a key by the Secrets that it is of, and nothing of when and how often something was done.
fn as_model(mut seen: ObservedTenant, peppers: &[u64]) -> ObservedTenant {
    seen.generation = 0;
    // Which login it is; the model has no versions of rows.
    seen.login_version = None;
    seen.retired.values_mut().for_each(|retired| retired.since.clear());
    for key in seen.api_keys.values_mut().flatten() {
        let serial: u64 = key.prefix.parse().unwrap();
        let of = peppers.iter().find(|of| stored_key(&pepper(**of), &api_key(serial)).as_ref() == Some(&*key));
        let of = of.unwrap_or_else(|| panic!("the key of {serial} is under no pepper"));
        *key = StoredKey { prefix: serial.to_string(), hmac: of.to_be_bytes().to_vec() };
    }
    seen
}

#[tokio::test]
async fn the_model_of_postgres_does_as_postgres_does() {
    let postgres = Postgres::shared().await;
    let pool = Pool::new(postgres.operator_options(), Limits::default());
    for seed in 1..=SEQUENCES {
        let (mut draw, secrets, mut model) = (Draw::new(seed), Arc::new(Secrets::default()), Model::default());
        let reader: Arc<Secrets> = Arc::clone(&secrets);
        let effect = PostgresEffect::new(pool.clone(), postgres.epoch(), reader);
        let every = draw.secrets();
        every.iter().for_each(|secret| secrets.toggle(secret));
        let mut done: Vec<String> = Vec::new();
        for _ in 0..STEPS {
            // Some are gone, and some are others by now.
            if draw.random.one_in(4) {
                secrets.toggle(draw.random.pick(&every));
            }
            let step = draw.step();
            let modelled = model.apply(&step, &secrets.kubernetes());
            let real = effect.apply(&step).await;
            done.push(format!("{step:?}"));
            let after = || format!("seed {seed}, after\n  {}", done.join("\n  "));
            assert_eq!(outcome(&modelled), outcome(&real), "{modelled:?}, {real:?}, {}", after());
            let peppers: Vec<u64> = (1..=secrets.made()).collect();
            for id in &draw.ids {
                let seen = as_model(observe_tenant(&pool, id).await.unwrap(), &peppers);
                assert_eq!(model.observe(id), seen, "{}", after());
            }
            if matches!(
                step,
                PostgresStep::EnsureLogin { .. } | PostgresStep::DisableLogin { .. } | PostgresStep::RemoveTenant { .. }
            ) {
                for (id, secret) in draw.ids.iter().flat_map(|id| GENERATIONS.map(|of| (id, secret(id, "hub-postgres", of)))) {
                    let Some(found) = secrets.kubernetes().secrets.get(&secret).cloned() else { continue };
                    let options = postgres.operator_options().username(&format!("acb_t_{id}")).password(&password(&found));
                    let modelled = model.login(id, &secret, &secrets.kubernetes());
                    assert_eq!(modelled, login_state(&options).await, "{secret:?}, {}", after());
                }
            }
        }
        for id in &draw.ids {
            effect.apply(&PostgresStep::RemoveTenant { tenant_id: id.clone() }).await.unwrap();
            assert_eq!(as_model(observe_tenant(&pool, id).await.unwrap(), &[]), ObservedTenant::default());
        }
    }
}
