//! An operator with its PostgreSQL, on an API server of wood.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use acb_testbed::{Kafka, KafkaListener, OperatorFiles, Postgres, operator::Told, postgres::Version};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};

use super::{
    model::{Kind, Store, serve},
    process::Operator,
};
use crate::{Failure, tell};

/// The chart's.
const CONCURRENCY: usize = 4;
/// A change is looked for this often.
const LOOK: Duration = Duration::from_millis(1);
const PASSES: &str = "controller_runtime_reconcile_total";

/// All of it. Ends with this.
pub(super) struct Scene {
    pub(super) api: Arc<Store>,
    pub(super) operator: Operator,
    postgres: Postgres,
    kafka: Option<Kafka>,
    // They are read again and again.
    files: OperatorFiles,
    kubeconfig: PathBuf,
    logs: PathBuf,
    resync: Duration,
    started: usize,
}

pub(super) fn tenants() -> Kind {
    Kind::new("acb.dev/v1alpha1", "tenants")
}

pub(super) fn agents() -> Kind {
    Kind::new("acb.dev/v1alpha1", "agents")
}

pub(super) fn tenant(name: &str, tier: &str) -> Value {
    json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name},
        "spec": {"tier": tier, "hub": {"replicas": 1}, "contextTypes": [{"name": "notes", "partitions": 1}]},
    })
}

pub(super) fn agent(tenant: &str, n: usize) -> Value {
    json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Agent", "spec": {"role": "AgentFull"},
        "metadata": {"name": format!("agent-{n}"), "namespace": format!("acb-{tenant}")},
    })
}

/// Whether a resource is Ready, as it is now.
pub(super) fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let is_current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    is_current && conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

impl Scene {
    pub(super) async fn set(logs: &Path, on_kafka: bool, resync: Duration) -> Result<Self, Failure> {
        let api = Arc::new(Store::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let server = format!("http://{}", listener.local_addr()?);
        tokio::spawn(serve(listener, Arc::clone(&api)));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "wood",
            "clusters": [{"name": "wood", "cluster": {"server": server}}], "users": [{"name": "wood", "user": {}}],
            "contexts": [{"name": "wood", "context": {"cluster": "wood", "user": "wood"}}],
        });
        let kubeconfig = std::path::absolute(logs)?.join("wood.kubeconfig");
        fs::write(&kubeconfig, config.to_string())?;
        let kafka = if on_kafka { Some(Kafka::start(KafkaListener::Plain).await) } else { None };
        let postgres = Postgres::start_with(Version::Installed, false, &[("max_connections", "200")]).await;
        let files = written(&postgres, kafka.as_ref(), resync)?;
        let operator = Operator::start(&files, &kubeconfig, "scale-0", logs).await?;
        operator.wait_leading().await?;
        Ok(Self { api, operator, postgres, kafka, files, kubeconfig, logs: logs.to_owned(), resync, started: 0 })
    }

    /// Ends the operator, and starts another one.
    pub(super) async fn start_again(&mut self) -> Result<(), Failure> {
        self.operator.signal(Signal::TERM)?;
        self.operator.ended().await?;
        self.started += 1;
        self.files = written(&self.postgres, self.kafka.as_ref(), self.resync)?;
        self.operator = Operator::start(&self.files, &self.kubeconfig, &format!("scale-{}", self.started), &self.logs).await?;
        Ok(())
    }

    /// Looks that were taken so far.
    pub(super) fn passes(&self) -> Result<f64, Failure> {
        self.operator.metric(PASSES, "")
    }

    /// Waits until so many looks were taken. Asking takes CPU of the operator's, and so it is not asked often.
    pub(super) async fn until_passes(&self, wanted: f64, within: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.passes()? < wanted {
            if begun.elapsed() > within {
                return Err(Failure(format!("not {wanted:.0} looks after {} s", within.as_secs())));
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Waits until something is so.
    pub(super) async fn until(
        &self,
        within: Duration,
        what: &str,
        mut is_so: impl FnMut() -> Result<bool, Failure>,
    ) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let mut told = Instant::now();
        while !is_so()? {
            if begun.elapsed() > within {
                return Err(Failure(format!("not after {} s: {what}", within.as_secs())));
            }
            if told.elapsed() > Duration::from_secs(60) {
                tell(format!("    waiting: {what}, {:.0} looks", self.passes()?));
                told = Instant::now();
            }
            sleep(LOOK).await;
        }
        Ok(begun.elapsed())
    }

    /// Makes tenants of these names, each with so many agents, and waits until all are Ready.
    pub(super) async fn fill(&self, names: &[String], agents_of_each: usize, within: Duration) -> Result<f64, Failure> {
        let begun = Instant::now();
        for name in names {
            self.create(&tenants(), tenant(name, "Professional"))?;
        }
        self.all_ready(&tenants(), within).await?;
        for (name, n) in names.iter().flat_map(|name| (0..agents_of_each).map(move |n| (name, n))) {
            self.create(&agents(), agent(name, n))?;
        }
        self.all_ready(&agents(), within).await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Waits until every resource of a kind is Ready.
    pub(super) async fn all_ready(&self, kind: &Kind, within: Duration) -> Result<(), Failure> {
        let mut looked = Instant::now();
        let all = || {
            if looked.elapsed() < Duration::from_millis(500) {
                return Ok(false);
            }
            looked = Instant::now();
            Ok(self.api.list(kind, "").0.iter().all(|object| is_ready(object)))
        };
        self.until(within, &format!("all {} are Ready", kind.plural), all).await.map(drop)
    }

    pub(super) fn create(&self, kind: &Kind, object: Value) -> Result<(), Failure> {
        self.api.create(kind, object).map(drop).map_err(|refused| Failure(format!("not made: {refused:?}")))
    }

    /// Changes a resource.
    pub(super) fn edit(&self, kind: &Kind, at: (&str, &str), edit: impl FnOnce(&mut Value)) -> Result<(), Failure> {
        let edited = self.api.change(kind, at, |object| {
            edit(object);
            Ok(())
        });
        edited.map(drop).map_err(|refused| Failure(format!("not changed: {refused:?}")))
    }

    /// Changes a Tenant's limit, and waits until its status has it.
    pub(super) async fn change(&self, name: &str, limit: i64) -> Result<Duration, Failure> {
        let begun = Instant::now();
        self.edit(&tenants(), ("", name), |tenant| tenant["spec"]["limits"]["messagesPerMinute"] = json!(limit))?;
        let done = || Ok(self.get(&tenants(), "", name)["status"]["effective"]["limits"]["messagesPerMinute"] == limit);
        self.until(Duration::from_secs(300), "a change is done", done).await?;
        Ok(begun.elapsed())
    }

    pub(super) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Arc<Value> {
        self.api.get(kind, namespace, name).unwrap_or_default()
    }
}

fn written(postgres: &Postgres, kafka: Option<&Kafka>, resync: Duration) -> Result<OperatorFiles, Failure> {
    let told = Told { resync_seconds: resync.as_secs(), concurrency: CONCURRENCY };
    Ok(OperatorFiles::new((postgres, postgres.server().port()), kafka.map(|kafka| (kafka, kafka.port())), told)?)
}
