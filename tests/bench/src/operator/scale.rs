//! The operator with thousands of tenants: what grows with their number, and how fast.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::time::sleep;

use super::{
    AGENTS,
    scene::{Scene, agents, is_ready, tenant, tenants},
};
use crate::{Effort, Failure, report::Report, samples::median, tell};

/// Drift is looked for every ten minutes, as the chart has it; less often than that is what this waits for.
const RESYNC: Duration = Duration::from_secs(60);
/// Events that are about nothing that is decided.
const EVENTS: usize = 20_000;
/// Tenants that are changed at once.
const CHANGES: usize = 100;
const LATEST: Duration = Duration::from_secs(3600);

/// What was measured of one size.
struct Figures {
    tenants: u32,
    bus: &'static str,
    /// CPU seconds of a look at everyone.
    cpu: f64,
    /// One more Tenant, created to Ready, in seconds.
    ready: f64,
}

/// With the log on Kafka, and with the log on PostgreSQL: a broker on the same two cores does not get far.
pub(crate) async fn run(
    effort: Effort,
    (on_kafka, on_postgres): (&[u32], &[u32]),
    target: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut all: Vec<Figures> = Vec::new();
    let on_kafka = on_kafka.iter().map(|size| (*size, "Kafka"));
    let all_sizes = on_kafka.chain(on_postgres.iter().map(|size| (*size, "PostgreSQL")));
    for (size, bus) in all_sizes.filter(|(size, _)| *size > 0) {
        let mut scene = Scene::set(target, bus == "Kafka", RESYNC).await?;
        tell(format!("{size} tenants with {AGENTS} agents each, their log on {bus}"));
        let figures = measure(&mut scene, (size, bus), effort, report).await?;
        let what = |what: &str| format!("operator, {what}, {} tenants, log on {bus}", figures.tenants);
        let mut others = all.iter().filter(|other| other.bus == bus);
        if let Some(half) = others.clone().find(|other| other.tenants * 2 == figures.tenants) {
            let against = format!("{} tenants", half.tenants);
            report.ratio(what("CPU of a full resync"), &against, (figures.cpu, half.cpu), 2.5);
        }
        if let Some(first) = others.next() {
            let against = format!("{} tenants", first.tenants);
            report.ratio(what("one more Tenant created to Ready"), &against, (figures.ready, first.ready), 1.5);
        }
        all.push(figures);
    }
    Ok(())
}

async fn measure(
    scene: &mut Scene,
    (size, bus): (u32, &'static str),
    effort: Effort,
    report: &mut Report,
) -> Result<Figures, Failure> {
    let names: Vec<String> = (0..size).map(|n| format!("many-{n:05}")).collect();
    let what = |what: &str| format!("operator, {size} tenants and {} agents, log on {bus}: {what}", size as usize * AGENTS);
    let made = scene.fill(&names, AGENTS, LATEST).await?;
    tell(format!("  all Ready after {made:.0} s; the API server has {} objects", scene.api.len()));
    report.beside(what("made, all Ready"), None, made, "s");

    let begun = Instant::now();
    scene.start_again().await?;
    let wanted = f64::from(size);
    scene.until_passes(wanted, LATEST).await?;
    let looked = begun.elapsed().as_secs_f64();
    tell(format!("  started again, and looked at all after {looked:.1} s"));
    report.beside(what("started, and all looked at"), None, looked, "s");

    // A new leader looks twice.
    scene.until_passes(2.0 * wanted, LATEST).await?;
    sleep(Duration::from_secs(5)).await;
    let (cpu, passes, begun) = (scene.operator.cpu_seconds()?, scene.passes()?, Instant::now());
    scene.until_passes(passes + wanted, LATEST).await?;
    let (spent, passes) = (scene.operator.cpu_seconds()? - cpu, scene.passes()? - passes);
    let cpu = spent / passes * wanted;
    tell(format!("  a resync of all takes {cpu:.2} s of CPU ({passes:.0} looks in {:.0} s)", begun.elapsed().as_secs_f64()));
    report.beside(what("CPU of a full resync"), None, cpu, "s");

    let memory = scene.operator.memory_mib()?;
    tell(format!("  resident memory of the leader: {memory:.0} MiB"));
    let what_of_memory = what("resident memory of the leader");
    if size == 1_000 {
        report.value(what_of_memory, memory, "MiB", 256.0);
    } else {
        report.beside(what_of_memory, None, memory, "MiB");
    }

    let mut seconds = Vec::new();
    for n in 0..effort.runs {
        let name = format!("more-{size}-{n}");
        let begun = Instant::now();
        scene.create(&tenants(), tenant(&name, "Professional"))?;
        scene.until(LATEST, "one more is Ready", || Ok(is_ready(&scene.get(&tenants(), "", &name)))).await?;
        seconds.push(begun.elapsed().as_secs_f64());
        sleep(Duration::from_secs(1)).await;
    }
    let ready = median(seconds);
    tell(format!("  one more Tenant is Ready after {:.0} ms", ready * 1e3));
    report.beside(what("one more Tenant created to Ready"), None, ready, "s");

    let events = events(scene, &names).await?;
    tell(format!("  takes {events:.0} events a second"));
    report.beside(what("events taken"), None, events, "/s");
    let changes = changes(scene, &names).await?;
    tell(format!("  does {changes:.0} changes of Tenants a second"));
    report.beside(what("changes of Tenants done"), None, changes, "/s");
    Ok(Figures { tenants: size, bus, cpu, ready })
}

/// Events a second that change nothing, from the first to when a change behind them is seen.
async fn events(scene: &Scene, names: &[String]) -> Result<f64, Failure> {
    let begun = Instant::now();
    for n in 0..EVENTS {
        let (tenant, agent) = (&names[n % names.len()], n / names.len() % AGENTS);
        let (space, agent) = (format!("acb-{tenant}"), format!("agent-{agent}"));
        scene.edit(&agents(), (&space, &agent), |agent| {
            agent["metadata"]["annotations"]["example.com/n"] = json!(n.to_string())
        })?;
        // Others have a turn: the server is in this process, too.
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (space, agent) = (format!("acb-{}", names[0]), "agent-0");
    scene.edit(&agents(), (&space, agent), |agent| agent["spec"]["location"] = json!("elsewhere"))?;
    scene.until(LATEST, "what comes last is seen", || Ok(is_ready(&scene.get(&agents(), &space, agent)))).await?;
    Ok(EVENTS as f64 / begun.elapsed().as_secs_f64())
}

/// Changes a second, of many tenants at once.
async fn changes(scene: &Scene, names: &[String]) -> Result<f64, Failure> {
    let some = &names[..names.len().min(CHANGES)];
    let begun = Instant::now();
    for name in some {
        scene.edit(&tenants(), ("", name), |tenant| tenant["spec"]["limits"]["messagesPerMinute"] = json!(777))?;
    }
    let done = |name: &String| scene.get(&tenants(), "", name)["status"]["effective"]["limits"]["messagesPerMinute"] == 777;
    scene.until(LATEST, "all changes are done", || Ok(some.iter().all(done))).await?;
    Ok(some.len() as f64 / begun.elapsed().as_secs_f64())
}
