//! The operator with many tenants: its memory, what a resync asks for, what a change of leaders takes. On a real API server, PostgreSQL
//! and Kafka; of the hubs it is only said that they run.

mod cluster;
mod fairness;
mod model;
mod nowhere;
mod process;
mod ready;
mod scale;
mod scene;
mod topics;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use acb_testbed::{
    Kafka, KafkaListener, OperatorFiles, Postgres, Relay,
    operator::{NAMESPACE, Told},
    postgres::Version,
    relay::Protocol,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use self::{cluster::Cluster, nowhere::Nowhere, process::Operator};
use crate::{Effort, Failure, report::Report, samples::median, tell};

pub(crate) use self::{fairness::run as fairness, ready::run as ready, scale::run as scale};

/// Of each tenant.
const AGENTS: usize = 10;
/// The shortest that the operator takes.
const RESYNC_SECONDS: u64 = 10;
/// An hour has six resyncs of ten minutes.
const RESYNCS: usize = 6;
const WIDE_TENANTS: usize = 10;
/// With the four that every tenant has: a hundred.
const WIDE_TYPES: usize = 96;
const CONVERGED_SECONDS: u64 = 600;
/// What Kafka is asked for that changes something.
const KAFKA_WRITES: [&str; 8] = [
    "CreateTopics",
    "DeleteTopics",
    "CreateAcls",
    "DeleteAcls",
    "CreatePartitions",
    "IncrementalAlterConfigs",
    "AlterClientQuotas",
    "AlterUserScramCredentials",
];
const LEASE_SECONDS: f64 = 15.0;

/// Where everything is.
struct Stage {
    cluster: Cluster,
    nowhere: Nowhere,
    postgres: Postgres,
    // Ends with this.
    kafka: Kafka,
    sql: Relay,
    admin: Relay,
    files: OperatorFiles,
    kubeconfig: PathBuf,
    logs: PathBuf,
    started: usize,
    edits: i64,
    /// Tenants, once they are made.
    tenants: usize,
}

fn tenant(name: &str, spec: Value) -> Value {
    let mut tenant = json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name},
        "spec": {
            "deletionPolicy": "Delete",
            "hub": {
                "replicas": 1, "nodeSelector": {nowhere::LABEL: "acb-bench-nowhere"},
                "tolerations": [{"key": nowhere::LABEL, "operator": "Exists"}],
            },
        },
    });
    if let (Some(whole), Value::Object(spec)) = (tenant["spec"].as_object_mut(), spec) {
        whole.extend(spec);
    }
    tenant
}

fn name(index: usize) -> String {
    format!("many-{index:03}")
}

/// What has been asked for so far.
#[derive(Clone, Debug)]
struct Asked {
    passes: f64,
    api: f64,
    sql: f64,
    kafka: f64,
    api_writes: BTreeMap<String, f64>,
    sql_writes: f64,
    kafka_writes: f64,
}

impl Stage {
    async fn set(logs: &Path, tenants: usize) -> Result<Self, Failure> {
        let cluster = Cluster::find()?;
        let kubeconfig = cluster.install(logs)?;
        let nowhere = Nowhere::start(&cluster)?;
        let kafka = Kafka::start(KafkaListener::Plain).await;
        // Its statistics would be writes, too.
        let settings = [("max_connections", "200"), ("autovacuum", "off")];
        let postgres = Postgres::start_with(Version::Installed, false, &settings).await;
        let behind = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let sql = Relay::start(Protocol::Postgres, behind(postgres.server().port())).await?;
        let admin = Relay::start(Protocol::Kafka, behind(kafka.port())).await?;
        let told = Told { resync_seconds: RESYNC_SECONDS, concurrency: 4 };
        let files = OperatorFiles::new((&postgres, sql.port), Some((&kafka, admin.port)), told)?;
        let logs = logs.to_owned();
        Ok(Self { cluster, nowhere, postgres, kafka, sql, admin, files, kubeconfig, logs, started: 0, edits: 0, tenants })
    }

    async fn operator(&mut self) -> Result<Operator, Failure> {
        self.started += 1;
        Operator::start(&self.files, &self.kubeconfig, &format!("bench-{}", self.started), &self.logs).await
    }

    /// Waits until every Tenant and every Agent is Ready.
    async fn converge(&mut self) -> Result<f64, Failure> {
        let begun = Instant::now();
        loop {
            self.nowhere.run_pods(&self.cluster)?;
            let list = self.cluster.get(&["tenants.acb.dev,agents.acb.dev", "--all-namespaces"])?;
            let is_ready = |object: &&Value| {
                let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
                current && conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            };
            let all: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
            if all.iter().all(&is_ready) {
                return Ok(begun.elapsed().as_secs_f64());
            }
            if begun.elapsed().as_secs() > CONVERGED_SECONDS {
                let one = all.iter().find(|object| !is_ready(object)).map(|object| object["status"]["conditions"].to_string());
                return Err(Failure(format!("not Ready after {CONVERGED_SECONDS} s: {}", one.unwrap_or_default())));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn asked(&self, leader: &Operator) -> Result<Asked, Failure> {
        let sum = |counts: BTreeMap<String, u64>| counts.values().sum::<u64>() as f64;
        let kafka = self.admin.counts();
        let kafka_writes =
            kafka.iter().filter(|(what, _)| KAFKA_WRITES.contains(&what.as_str())).map(|(_, count)| count).sum::<u64>() as f64;
        Ok(Asked {
            passes: leader.metric("controller_runtime_reconcile_total", "")?,
            // A Lease is updated, and nothing else.
            api: leader.metric("acb_operator_api_requests_total", "")?
                - leader.metric("acb_operator_api_requests_total", "update")?,
            sql: sum(self.sql.counts()),
            kafka: sum(kafka),
            api_writes: self.cluster.writes()?,
            // Every transaction that writes, or locks a row, takes the next number.
            sql_writes: self.postgres.number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").await as f64,
            kafka_writes,
        })
    }

    /// Changes a tenant in the middle, and waits until that is done. Answers with how long it took.
    async fn change(&mut self, since: Instant) -> Result<f64, Failure> {
        let name = name(self.tenants / 2);
        self.edits += 1;
        let patch = json!({"spec": {"limits": {"messagesPerMinute": 1000 + self.edits}}}).to_string();
        self.cluster.run(&["patch", "tenant", &name, "--type=merge", "--patch", &patch])?;
        let wanted = 1000 + self.edits;
        loop {
            let tenant = self.cluster.get(&["tenant", &name])?;
            if tenant["status"]["effective"]["limits"]["messagesPerMinute"] == wanted {
                return Ok(since.elapsed().as_secs_f64());
            }
            if since.elapsed().as_secs() > 60 {
                return Err(Failure(format!("{name} was not looked at within 60 s")));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn strike(&mut self) -> Result<(), Failure> {
        if self.cluster.is_own() {
            return self.cluster.end();
        }
        self.cluster.run(&["delete", "tenants.acb.dev", "--all", "--timeout=300s"])?;
        self.nowhere.end(&self.cluster)?;
        self.cluster.uninstall()
    }
}

pub(crate) async fn run(effort: Effort, target: &Path, report: &mut Report) -> Result<(), Failure> {
    let mut stage = Stage::set(target, effort.tenants as usize).await?;
    let result = measure(&mut stage, effort, report).await;
    let struck = stage.strike().await;
    result.and(struck)
}

async fn measure(stage: &mut Stage, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let leader = stage.operator().await?;
    leader.wait_leading().await?;
    wide(stage, report).await?;
    many(stage, report).await?;
    resyncs(stage, &leader, report).await?;
    changes(stage, leader, effort, report).await
}

/// Tenants with many topics, from their files to the last topic.
async fn wide(stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    tell(format!("making {} topics", WIDE_TENANTS * (WIDE_TYPES + 4)));
    let types: Vec<Value> = (0..WIDE_TYPES).map(|n| json!({"name": format!("type-{n}"), "partitions": 1})).collect();
    let names: Vec<String> = (0..WIDE_TENANTS).map(|n| format!("wide-{n}")).collect();
    let wide: Vec<Value> = names.iter().map(|name| tenant(name, json!({"tier": "Enterprise", "contextTypes": types}))).collect();
    let kafka = stage.files.load()?.kafka.ok_or_else(|| Failure("no Kafka".to_owned()))?.effect()?;
    let begun = Instant::now();
    stage.cluster.send(&["create"], &wide)?;
    let mut made = 0;
    while made < WIDE_TENANTS * (WIDE_TYPES + 4) {
        if begun.elapsed().as_secs() > CONVERGED_SECONDS {
            return Err(Failure(format!("{made} topics after {CONVERGED_SECONDS} s")));
        }
        sleep(Duration::from_millis(200)).await;
        made = kafka.observe("nobody", "acb.wide-").await.map_err(|error| Failure(error.to_string()))?.topics.len();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rate = made as f64 / seconds;
    tell(format!("  {made} topics in {seconds:.1} s"));
    report.at_least("topics created, ten tenants with a hundred each", rate, "/s", 50.0);
    let bare = topics::bare(&stage.kafka, made).await?;
    tell(format!("  a bare loop that makes a hundred at a time: {bare:.0} a second"));
    let against = format!("a bare loop, a hundred at a time, {bare:.0}/s");
    report.at_least_ratio("topics created by the operator", &against, (rate, bare), 0.5);
    stage.converge().await?;
    stage.cluster.run(&["delete", "tenants.acb.dev", "--all", "--timeout=300s"])?;
    stage.nowhere.end_pods(&stage.cluster)?;
    // Until their namespaces are gone, others write.
    let gone = |cluster: &Cluster| {
        let left = cluster.run(&["get", "namespaces", "--selector=acb.dev/tenant", "--output=name"])?;
        Ok(left.trim().is_empty().then_some(()))
    };
    stage.cluster.wait(CONVERGED_SECONDS, "the namespaces of these tenants are gone", gone).await
}

async fn many(stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    let tenants = stage.tenants;
    tell(format!("making {tenants} tenants with {AGENTS} agents each"));
    let begun = Instant::now();
    let types = json!([{"name": "notes", "partitions": 1}]);
    let documents: Vec<Value> =
        (0..tenants).map(|n| tenant(&name(n), json!({"tier": "Professional", "contextTypes": types}))).collect();
    stage.cluster.send(&["create"], &documents)?;
    let last = format!("acb-{}", name(tenants - 1));
    let made = |cluster: &Cluster| {
        let list = cluster.run(&["get", "namespaces", "--selector=acb.dev/tenant", "--output=name"])?;
        let made = list.lines().filter(|line| line.contains("/acb-many-")).count() == tenants;
        Ok(made.then_some(()))
    };
    stage.cluster.wait(CONVERGED_SECONDS, &format!("namespace {last} is made"), made).await?;
    let agents: Vec<Value> = (0..tenants * AGENTS)
        .map(|n| {
            json!({
                "apiVersion": "acb.dev/v1alpha1", "kind": "Agent", "spec": {"role": "AgentFull"},
                "metadata": {"name": format!("agent-{}", n % AGENTS), "namespace": format!("acb-{}", name(n / AGENTS))},
            })
        })
        .collect();
    stage.cluster.send(&["create"], &agents)?;
    stage.converge().await?;
    let seconds = begun.elapsed().as_secs_f64();
    tell(format!("  all Ready after {seconds:.0} s"));
    report.beside(format!("operator: {tenants} tenants and {} agents made, all Ready", tenants * AGENTS), None, seconds, "s");
    Ok(())
}

/// An hour's worth of resyncs with nothing changed.
async fn resyncs(stage: &mut Stage, leader: &Operator, report: &mut Report) -> Result<(), Failure> {
    tell(format!("{RESYNCS} resyncs with nothing changed"));
    // What was still to be said about the last change is said within the next one.
    settled(stage, leader, 1).await?;
    let (before, begun) = (stage.asked(leader).await?, Instant::now());
    settled(stage, leader, RESYNCS).await?;
    let (after, seconds) = (stage.asked(leader).await?, begun.elapsed().as_secs_f64());
    let resyncs = (after.passes - before.passes) / stage.tenants as f64;
    // What users write, and what converges.
    let objects = (stage.tenants + stage.tenants * AGENTS) as f64;
    let per_object = |of: fn(&Asked) -> f64| (of(&after) - of(&before)) / resyncs / objects;
    tell(format!("  {resyncs:.1} resyncs of each in {seconds:.0} s"));
    let mut api_writes = 0.0;
    for (what, count) in &after.api_writes {
        let count = count - before.api_writes.get(what).copied().unwrap_or_default();
        if count > 0.0 {
            tell(format!("  the API server took {count} times {what}"));
        }
        api_writes += count;
    }
    let what = format!("operator, {} tenants and {} agents:", stage.tenants, stage.tenants * AGENTS);
    report.beside(format!("{what} resident memory of the leader"), None, leader.memory_mib()?, "MiB");
    report.beside(format!("{what} API requests per object and resync"), None, per_object(|asked| asked.api), "");
    report.beside(format!("{what} Kafka requests per object and resync"), None, per_object(|asked| asked.kafka), "");
    report.beside(format!("{what} SQL statements per object and resync"), None, per_object(|asked| asked.sql), "");
    let what = "an hour's worth of resyncs, nothing changed: writes to";
    report.value(format!("{what} the API server, but for the Lease"), api_writes, "", 0.0);
    report.value(format!("{what} PostgreSQL"), after.sql_writes - before.sql_writes, "", 0.0);
    report.value(format!("{what} Kafka"), after.kafka_writes - before.kafka_writes, "", 0.0);
    Ok(())
}

/// Waits until every tenancy was looked at so often.
async fn settled(stage: &mut Stage, leader: &Operator, times: usize) -> Result<(), Failure> {
    let passes = || leader.metric("controller_runtime_reconcile_total", "");
    let wanted = passes()? + (times * stage.tenants) as f64;
    let begun = Instant::now();
    while passes()? < wanted {
        if begun.elapsed().as_secs() > CONVERGED_SECONDS {
            return Err(Failure(format!("no {times} resyncs within {CONVERGED_SECONDS} s")));
        }
        stage.nowhere.tell(&stage.cluster)?;
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// The leader is told to end, and another one is killed, again and again.
async fn changes(stage: &mut Stage, leader: Operator, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    tell("changing leaders");
    let (mut handovers, mut failovers, mut led, mut standby_memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut leader = leader;
    for run in 0..effort.runs {
        let next = stage.operator().await?;
        standby_memory.push(next.memory_mib()?);
        let told = Instant::now();
        leader.signal(Signal::TERM)?;
        next.wait_leading().await?;
        let handover = told.elapsed().as_secs_f64();
        leader.ended().await?;
        leader = next;
        let next = stage.operator().await?;
        // Not in the middle of what a new leader begins with.
        settled(stage, &leader, 2).await?;
        let killed = Instant::now();
        leader.signal(Signal::KILL)?;
        leader.ended().await?;
        let changed = stage.change(killed);
        let (leads, done) = tokio::join!(next.wait_leading(), changed);
        leads?;
        let failover = done?;
        led.push(killed.elapsed().as_secs_f64());
        tell(format!("  run {} handed over in {handover:.2} s; killed, and its work went on after {failover:.1} s", run + 1));
        handovers.push(handover);
        failovers.push(failover);
        leader = next;
        settled(stage, &leader, 1).await?;
    }
    report.beside("operator that stands by, the same objects: resident memory", None, median(standby_memory), "MiB");
    report.value("operator told to end: another leads", median(handovers), "s", 1.0);
    let most = LEASE_SECONDS + 2.0;
    report.value("operator killed: a change made then is done by another", median(failovers), "s", most);
    let lease = stage.cluster.get(&["lease", "acb-operator", "--namespace", NAMESPACE])?;
    tell(format!("  the Lease changed hands {} times", lease["spec"]["leaseTransitions"]));
    drop(leader);
    Ok(())
}
