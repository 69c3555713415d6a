//! Resources and worlds to decide about.

use std::{fs, path::PathBuf, sync::Arc};

use acb_crds::{Agent, Quota, Tenant, document::load, schema::Resource};
use acb_operator::{
    agent,
    effect::{
        kubernetes::{AUTHORITY, ObjectKey, SecretDetails},
        postgres_observe::{ObservedLogin, RetiredTopic},
    },
    observed::{LoginState, ObservedKafka},
    plan::{KafkaQuota, KafkaStep, KubernetesStep, Plan, PostgresStep, Step},
    platform::{Platform, PlatformBus, PlatformPostgres},
    tenancy::{Census, Tenancy},
    tenant,
};
use serde_json::{Value, json};

pub(crate) fn platform() -> Platform {
    Platform::new(PlatformPostgres { host: "127.0.0.1".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() })
}

pub(crate) fn kafka_platform() -> Platform {
    Platform { bus: PlatformBus::Kafka { bootstrap_servers: "127.0.0.1:9092".into(), tls: false }, ..platform() }
}

/// The resources of a text, with UIDs and ages by their order.
pub(crate) fn tenancy(text: &str) -> Tenancy {
    let mut tenancy = Tenancy::default();
    for (index, resource) in load(text, "given").ours.into_iter().enumerate() {
        let mut value = resource.unwrap().to_value().unwrap();
        value["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{index:012}"));
        value["metadata"]["generation"] = json!(1);
        value["metadata"]["creationTimestamp"] = json!(format!("2025-01-01T00:00:{index:02}Z"));
        match acb_crds::schema::check(&value, None).unwrap() {
            Resource::Tenant(tenant) => tenancy.tenants.push(*tenant),
            Resource::Agent(agent) => tenancy.agents.push(*agent),
            Resource::Quota(quota) => tenancy.quotas.push(*quota),
        }
    }
    tenancy
}

pub(crate) fn sample(name: &str) -> Tenancy {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/samples").join(name);
    tenancy(&fs::read_to_string(path).unwrap())
}

pub(crate) fn tenant_text(name: &str, spec: &str) -> String {
    format!("apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

pub(crate) fn agent_text(namespace: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n")
}

pub(crate) fn quota_text(namespace: &str, name: &str, spec: &str) -> String {
    agent_text(namespace, name, spec).replace("kind: Agent", "kind: Quota")
}

pub(crate) fn world(tenancy: &Tenancy) -> tenant::World {
    tenant::World { tenancy: tenancy.clone(), ..tenant::World::default() }
}

pub(crate) fn first(tenancy: &Tenancy) -> Tenant {
    tenancy.tenants[0].clone()
}

pub(crate) fn agent_named(tenancy: &Tenancy, name: &str) -> Agent {
    tenancy.agents.iter().find(|agent| agent.metadata.name.as_deref() == Some(name)).unwrap().clone()
}

pub(crate) fn quota_named(tenancy: &Tenancy, name: &str) -> Quota {
    tenancy.quotas.iter().find(|quota| quota.metadata.name.as_deref() == Some(name)).unwrap().clone()
}

pub(crate) fn plan(tenant: &Tenant, world: &tenant::World, platform: &Platform) -> Plan {
    let decision = tenant::decide(tenant, world, platform);
    assert!(!matches!(decision, tenant::Decision::Refused { .. }), "{decision:?}");
    decision.plan()
}

/// What there is after a plan was applied. An API server fills in fields of its own.
pub(crate) fn apply(world: &mut tenant::World, plan: &Plan) {
    for step in &plan.steps {
        match step.clone() {
            Step::Kubernetes(KubernetesStep::Apply { mut object }) => {
                object["metadata"]["resourceVersion"] = json!("7");
                object["status"] = json!({"phase": "Active"});
                world.objects.insert(ObjectKey::of(&object).unwrap(), object);
            }
            Step::Kubernetes(KubernetesStep::EnsureSecret { secret, asked, .. }) => {
                // Nobody has told a store of it yet.
                match (secret.name.as_str(), world.kafka.known_mut()) {
                    ("hub-postgres", _) => {
                        world.previous_login = std::mem::replace(&mut world.login, LoginState::Refused);
                    }
                    ("hub-kafka", Some(kafka)) => kafka.previous = std::mem::replace(&mut kafka.user, LoginState::Refused),
                    _ => {}
                }
                world.rolled_out = false;
                world.details.insert(secret.clone(), SecretDetails { made: String::new(), asked });
                world.secrets.insert(secret);
            }
            Step::Kubernetes(KubernetesStep::PublishCertificate { namespace, name, authority }) => {
                let metadata = json!({"annotations": {AUTHORITY: authority.object_name()}});
                let object: Value = json!({"metadata": metadata, "data": {"ca.crt": "PEM"}});
                world.objects.insert(ObjectKey::new("v1", "ConfigMap", &namespace, &name), object);
            }
            Step::Kubernetes(KubernetesStep::Delete { api_version, kind, namespace, name }) => {
                world.secrets.retain(|secret| kind != "Secret" || secret.namespace != namespace || secret.object_name() != name);
                world.objects.remove(&ObjectKey::new(&api_version, &kind, &namespace, &name));
            }
            Step::Postgres(PostgresStep::ProjectTenant { tenant, .. }) => {
                world.postgres.known_mut().unwrap().tenant = Some(tenant);
            }
            Step::Postgres(PostgresStep::ProjectAgent { agent, api_key, .. }) => {
                let known = world.postgres.known_mut().unwrap();
                if api_key.is_none() {
                    known.api_keys.remove(&agent.id);
                }
                known.agents.insert(agent.id.clone(), agent);
            }
            Step::Postgres(PostgresStep::EnsureTopic { topic, .. }) => {
                world.postgres.known_mut().unwrap().topics.insert(topic.name.clone(), topic);
            }
            Step::Postgres(PostgresStep::RetireTopic { topic, retention_seconds, .. }) => {
                let retired = RetiredTopic { retention_seconds, ..RetiredTopic::default() };
                world.postgres.known_mut().unwrap().retired.insert(topic, retired);
            }
            Step::Postgres(PostgresStep::ReviveTopic { topic, .. }) => {
                world.postgres.known_mut().unwrap().retired.remove(&topic);
            }
            Step::Postgres(PostgresStep::RemoveTopic { topic, .. }) => {
                let known = world.postgres.known_mut().unwrap();
                known.topics.remove(&topic);
                known.retired.remove(&topic);
            }
            Step::Postgres(PostgresStep::EnsureLogin { connection_limit, .. }) => {
                let connection_limit = i32::try_from(connection_limit).unwrap();
                world.postgres.known_mut().unwrap().login =
                    Some(ObservedLogin { enabled: true, connection_limit, excess: false });
                (world.login, world.previous_login) = (LoginState::Works, LoginState::Refused);
            }
            Step::Postgres(PostgresStep::DisableLogin { .. }) => {
                world.postgres.known_mut().unwrap().login.as_mut().unwrap().enabled = false;
                world.login = LoginState::Refused;
            }
            Step::Postgres(PostgresStep::RemoveTenant { .. }) => world.postgres = Default::default(),
            Step::Postgres(step) => panic!("not a step of a Tenant: {step:?}"),
            Step::Kafka(step) => apply_kafka(world.kafka.known_mut().unwrap(), step),
        }
    }
}

fn apply_kafka(kafka: &mut ObservedKafka, step: KafkaStep) {
    match step {
        KafkaStep::EnsureTopic { topic } => {
            kafka.topics.insert(topic.name.clone(), topic);
        }
        KafkaStep::EnsureUser { .. } => {
            (kafka.user, kafka.previous, kafka.has_user) = (LoginState::Works, LoginState::Refused, true);
        }
        KafkaStep::EnsureAcls { .. } => kafka.acls = true,
        KafkaStep::EnsureQuota { quota, .. } => kafka.quota = quota,
        KafkaStep::RemoveUser { .. } => {
            (kafka.user, kafka.has_user, kafka.acls) = (LoginState::Refused, false, false);
            kafka.quota = KafkaQuota::default();
        }
        KafkaStep::RemoveTopic { name } => {
            kafka.topics.remove(&name);
        }
    }
}

/// A tenant that was provisioned.
pub(crate) fn converged(tenancy: &Tenancy, platform: &Platform) -> tenant::World {
    let mut world = world(tenancy);
    let steps = plan(&first(tenancy), &world, platform);
    apply(&mut world, &steps);
    world
}

/// What an agent's decisions see of a tenant that was provisioned.
pub(crate) fn census(namespace: &str, tenancy: &Tenancy, platform: &Platform) -> Arc<Census> {
    Arc::new(Census::of(namespace, tenancy.clone(), platform))
}

pub(crate) fn agent_world(tenancy: &Tenancy, platform: &Platform) -> agent::World {
    let world = converged(tenancy, platform);
    let census = census("acb-acme", tenancy, platform);
    agent::World { census, secrets: world.secrets, tenant_projected: true, ..agent::World::default() }
}

/// Compares with a file; with `UPDATE_GOLDEN` writes it.
pub(crate) fn holds(name: &str, plan: &Plan) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans");
    let (text, json) = (plan.to_string(), serde_json::to_value(plan).unwrap());
    let (text_file, json_file) = (folder.join(format!("{name}.txt")), folder.join(format!("{name}.json")));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&text_file, &text).unwrap();
        fs::write(&json_file, serde_json::to_string_pretty(&json).unwrap() + "\n").unwrap();
    }
    let again = "run UPDATE_GOLDEN=1 cargo test -p acb-operator --test golden, and read the difference";
    assert_eq!(fs::read_to_string(&text_file).unwrap_or_default(), text, "{name}: {again}");
    let held: Value = serde_json::from_str(&fs::read_to_string(&json_file).unwrap_or_default()).unwrap_or_default();
    assert_eq!(held, json, "{name}: {again}");
}
