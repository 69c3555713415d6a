//! What users do, each as they would do it: with kubectl, helm and `acb`.

mod account;
mod admission;
mod agent_pod;
mod asked;
mod autoscaled;
mod contexts;
mod crds;
mod deletion;
mod drift;
mod foreign;
mod hand;
mod hostile;
mod images;
pub(crate) mod install;
pub(crate) mod isolation;
mod killed;
mod leader;
mod load;
mod operator;
mod outage;
mod plan;
mod pull;
mod release;
mod restore;
mod rollback;
mod rotate;
mod runbook;
mod service_account;
mod tenant;
mod verified;
mod versions;
mod world;

use std::{process::ExitCode, time::Instant};

use self::world::World;
use crate::{
    cluster::{self, Extent},
    error::{Error, Result},
    kubectl::Kubectl,
    place::Place,
    report::{Report, Row, Status},
    say,
    state::State,
};

/// One of them.
struct Scenario {
    name: &'static str,
    /// What is so where it passes.
    proves: &'static str,
    needs_node: bool,
    /// Left out without `--all`.
    long: bool,
    /// What must have passed before, in the same run.
    after: &'static [&'static str],
    run: fn(&mut World) -> Result<()>,
}

/// In the order in which they run: later ones use what earlier ones left.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "crds",
        proves: "a real API server takes the kinds and every sample, and refuses bad values of every field with a message",
        needs_node: false,
        long: false,
        after: &[],
        run: crds::run,
    },
    Scenario {
        name: "versions",
        proves: "the kinds go to a next version and back as docs/api-versions.md says, and nothing of a resource is lost",
        needs_node: false,
        long: false,
        after: &[],
        run: versions::run,
    },
    Scenario {
        name: "admission",
        proves: "policies and roles let tenants, their admins and the operator do what they may, and nothing else",
        needs_node: false,
        long: false,
        after: &[],
        run: admission::run,
    },
    Scenario {
        name: "plan-asked",
        proves: "the operator tells what it would do to those who may ask, and to nobody else",
        needs_node: false,
        long: false,
        after: &[],
        run: asked::run,
    },
    Scenario {
        name: "images",
        proves: "images that are made twice from the same binaries are the same",
        needs_node: true,
        long: true,
        after: &[],
        run: images::reproducible,
    },
    Scenario {
        name: "leader-paused",
        proves: "an operator that is stopped in the middle of every kind of write does no harm when it goes on",
        needs_node: false,
        long: true,
        after: &[],
        run: leader::paused,
    },
    Scenario {
        name: "leader-killed",
        proves: "an operator that is killed in the middle of every kind of write is followed by another that finishes",
        needs_node: false,
        long: true,
        after: &[],
        run: leader::killed,
    },
    Scenario {
        name: "install",
        proves: "helm install gives a ready operator with a leader",
        needs_node: true,
        long: false,
        after: &[],
        run: install::run,
    },
    Scenario {
        name: "tenant-ready",
        proves: "a Tenant is Ready within 60 s, and its agents too",
        needs_node: true,
        long: false,
        after: &["install"],
        run: tenant::ready,
    },
    Scenario {
        name: "agents-talk",
        proves: "agents in pods reach each other through their hub",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: tenant::agents_talk,
    },
    Scenario {
        name: "service-account",
        proves: "a pod logs in with its projected token alone, and what it has open ends within 5 s of its account's deletion",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: service_account::run,
    },
    Scenario {
        name: "isolation",
        proves: "every attack on the other tenant with a tenant's own credentials is refused",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: isolation::both,
    },
    Scenario {
        name: "isolation-verified",
        proves: "the operator has the walls attacked by a Job, and a wall that comes down is said within minutes, by name",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: verified::run,
    },
    Scenario {
        name: "reapply",
        proves: "the same manifests again change nothing",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: tenant::reapply,
    },
    Scenario {
        name: "quota",
        proves: "a Quota holds without a restart",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: tenant::quota,
    },
    Scenario {
        name: "drift",
        proves: "what was changed in Kubernetes, PostgreSQL or Kafka comes back",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: drift::drift,
    },
    Scenario {
        name: "drift-added",
        proves: "what somebody added to a wall or to the hub's pod is taken away again",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: drift::added,
    },
    Scenario {
        name: "foreign-key",
        proves: "an API key that somebody put under the name of a coming agent is refused by name",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: foreign::key,
    },
    Scenario {
        name: "plan",
        proves: "a pull-request check plans a change and applies nothing; who may not is refused",
        needs_node: true,
        long: false,
        after: &["install"],
        run: plan::run,
    },
    Scenario {
        name: "contexts",
        proves: "the command line finds a hub by the cluster, and speaks to it by port-forward",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: contexts::run,
    },
    Scenario {
        name: "hub-killed",
        proves: "no acknowledged message is lost, or comes twice, while replicas of the hub are killed under load",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: killed::hub,
    },
    Scenario {
        name: "kafka-down",
        proves: "Kafka goes away under load and comes back: it is named, it heals, and no acknowledged message is lost",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: outage::kafka,
    },
    Scenario {
        name: "postgres-down",
        proves: "the same of PostgreSQL",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: outage::postgres,
    },
    Scenario {
        name: "api-server-down",
        proves: "hubs go on as if nothing were while the API server is away",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: outage::api_server,
    },
    Scenario {
        name: "wrong-credentials",
        proves: "wrong credentials of the operator are named, and mending them is enough",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: outage::credentials,
    },
    Scenario {
        name: "rolling-upgrade",
        proves: "hubs of another image, and back, under load: no message is lost, or comes twice",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: release::rolling_upgrade,
    },
    Scenario {
        name: "rollback",
        proves: "a release with a migration and a resource that only it can read is rolled back under load: nothing is lost or loosened",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: rollback::run,
    },
    Scenario {
        name: "autoscaled",
        proves: "a HorizontalPodAutoscaler gives a hub more replicas under load, and takes them back: no message is lost, or comes twice",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: autoscaled::run,
    },
    Scenario {
        name: "image-pull-secret",
        proves: "a hub's image comes from a registry that asks for a login, as soon as the login is there",
        needs_node: true,
        long: false,
        after: &["install"],
        run: pull::secret,
    },
    Scenario {
        name: "rotate",
        proves: "credentials are replaced under load: no message is refused, and the old ones open nothing",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: rotate::rotate,
    },
    Scenario {
        name: "operator-killed",
        proves: "another operator goes on with what the killed one had begun",
        needs_node: true,
        long: false,
        after: &["install"],
        run: killed::operator,
    },
    Scenario {
        name: "delete",
        proves: "with Delete nothing of a tenant is left, with Retain its data is",
        needs_node: true,
        long: false,
        after: &["tenant-ready", "operator-killed"],
        run: deletion::delete,
    },
    Scenario {
        name: "retained",
        proves: "a tenant of a name with retained data waits until the platform takes the data over, or removes it",
        needs_node: true,
        long: true,
        after: &["delete"],
        run: deletion::retained,
    },
    Scenario {
        name: "delete-while-kafka-down",
        proves: "a tenant that is deleted while Kafka is away is shut at once, and goes when nothing of it is left",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: deletion::while_kafka_down,
    },
    Scenario {
        name: "delete-after-namespace",
        proves: "a tenant whose given namespace was removed before it leaves nothing behind",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: deletion::after_namespace,
    },
    Scenario {
        name: "made-again",
        proves: "a tenant that is made again under its name inherits nothing",
        needs_node: true,
        long: true,
        after: &["install"],
        run: deletion::made_again,
    },
    Scenario {
        name: "suspended",
        proves: "agents of a suspended tenant are refused, and come back with it",
        needs_node: true,
        long: true,
        after: &["install"],
        run: deletion::suspended,
    },
    Scenario {
        name: "by-hand",
        proves: "namespaces and the kind of the agents can be deleted by hand: nothing hangs, and they come back",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: deletion::by_hand,
    },
    Scenario {
        name: "upgrade",
        proves: "helm upgrade to the same version leaves hubs alone",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: release::upgrade,
    },
    Scenario {
        name: "both-lost",
        proves: "PostgreSQL and Kafka are lost, and restored as the runbook says",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: restore::both,
    },
    Scenario {
        name: "kafka-lost",
        proves: "Kafka is lost, and made again as the runbook says",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: restore::kafka,
    },
    Scenario {
        name: "postgres-restored",
        proves: "PostgreSQL is restored from a dump into version 17 as the runbook says",
        needs_node: true,
        long: true,
        after: &["tenant-ready"],
        run: restore::postgres,
    },
    Scenario {
        name: "uninstall",
        proves: "without the operator tenants, hubs and data stay, and it takes them up again",
        needs_node: true,
        long: false,
        after: &["tenant-ready"],
        run: release::uninstall,
    },
    Scenario {
        name: "operator-first",
        proves: "an operator that goes before its tenants leaves what the guide's steps can remove",
        needs_node: true,
        long: true,
        after: &["uninstall"],
        run: release::operator_first,
    },
];

/// Names them.
pub(crate) fn list() {
    for scenario in SCENARIOS {
        let note = if scenario.long { " (with --all)" } else { "" };
        say(&format!("{:<18} {}{note}", scenario.name, scenario.proves));
    }
}

/// The named ones and what they build on, or those of an ordinary run.
fn choose(named: &[String], all: bool) -> Result<Vec<&'static Scenario>> {
    if let Some(name) = named.iter().find(|name| SCENARIOS.iter().all(|scenario| scenario.name != *name)) {
        return Err(Error::Missing(format!("there is no scenario {name}: `acb-e2e list` names them")));
    }
    let mut wanted: Vec<&str> = named.iter().map(String::as_str).collect();
    // Whatever a scenario builds on comes before it.
    for scenario in SCENARIOS.iter().rev() {
        if wanted.contains(&scenario.name) {
            wanted.extend(scenario.after);
        }
    }
    let chosen = |scenario: &&Scenario| if named.is_empty() { all || !scenario.long } else { wanted.contains(&scenario.name) };
    Ok(SCENARIOS.iter().filter(chosen).collect())
}

/// Runs them, on the cluster that is up or on one of their own.
pub(crate) fn run(place: &Place, all: bool, extent: Extent, named: &[String]) -> Result<ExitCode> {
    let chosen = choose(named, all)?;
    let found = State::load(place)?;
    let left_up = found.runs();
    let state = if left_up { found } else { cluster::up(place, extent)? };
    for lack in &state.lacks {
        say(&format!("no node: {lack}"));
    }
    let mut world = World { place: place.clone(), state, kubectl: Kubectl::admin(place) };
    let mut report = Report::default();
    for scenario in chosen {
        let row = run_one(&mut world, scenario, &report);
        let seconds = if row.status == Status::NotRun { String::new() } else { format!("{:5.1} s", row.seconds) };
        say(&format!("{:<8} {:<18} {seconds}", format!("{:?}", row.status).to_lowercase(), row.name));
        if let Some(message) = &row.message {
            say(&message.lines().map(|line| format!("         {line}\n")).collect::<String>());
        }
        report.scenarios.push(row);
        report.write(place)?;
    }
    let failed = report.count(Status::Failed);
    if failed > 0 {
        cluster::keep_logs(place, &world.state);
        say(&format!("logs: {}", place.logs().display()));
    }
    if !left_up {
        cluster::down(place)?;
    }
    // Again, and short: what ends a long output is what is read first.
    for row in &report.scenarios {
        if let (Status::Failed, Some(message)) = (row.status, &row.message) {
            say(&format!("failed   {:<18} {}", row.name, in_short(message)));
        }
    }
    let passed = report.count(Status::Passed);
    say(&format!("{passed} passed, {failed} failed, {} not run", report.count(Status::NotRun)));
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The beginning of a message, in one line.
fn in_short(message: &str) -> String {
    const SHORT: usize = 240;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHORT { line } else { line.chars().take(SHORT).collect::<String>() + " …" }
}

fn run_one(world: &mut World, scenario: &Scenario, before: &Report) -> Row {
    let row = |status, seconds, message| Row { name: scenario.name, status, seconds, message };
    let passed = |name: &&&str| before.scenarios.iter().any(|row| row.name == **name && row.status == Status::Passed);
    if scenario.needs_node && !world.state.lacks.is_empty() {
        return row(Status::NotRun, 0.0, Some("the machine has no node".to_owned()));
    }
    if let Some(missing) = scenario.after.iter().find(|name| !passed(name)) {
        return row(Status::NotRun, 0.0, Some(format!("it builds on {missing}, which did not pass")));
    }
    let start = Instant::now();
    match (scenario.run)(world) {
        Ok(()) => row(Status::Passed, start.elapsed().as_secs_f64(), None),
        Err(error) => row(Status::Failed, start.elapsed().as_secs_f64(), Some(error.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_letter() {
        assert_eq!(in_short("two\n  lines"), "two lines");
        let cut = in_short(&"ä".repeat(500));
        assert_eq!((cut.chars().count(), cut.ends_with("ä …")), (242, true));
    }

    #[test]
    fn a_scenario_builds_on_earlier_ones_only() {
        for (index, scenario) in SCENARIOS.iter().enumerate() {
            for name in scenario.after {
                let known = SCENARIOS[..index].iter().find(|earlier| earlier.name == *name);
                assert!(known.is_some_and(|earlier| !earlier.long || scenario.long), "{} after {name}", scenario.name);
            }
        }
        assert!(choose(&["nothing".to_owned()], false).is_err());
    }
}
