//! What is lost, and what the runbook brings back.

use serde_json::Value;

use super::{
    World, agent_pod,
    hand::{count, observe_kafka, tenant_id},
    runbook::Runbook,
    tenant,
};
use crate::{
    backends::{self, Order},
    error::{Error, Result, wrong},
    process::eventually,
};

const BACKUP: &str = "Back up";
const POSTGRES: &str = "PostgreSQL is lost";
const KAFKA: &str = "Kafka is lost";

/// `postgres-restored`: into version 17. After it nothing can be dumped: `pg_dump` is of the version that is installed.
pub(super) fn postgres(world: &mut World) -> Result<()> {
    let runbook = Runbook::open(world)?;
    let before = share(world, "before")?;
    runbook.follow(world, BACKUP, 0)?;
    let after = share(world, "after")?;
    agent_pod::run(world, "acme", "supervisor", "sends", &["send", "worker-b", "--topic", "kept", "kept in the log"])?;
    restore_postgres(world, &runbook, || backends::order(Order::LosePostgresTo17))?;
    works(world)?;
    is_readable(world, &before)?;
    // What the page says is lost, is lost; and what it says is kept, is kept.
    is_gone(world, &after)?;
    let taken = agent_pod::run(world, "acme", "worker-b", "takes", &["receive", "--topic", "kept", "--count", "1"])?;
    if taken.contains("kept in the log") { Ok(()) } else { wrong(format!("worker-b was given {taken:?}")) }
}

/// `kafka-lost`: an empty one at the same address.
pub(super) fn kafka(world: &mut World) -> Result<()> {
    let runbook = Runbook::open(world)?;
    let before = share(world, "before")?;
    let right = observe_kafka(world, "acme")?;
    backends::order(Order::LoseKafka)?;
    is_rebuilt(world, &right)?;
    runbook.follow(world, KAFKA, 0)?;
    works(world)?;
    is_readable(world, &before)
}

/// `both-lost`.
pub(super) fn both(world: &mut World) -> Result<()> {
    let runbook = Runbook::open(world)?;
    let before = share(world, "before")?;
    let right = observe_kafka(world, "acme")?;
    runbook.follow(world, BACKUP, 0)?;
    restore_postgres(world, &runbook, || {
        backends::order(Order::LoseKafka)?;
        backends::order(Order::LosePostgres)
    })?;
    is_rebuilt(world, &right)?;
    runbook.follow(world, KAFKA, 0)?;
    works(world)?;
    is_readable(world, &before)
}

fn restore_postgres(world: &World, runbook: &Runbook, lose: impl Fn() -> Result<()>) -> Result<()> {
    let rows = rows(world)?;
    if !runbook.file("acb.dump").exists() {
        return wrong("there is no dump");
    }
    runbook.follow(world, POSTGRES, 0)?;
    lose()?;
    runbook.follow(world, POSTGRES, 1)?;
    runbook.follow(world, POSTGRES, 2)?;
    eventually(60, "what the operator projects is there again", || {
        let now = self::rows(world).map_err(|error| error.to_string())?;
        if now == rows { Ok(()) } else { Err(format!("{now:?}, and it was {rows:?}")) }
    })
}

/// Of what the operator projects.
fn rows(world: &World) -> Result<Vec<u64>> {
    let mut rows = vec![count(world, "pg_roles WHERE rolname ~ '^acb_t_'")?];
    for table in ["tenant", "agent", "api_key"] {
        rows.push(count(world, &format!("acb.{table}"))?);
    }
    Ok(rows)
}

fn is_rebuilt(world: &World, right: &acb_operator::observed::ObservedKafka) -> Result<()> {
    tenant_id(world, "acme")?;
    eventually(120, "the operator has made topics, users, ACLs and quotas again", || {
        let now = observe_kafka(world, "acme").map_err(|error| error.to_string())?;
        if now == *right { Ok(()) } else { Err(format!("{now:?}")) }
    })
}

/// Shares a small context, and answers with its id.
fn share(world: &World, what: &str) -> Result<String> {
    let what = format!("what={what}");
    let shared = ["context", "share", "--output", "json", "--type", "documents", "--metadata", &what, "/ca/ca.crt"];
    let said = agent_pod::run(world, "acme", "supervisor", "shares", &shared)?;
    let context: Value = serde_json::from_str(&said)?;
    context["id"].as_str().map(str::to_owned).ok_or_else(|| Error::Wrong(format!("acb context share said {said}")))
}

fn is_readable(world: &World, context: &str) -> Result<()> {
    agent_pod::run(world, "acme", "worker-a", "pulls", &["context", "pull", context, "/state/pulled"]).map(drop)
}

fn is_gone(world: &World, context: &str) -> Result<()> {
    let pod = agent_pod::start(world, "acme", "worker-a", "pulls", &["context", "pull", context, "/state/pulled"])?;
    let said = agent_pod::wait_refused(world, &pod)?;
    agent_pod::remove(world, &pod)?;
    if said.contains("CONTEXT_NOT_FOUND") { Ok(()) } else { wrong(format!("the context was refused for another reason: {said}")) }
}

/// Agents of both tenants do their work.
fn works(world: &World) -> Result<()> {
    for (tenant, agent) in [("acme", "worker-b"), ("globex", "analyst")] {
        if world.kubectl.find(&["tenant", tenant])?.is_some() {
            agent_pod::is_let_in(world, tenant, agent)?;
        }
    }
    tenant::talk(world)
}
