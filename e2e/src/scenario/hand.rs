//! What somebody does by hand, past the operator: in PostgreSQL as its superuser, in Kafka as its own.

use std::process::Command;

use acb_operator::{
    effect::{EffectError, SecretData, SecretReader, kafka::KafkaEffect},
    observed::ObservedKafka,
    plan::{KafkaStep, SecretRef},
};

use super::World;
use crate::{
    backends::Backends,
    error::{Error, Result, wrong},
    place::write_private,
    process::run,
    runtime,
};

/// The tenant's id, from its status.
pub(super) fn tenant_id(world: &World, tenant: &str) -> Result<String> {
    let object = world.kubectl.get(&["tenant", tenant])?;
    let id = object["status"]["tenantId"].as_str().unwrap_or_default().to_owned();
    if id.len() == 20 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(id);
    }
    wrong(format!("{tenant} has no id in its status: {}", object["status"]))
}

/// A client program of PostgreSQL, as the superuser, who is not on the cluster. It gets no password that others could see.
pub(super) fn postgres(world: &World, program: &str, arguments: &[&str]) -> Result<String> {
    let backends = Backends::read(&world.place)?;
    let passwords = world.place.run().join("pgpass");
    write_private(&passwords, &format!("127.0.0.1:*:*:postgres:{}\n", backends.postgres_superuser_password))?;
    let port = backends.postgres_port.to_string();
    run(Command::new(program)
        .env("PGPASSFILE", &passwords)
        .args(["--host", "127.0.0.1", "--port", &port, "--username", "postgres"])
        .args(arguments))
}

/// A statement in ACB's database.
pub(super) fn sql(world: &World, statement: &str) -> Result<String> {
    let only = ["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--dbname", "acb", "--command", statement];
    Ok(postgres(world, "psql", &only)?.trim().to_owned())
}

/// How many rows a query finds.
pub(super) fn count(world: &World, from: &str) -> Result<u64> {
    let text = sql(world, &format!("SELECT count(*) FROM {from}"))?;
    text.parse().map_err(|_| Error::Wrong(format!("{from}: psql said {text:?}")))
}

/// What Kafka holds of a tenant.
pub(super) fn observe_kafka(world: &World, tenant: &str) -> Result<ObservedKafka> {
    observe_kafka_of(world, tenant, &tenant_id(world, tenant)?)
}

/// The same of a tenant that is gone, by the id that it had.
pub(super) fn observe_kafka_of(world: &World, tenant: &str, id: &str) -> Result<ObservedKafka> {
    let effect = effect(world)?;
    let observed = runtime()?.block_on(effect.observe(&format!("acb_t_{id}"), &format!("acb.{tenant}.")));
    observed.map_err(|error| Error::Wrong(error.to_string()))
}

/// The topics under a tenant's prefix, whoever's they are.
pub(super) fn observe_kafka_topics(world: &World, tenant: &str) -> Result<Vec<String>> {
    let effect = effect(world)?;
    let observed = runtime()?.block_on(effect.observe("nobody", &format!("acb.{tenant}.")));
    observed.map(|observed| observed.topics.into_keys().collect()).map_err(|error| Error::Wrong(error.to_string()))
}

/// Does this in Kafka, past the operator.
pub(super) fn change_kafka(world: &World, steps: &[KafkaStep]) -> Result<()> {
    let effect = effect(world)?;
    runtime()?.block_on(effect.apply(steps, &NoSecrets)).map_err(|error| Error::Wrong(error.to_string()))
}

fn effect(world: &World) -> Result<KafkaEffect> {
    let backends = Backends::read(&world.place)?;
    let settings = acb_kafka::Settings::new(&backends.kafka_bootstrap, &backends.kafka_user, &backends.kafka_password);
    let settings = settings.with_tls(backends.kafka_ca.as_bytes()).map_err(|error| Error::Wrong(error.to_string()))?;
    Ok(KafkaEffect::new(settings, 1))
}

/// Nothing that is done here needs one.
struct NoSecrets;

#[async_trait::async_trait]
impl SecretReader for NoSecrets {
    async fn read(&self, secret: &SecretRef) -> std::result::Result<SecretData, EffectError> {
        Err(EffectError::MissingSecret(secret.clone()))
    }
}
