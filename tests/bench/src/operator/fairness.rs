//! What busy tenants take from others: how long a change of a quiet tenant takes, alone, beside one that is edited in a loop, and beside one
//! with very many Agents.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::time::sleep;

use super::{
    model::{Kind, Store},
    scene::{Scene, agent, agents, tenant, tenants},
};
use crate::{
    Effort, Failure,
    report::Report,
    samples::{Percentiles, Samples},
    tell,
};

const TENANTS: u32 = 100;
const AGENTS: usize = 10;
const MANY_AGENTS: usize = 10_000;
const SAMPLES: u32 = 100;
/// Between two edits of the loop.
const EDITED_EVERY: Duration = Duration::from_millis(5);
const LATEST: Duration = Duration::from_secs(1800);
/// The most that a median may be of what it is alone.
const GOAL: f64 = 1.5;

/// Edits one object again and again, until it is dropped.
struct Loop {
    ends: Arc<AtomicBool>,
    edits: Arc<AtomicU64>,
}

impl Loop {
    fn start(api: &Arc<Store>, kind: Kind, namespace: &str, name: &str, pointer: &'static str) -> Self {
        let (ends, edits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (api, ended, counted) = (Arc::clone(api), Arc::clone(&ends), Arc::clone(&edits));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let n = counted.fetch_add(1, Ordering::Relaxed);
                let _ = api.change(&kind, (&namespace, &name), |object| {
                    object["spec"][pointer] = json!(format!("place-{n}"));
                    Ok(())
                });
                sleep(EDITED_EVERY).await;
            }
        });
        Self { ends, edits }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// How long a change of each quiet tenant in turn takes.
async fn changes(scene: &Scene, names: &[String], limit: &mut i64) -> Result<Percentiles, Failure> {
    let mut samples = Samples::with_capacity(SAMPLES);
    for n in 0..SAMPLES as usize {
        *limit += 1;
        samples.take(scene.change(&names[n % names.len()], *limit).await?);
        sleep(Duration::from_millis(50)).await;
    }
    Ok(samples.percentiles())
}

pub(crate) async fn run(_: Effort, target: &Path, report: &mut Report) -> Result<(), Failure> {
    let scene = Scene::set(target, true, Duration::from_secs(600)).await?;
    let names: Vec<String> = (0..TENANTS).map(|n| format!("quiet-{n:03}")).collect();
    tell(format!("{TENANTS} quiet tenants"));
    scene.fill(&names, AGENTS, LATEST).await?;
    let busy = ["busy".to_owned()];
    scene.fill(&busy, AGENTS, LATEST).await?;
    let mut limit = 1_000;
    let alone = changes(&scene, &names, &mut limit).await?;
    tell(format!("  a change takes {:.0} ms, p95 {:.0} ms", alone.p50, alone.p95));
    report.beside("operator: a change of a tenant among 100, p50", None, alone.p50, "ms");
    report.beside("… p95", None, alone.p95, "ms");

    let edits = Loop::start(&scene.api, agents(), "acb-busy", "agent-0", "location");
    tell("one is edited in a loop");
    sleep(Duration::from_secs(10)).await;
    compare(&scene, &names, &mut limit, alone, "beside a tenant that is edited in a loop", report).await?;
    tell(format!("  {} edits meanwhile", edits.edits.load(Ordering::Relaxed)));
    drop(edits);

    tell(format!("one has {MANY_AGENTS} agents"));
    let begun = Instant::now();
    scene.create(&tenants(), tenant("crowded", "Enterprise"))?;
    scene.all_ready(&tenants(), LATEST).await?;
    for n in 0..MANY_AGENTS {
        scene.create(&agents(), agent("crowded", n))?;
    }
    compare(&scene, &names, &mut limit, alone, "while 10,000 Agents are made in one namespace", report).await?;
    scene.all_ready(&agents(), LATEST).await?;
    tell(format!("  all Ready after {:.0} s", begun.elapsed().as_secs_f64()));
    let edits = Loop::start(&scene.api, agents(), "acb-crowded", "agent-0", "location");
    sleep(Duration::from_secs(10)).await;
    compare(&scene, &names, &mut limit, alone, "beside one with 10,000 Agents that is edited in a loop", report).await?;
    drop(edits);
    Ok(())
}

async fn compare(
    scene: &Scene,
    names: &[String],
    limit: &mut i64,
    alone: Percentiles,
    what: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    let beside = changes(scene, names, limit).await?;
    tell(format!("  {what}: {:.0} ms, p95 {:.0} ms", beside.p50, beside.p95));
    let against = format!("alone, {:.0} ms", alone.p50);
    report.ratio(format!("operator: a change of a tenant {what}, p50"), &against, (beside.p50, alone.p50), GOAL);
    report.beside("… p95", None, beside.p95, "ms");
    Ok(())
}
