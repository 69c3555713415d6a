//! A thousand connected agents on a hub of two replicas: what an idle one takes, whether they slow a message down, and how soon all are back
//! after a replica was started again.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use acb_sdk::{Client, Session};
use acb_testbed::standalone::{Home, Standalone, TenantAccess};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::{
    Effort, Failure, RECEIVER, SENDER, TENANT,
    bare_tls::BareTls,
    client::Target,
    hub::{ask, resident_kib},
    report::Report,
    samples::{Percentiles, median},
    tell,
};

const FEW: u32 = 10;
/// Agents that connect at the same time.
const AT_ONCE: usize = 16;
const IDLE: Duration = Duration::from_secs(10);
/// Messages of each run.
const SAMPLES: u32 = 5000;
const BACK: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// Connected agents, which receive nothing.
type Crowd = Vec<Session>;

pub(crate) async fn run(effort: Effort, log: &Path, report: &mut Report) -> Result<(), Failure> {
    let many = effort.agents;
    tell(format!("starting a hub of two replicas, with {many} agents"));
    let home = Home::new()?;
    let resources = home.path().join("resources");
    fs::create_dir(&resources)?;
    fs::write(resources.join("crowd.yaml"), documents(many))?;
    let standalone = Standalone::start(&home, &resources, None, log).await?;
    let access = standalone.tenant(TENANT)?;
    memory(&home, access, many, report).await?;
    let crowd = latency(access, effort, report).await?;
    restart(&home, &crowd, effort, report).await?;
    drop(crowd);
    standalone.stop().await?;
    Ok(())
}

/// The tenant, and its agents.
fn documents(many: u32) -> String {
    let mut all = format!(
        "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: {TENANT}}}\nspec:\n  tier: Enterprise\n  hub: {{replicas: 2}}\n  \
         agentLimits: {{messagesPerMinute: 1000000000, bytesPerMinute: 1000000000000, concurrentStreams: 1000000}}\n"
    );
    let named = [SENDER.to_owned(), RECEIVER.to_owned()];
    for name in named.into_iter().chain((0..many).map(|number| format!("agent-{number}"))) {
        let _ = write!(
            all,
            "---\napiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}, namespace: acb-{TENANT}}}\nspec: {{type: bench, role: \
             AgentFull}}\n"
        );
    }
    all
}

/// Before any message. What the first few cost is not counted: they make what all share.
async fn memory(home: &Home, access: &TenantAccess, many: u32, report: &mut Report) -> Result<(), Failure> {
    let mut bare = BareTls::start().await?;
    bare.connect(FEW).await?;
    let few = connect(access, 0..FEW).await?;
    let resident = |bare: &BareTls| Ok::<_, Failure>((hub_kib(home)?, resident_kib(bare.pid()?)?));
    sleep(IDLE).await;
    let before = resident(&bare)?;
    bare.connect(many - FEW).await?;
    let others = connect(access, FEW..many).await?;
    sleep(IDLE).await;
    let after = resident(&bare)?;
    let each = |before: f64, after: f64| (after - before) / f64::from(many - FEW);
    let (hub, bare) = (each(before.0, after.0), each(before.1, after.1));
    tell(format!("  an idle agent takes {hub:.1} KiB, a bare TLS connection {bare:.1} KiB"));
    report.value(format!("{many} idle agents: resident memory of each over a bare TLS connection"), hub - bare, "KiB", 8.0);
    report.beside("the same, an agent", None, hub, "KiB");
    report.beside("the same, a bare TLS connection", None, bare, "KiB");
    drop((few, others));
    Ok(())
}

/// A message to one agent, with few and with many that are connected. Leaves the many.
async fn latency(access: &TenantAccess, effort: Effort, report: &mut Report) -> Result<Crowd, Failure> {
    let replica = access.endpoints.first().ok_or_else(|| Failure("no replica answers".to_owned()))?;
    let target = Target::replica(access, replica, 0).await?;
    let samples = effort.samples.min(SAMPLES);
    let (mut with_few, mut with_many) = (Vec::new(), Vec::new());
    // The sender and the recipient are two of them.
    let mut crowd = connect(access, 0..FEW - 2).await?;
    for run in 0..effort.runs {
        crowd.truncate(FEW as usize - 2);
        for (agents, runs) in [(FEW, &mut with_few), (effort.agents, &mut with_many)] {
            let connected = crowd.len() as u32;
            crowd.append(&mut connect(access, connected..agents - 2).await?);
            let measured = target.run(samples).await?.percentiles();
            tell(format!("  run {} {agents} agents: p50 {:.3}, p99 {:.3} ms", run + 1, measured.p50, measured.p99));
            runs.push(measured);
        }
    }
    let (few, many) = (Percentiles::median(&with_few), Percentiles::median(&with_many));
    let against = format!("{FEW} agents, {:.2} ms", few.p99);
    report.ratio(format!("message to one of {} connected agents, p99", effort.agents), &against, (many.p99, few.p99), 1.3);
    report.beside("the same, p50", Some(&format!("{FEW} agents, {:.2} ms", few.p50)), many.p50, "ms");
    Ok(crowd)
}

/// A replica is told to end, and is started again: until it is ready, and every agent has a session on one of the two.
async fn restart(home: &Home, crowd: &Crowd, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let mut seconds = Vec::new();
    until(|| async { connected(home).await == Some(crowd.len()) }).await?;
    for run in 0..effort.runs {
        let pods = home.pods(TENANT)?;
        let Some((name, pid)) = pods.iter().find_map(|(name, pod)| Some((name.clone(), pod.pid?))) else {
            return Err(Failure("no hub runs".to_owned()));
        };
        let begun = Instant::now();
        if let Some(process) = Pid::from_raw(pid) {
            kill_process(process, Signal::TERM)?;
        }
        until(|| async {
            let again = home.pod(TENANT, &name).is_ok_and(|pod| pod.ready && pod.pid.is_some_and(|new| new != pid));
            again && connected(home).await == Some(crowd.len())
        })
        .await?;
        seconds.push(begun.elapsed().as_secs_f64());
        tell(format!("  run {} all agents are back after {:.2} s", run + 1, seconds[seconds.len() - 1]));
    }
    report.value(
        format!("a replica is started again: until all of {} agents are back", effort.agents),
        median(seconds),
        "s",
        10.0,
    );
    Ok(())
}

async fn connect(access: &TenantAccess, agents: std::ops::Range<u32>) -> Result<Crowd, Failure> {
    stream::iter(agents.map(Ok::<_, Failure>))
        .map(async |number| {
            let number = number?;
            // Half of them begin at each replica.
            let mut endpoints = access.endpoints.clone();
            let count = endpoints.len().max(1);
            endpoints.rotate_left(number as usize % count);
            let builder = Client::builder().endpoints(endpoints).ca_pem(access.ca_pem.clone());
            let client = builder.api_key(access.api_key(&format!("agent-{number}"))?.parse()?).connect().await?;
            Ok::<_, Failure>(client.session().open().await?)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Of both replicas.
fn hub_kib(home: &Home) -> Result<f64, Failure> {
    let pids = home.pods(TENANT)?.into_values().filter_map(|pod| pod.pid);
    pids.map(|pid| resident_kib(pid.cast_unsigned())).sum()
}

/// Agents with a session, by what the replicas say; `None` where one does not answer.
async fn connected(home: &Home) -> Option<usize> {
    let mut sum = 0;
    for pod in home.pods(TENANT).ok()?.into_values() {
        let metrics = ask(*pod.ports.get("ops")?, "/metrics").await.ok()?;
        // A replica that had none yet does not say so.
        let line = metrics.lines().find(|line| line.starts_with("acb_active_agents{"));
        sum += line.map_or(Some(0), |line| line.rsplit(' ').next()?.parse::<usize>().ok())?;
    }
    Some(sum)
}

async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) -> Result<(), Failure> {
    let deadline = Instant::now() + BACK;
    while !condition().await {
        if Instant::now() > deadline {
            return Err(Failure("not all agents came back".to_owned()));
        }
        sleep(LOOK).await;
    }
    Ok(())
}
