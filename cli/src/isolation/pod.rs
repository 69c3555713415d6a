//! As a Job on a cluster: what the hub has is mounted, whom to attack is in the environment, and what came of it is for the kubelet to tell.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use acb_crds::tenant::IsolationStatus;
use acb_isolation::{Attacker, HubAccess, KafkaAccess, Outcome, PostgresAccess, Report, Row, Victim};
use acb_operator::tenant::isolation::{self, MISSION, MOST_KEPT, MOST_TOLD, Mission, Neighbour, PROGRAM_SECONDS, TOLD};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::{
    arguments::{IsolationArgs, NONEXISTENT},
    report::{attack, say},
};
use crate::output::{Failure, Output};

/// The attacks together take no longer.
const PROGRAM_WITHIN: Duration = Duration::from_secs(PROGRAM_SECONDS);
/// Of what an attack got, or of why it proved nothing.
const SHORT: usize = 120;
/// Whoever does not take a connection within this is out of reach.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// Attacks, and tells. Fails only where nothing could be tried: what was not refused is in what is told.
pub(super) async fn run(args: &IsolationArgs, output: Output) -> Result<(), Failure> {
    let told = args.told.clone().unwrap_or_else(|| PathBuf::from(TOLD));
    let tried = tried(args, &told, output).await;
    let found = match &tried {
        Ok(found) => found.clone(),
        Err(failure) => IsolationStatus { failure: Some(failure.to_string()), ..IsolationStatus::default() },
    };
    fs::write(&told, message(found)).map_err(|error| Failure::failed(format!("{}: {error}", told.display())))?;
    tried.map(drop)
}

async fn tried(args: &IsolationArgs, told: &Path, output: Output) -> Result<IsolationStatus, Failure> {
    let text =
        env::var(MISSION).map_err(|error| Failure::failed(format!("{MISSION}: {error}: the operator sets it in its Job")))?;
    let mission: Mission = serde_json::from_str(&text).map_err(|error| Failure::failed(format!("{MISSION}: {error}")))?;
    let folder = PathBuf::from(env::var_os("ACB_CONFIG_DIR").unwrap_or_else(|| "/etc/acb".into()));
    let attacker = attacker(&args.tenant, &mission, &folder)?;
    let (mut victims, mut unreached) = (Vec::new(), Vec::new());
    for neighbour in &mission.neighbours {
        let mut victim = victim(neighbour, args);
        if !is_reached(&neighbour.endpoints).await {
            victim.hub_endpoints.clear();
            unreached.push(neighbour.tenant.clone());
        }
        victims.push(victim);
    }
    let base = IsolationStatus {
        unreached,
        neighbours: mission.neighbours.into_iter().map(|found| found.tenant).collect(),
        ..IsolationStatus::default()
    };
    let mut so_far = SoFar { base, rows: Vec::new(), told };
    let attacks = attack(&attacker, &victims, output, |row| so_far.add(row));
    let ended = timeout(PROGRAM_WITHIN, attacks).await;
    let (report, failure) = match ended {
        Ok(report) => (report, None),
        Err(_) => {
            (Report { rows: so_far.rows }, Some(format!("not all attacks were made within {} s", PROGRAM_WITHIN.as_secs())))
        }
    };
    say(&report, output)?;
    Ok(IsolationStatus { failure, ..summary(&report, so_far.base) })
}

/// What came of it until now. A breach is told at once: whatever ends this program then, it is known.
struct SoFar<'a> {
    base: IsolationStatus,
    rows: Vec<Row>,
    told: &'a Path,
}

impl SoFar<'_> {
    fn add(&mut self, row: &Row) {
        self.rows.push(row.clone());
        if !matches!(row.outcome, Outcome::Succeeded(_)) {
            return;
        }
        let failure = Some("its program ended before all attacks were made".to_owned());
        let report = Report { rows: self.rows.clone() };
        let found = IsolationStatus { failure, ..summary(&report, self.base.clone()) };
        // At the end it is written once more, and there it fails where it can't be.
        let _ = fs::write(self.told, message(found));
    }
}

/// Whether one of these takes a connection: where none does, the network is the wall.
async fn is_reached(addresses: &[String]) -> bool {
    for address in addresses {
        if matches!(timeout(CONNECTED_WITHIN, TcpStream::connect(address)).await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}

fn attacker(tenant: &str, mission: &Mission, folder: &Path) -> Result<Attacker, Failure> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
    };
    let line = |name: &str| read(name).map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    let optional = |name: &str| folder.join(name).is_file().then(|| read(name)).transpose();
    let config: Value = serde_json::from_str(&read("config/hub.json")?).map_err(Failure::failed)?;
    let text = |pointer: &str| {
        let text = config.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        text.ok_or_else(|| Failure::failed(format!("hub.json has no {pointer}: is it of another version?")))
    };
    let port = config.pointer("/postgres/port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let kafka = match text("/bus/kind")?.as_str() {
        "kafka" => Some(KafkaAccess {
            bootstrap_servers: text("/bus/bootstrapServers")?,
            ca_pem: optional("kafka/ca.crt")?,
            username: line("kafka/username")?,
            password: line("kafka/password")?,
        }),
        _ => None,
    };
    Ok(Attacker {
        tenant: tenant.to_owned(),
        tenant_id: mission.tenant_id.clone(),
        hub: HubAccess {
            endpoints: urls(&mission.endpoints),
            ca_pem: read("tls/ca.crt")?,
            api_key: None,
            signing_key: Some(read("keys/signing.key")?),
        },
        postgres: PostgresAccess {
            host: text("/postgres/host")?,
            port: port.ok_or_else(|| Failure::failed("hub.json names no port of PostgreSQL"))?,
            database: text("/postgres/database")?,
            username: line("postgres/username")?,
            password: line("postgres/password")?,
            ssl_mode: text("/postgres/sslMode")?,
            ca_pem: optional("postgres/ca.crt")?,
        },
        kafka,
        // It has nobody else's login.
        witnesses: Vec::new(),
    })
}

fn victim(neighbour: &Neighbour, args: &IsolationArgs) -> Victim {
    Victim {
        tenant: neighbour.tenant.clone(),
        tenant_id: neighbour.tenant_id.clone(),
        hub_endpoints: urls(&neighbour.endpoints),
        ca_pem: neighbour.authority.clone(),
        agent: neighbour.agent.clone(),
        group: neighbour.group.clone(),
        context_type: neighbour.context_type.clone(),
        context_id: args.context.unwrap_or(NONEXISTENT).to_string(),
        upload_id: args.upload.unwrap_or(NONEXISTENT).to_string(),
        invented: args.invented().collect(),
    }
}

fn urls(addresses: &[String]) -> Vec<String> {
    addresses.iter().map(|address| format!("https://{address}")).collect()
}

fn summary(report: &Report, base: IsolationStatus) -> IsolationStatus {
    let named = |wanted: fn(&Outcome) -> Option<&String>| {
        let rows = report.rows.iter().filter_map(|row| Some(shown(row, wanted(&row.outcome)?)));
        rows.take(MOST_KEPT).collect::<Vec<_>>()
    };
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    IsolationStatus {
        attacks: count(report.attempts()),
        refused: count(report.refused()),
        nothing: count(report.nothing()),
        succeeded: named(|outcome| match outcome {
            Outcome::Succeeded(got) => Some(got),
            _ => None,
        }),
        inconclusive: named(|outcome| match outcome {
            Outcome::Inconclusive(why) => Some(why),
            _ => None,
        }),
        ..base
    }
}

fn shown(row: &Row, what: &str) -> String {
    // On one line, and without what a server may have put into it for whoever reads it.
    let what: String = what.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(SHORT).collect();
    isolation::line(&row.attack, &row.victim, &what)
}

/// The text, no longer than the kubelet keeps: what is cut is no JSON. What matters least goes first.
fn message(mut found: IsolationStatus) -> String {
    if let Some(failure) = &mut found.failure {
        *failure = failure.chars().take(300).collect();
    }
    loop {
        let text = serde_json::to_string(&found).unwrap_or_default();
        let lists = [&mut found.inconclusive, &mut found.unreached, &mut found.neighbours, &mut found.succeeded];
        let keep = |index: usize| usize::from(index == 3 || index == 0);
        let longest = lists.into_iter().enumerate().find(|(index, list)| list.len() > keep(*index));
        match longest {
            Some((_, list)) if text.len() > MOST_TOLD => drop(list.pop()),
            _ => return text,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use acb_isolation::Wall;

    use super::*;

    fn row(outcome: Outcome) -> Row {
        Row { attack: "postgres.read.agent".into(), wall: Wall::Postgres, victim: "globex".into(), prize: "rows".into(), outcome }
    }

    #[test]
    fn what_is_told_fits_whatever_was_found_and_keeps_what_got_through() {
        let many = |outcome: fn(String) -> Outcome| std::iter::repeat_with(move || row(outcome("ä\n".repeat(5000)))).take(3000);
        let report = Report { rows: many(Outcome::Succeeded).chain(many(Outcome::Inconclusive)).collect() };
        let names: Vec<String> = (0..500).map(|number| format!("{number}-{}", "n".repeat(36))).collect();
        let found = IsolationStatus {
            neighbours: names.clone(),
            unreached: names,
            failure: Some("x".repeat(10_000)),
            ..summary(&report, IsolationStatus::default())
        };
        let text = message(found);
        assert!(text.len() <= MOST_TOLD, "{}", text.len());
        let read: IsolationStatus = serde_json::from_str(&text).unwrap();
        assert_eq!((read.attacks, read.refused), (6000, 0));
        assert!(!read.succeeded.is_empty() && !read.inconclusive.is_empty());
        assert!(
            read.succeeded.iter().all(|line| !line.contains('\n') && line.starts_with("postgres.read.agent against globex: "))
        );
    }

    #[test]
    fn refused_attacks_are_counted_and_not_named() {
        let nothing = row(Outcome::Nothing("no rows".into()));
        let rows = vec![row(Outcome::Refused("42501".into())), nothing, row(Outcome::Succeeded("3 rows".into()))];
        let found = summary(&Report { rows }, IsolationStatus::default());
        assert_eq!((found.attacks, found.refused, found.nothing), (3, 1, 1));
        assert_eq!(found.succeeded, ["postgres.read.agent against globex: 3 rows"]);
        assert!(found.inconclusive.is_empty());
    }

    #[test]
    fn a_breach_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("told");
        let base = IsolationStatus { neighbours: vec!["globex".into()], ..IsolationStatus::default() };
        let mut so_far = SoFar { base, rows: Vec::new(), told: &told };
        so_far.add(&row(Outcome::Refused("42501".into())));
        assert!(!told.exists());
        so_far.add(&row(Outcome::Succeeded("3 rows".into())));
        let read: IsolationStatus = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
        assert_eq!((read.attacks, read.refused, read.neighbours), (2, 1, vec!["globex".to_owned()]));
        assert_eq!(read.succeeded, ["postgres.read.agent against globex: 3 rows"]);
        assert!(read.failure.unwrap().contains("before all attacks were made"));
    }
}
