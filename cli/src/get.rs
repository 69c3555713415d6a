//! `acb get`: resources and their status, as the state folder or a cluster has them.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use acb_crds::schema::Kind;
use acb_operator::{
    orphans::OrphanFound,
    runtime::standalone::{
        access::{self, Access},
        objects::ObjectStore,
    },
};
use clap::Args;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cluster::{
        Cluster,
        planner::{self, PlannerArgs},
    },
    output::{self, Exit, Failure, Output},
    platform::PlatformArgs,
    standalone::{self, State, endpoints, ready_condition, text},
    stop::Stop,
};

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_secs(1);

/// What to show.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// tenants, agents or quotas (also their short names tn, agt, qta); or orphans: what the operator of a cluster found that belongs to no Tenant.
    #[arg(value_parser = asked)]
    kind: Asked,
    /// Only this one; exit code 3 where it is not there [default: all].
    name: Option<String>,
    /// Only of this namespace [default: all].
    #[arg(short, long)]
    namespace: Option<String>,
    /// Goes on, and shows each again when it changes, until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    platform: PlatformArgs,
    #[command(flatten)]
    planner: PlannerArgs,
}

/// What is to be shown.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Resources(Kind),
    Orphans,
}

fn asked(name: &str) -> Result<Asked, String> {
    match name {
        "orphan" | "orphans" => Ok(Asked::Orphans),
        _ => Kind::find(name).map(Asked::Resources).ok_or_else(|| "use tenants, agents, quotas or orphans".to_owned()),
    }
}

/// Shows resources.
pub(crate) async fn run(args: &GetArgs, output: Output) -> Result<(), Failure> {
    args.platform.say(output);
    match args.kind {
        Asked::Orphans => orphans(args, output).await,
        Asked::Resources(kind) if args.watch => watch(args, kind, output).await,
        Asked::Resources(kind) => list(args, kind, output).await,
    }
}

/// Shows what the operator's last look found.
async fn orphans(args: &GetArgs, output: Output) -> Result<(), Failure> {
    if args.name.is_some() || args.namespace.is_some() || args.watch {
        return Err(Failure::new(Exit::Usage, "orphans have no name, no namespace, and change once an hour: leave these out"));
    }
    if !args.platform.is_cluster() {
        return Err(Failure::new(Exit::Usage, "orphans are looked for by the operator of a cluster: add --cluster"));
    }
    let cluster = args.platform.cluster.place().open().await?;
    let report = planner::orphans(&cluster, &args.planner).await?;
    match output {
        Output::Document(syntax) => syntax.document(&report),
        Output::Table { .. } => {
            let Some(at) = &report.looked_at else {
                return output::line("the operator has not looked yet: it does some seconds after it began to lead");
            };
            let row = |found: &OrphanFound| {
                let whose = if found.is_ours { "this cluster's" } else { "not known" };
                vec![found.system.as_str().to_owned(), whose.to_owned(), found.what.clone()]
            };
            if !report.orphans.is_empty() {
                output::table(&["SYSTEM", "WHOSE", "WHAT"], report.orphans.iter().map(row).collect())?;
            }
            let count = report.orphans.len();
            output::line(format_args!("{count} found {} ago; docs/day-two.md says what to do about each", since(at)))?;
            let away = report.away.iter().map(|system| system.as_str()).collect::<Vec<_>>().join(", ");
            if away.is_empty() {
                Ok(())
            } else {
                output::line(format_args!("not looked through, since it did not answer or no Tenant was ever here: {away}"))
            }
        }
    }
}

async fn list(args: &GetArgs, kind: Kind, output: Output) -> Result<(), Failure> {
    let source = args.source().await?;
    let (items, running) = source.items(args, kind).await?;
    if running == Some(false) {
        output::note(output, "acb dev is not running: this is what it saw last");
    }
    if let (Some(name), true) = (&args.name, items.is_empty()) {
        return Err(Failure::new(Exit::NotFound, format!("there is no {} {name}", kind)));
    }
    match (output, items.len(), &args.name) {
        (Output::Document(syntax), 1, Some(_)) => syntax.document(&items[0]),
        (Output::Document(syntax), ..) => {
            let mut list = json!({"kind": format!("{}List", kind), "items": items});
            // A cluster is there, or there is no answer.
            if let Some(running) = running {
                list["running"] = json!(running);
            }
            syntax.document(&list)
        }
        (Output::Table { wide }, ..) => {
            let columns = columns(kind, wide);
            output::table(&header(&columns), rows(&columns, &items))?;
            items.iter().try_for_each(explain)
        }
    }
}

/// Shows what there is, and then each that changes, as it is then.
async fn watch(args: &GetArgs, kind: Kind, output: Output) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let mut unread = pin!(output::unread());
    let mut shown: BTreeMap<String, Value> = BTreeMap::new();
    let mut widths = Vec::new();
    let source = args.source().await?;
    let mut is_away = false;
    loop {
        let looked = tokio::select! {
            looked = source.items(args, kind) => looked,
            () = stop.asked() => return Ok(()),
            failure = &mut unread => return Err(failure),
        };
        let (items, _) = match looked {
            Ok(looked) => looked,
            // It may answer again: who watches waits for that.
            Err(failure) if failure.is_transient() => {
                if !is_away {
                    output::note(output, &format!("{failure}; trying again"));
                }
                is_away = true;
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => continue,
                    () = stop.asked() => return Ok(()),
                }
            }
            Err(failure) => return Err(failure),
        };
        is_away = false;
        let mut now: BTreeMap<String, Value> = BTreeMap::new();
        for item in items {
            now.insert(format!("{}/{}", text(&item, "/metadata/namespace"), text(&item, "/metadata/name")), item);
        }
        let changed: Vec<&Value> = now.iter().filter(|(key, item)| shown.get(*key) != Some(item)).map(|(_, item)| item).collect();
        let gone = shown.iter().filter(|(key, _)| !now.contains_key(*key)).map(|(_, item)| item);
        match output {
            Output::Document(syntax) => {
                changed.iter().try_for_each(|item| syntax.record(item))?;
                gone.into_iter().try_for_each(|item| syntax.record(&json!({"deleted": item["metadata"]})))?;
            }
            Output::Table { wide } => {
                let columns = columns(kind, wide);
                let rows = rows(&columns, changed);
                if widths.is_empty() {
                    let header = header(&columns);
                    widths = output::widths(&header, &rows);
                    output::row(&widths, &header)?;
                }
                rows.iter().try_for_each(|row| output::row(&widths, row))?;
                gone.into_iter().try_for_each(|item| {
                    output::line(format_args!("{} is gone", output::printable(text(item, "/metadata/name"))))
                })?;
            }
        }
        shown = now;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.asked() => return Ok(()),
            failure = &mut unread => return Err(failure),
        }
    }
}

/// Where resources are read.
enum Source {
    Cluster(Box<Cluster>),
    Dev(State),
}

impl GetArgs {
    async fn source(&self) -> Result<Source, Failure> {
        Ok(if self.platform.is_cluster() {
            Source::Cluster(Box::new(self.platform.cluster.place().open().await?))
        } else {
            Source::Dev(self.platform.state.clone())
        })
    }
}

impl Source {
    /// What is asked for, and whether `acb dev` runs where it is asked.
    async fn items(&self, args: &GetArgs, kind: Kind) -> Result<(Vec<Value>, Option<bool>), Failure> {
        let (mut items, running) = match self {
            Self::Cluster(cluster) => (cluster.list(kind, args.namespace.as_deref()).await?, None),
            Self::Dev(state) => {
                let (items, running) = of_state(state, kind)?;
                (items, Some(running))
            }
        };
        items.retain(|object| {
            args.name.as_deref().is_none_or(|name| text(object, "/metadata/name") == name)
                && args.namespace.as_deref().is_none_or(|namespace| text(object, "/metadata/namespace") == namespace)
        });
        Ok((items, running))
    }
}

/// What the state folder has, and whether `acb dev` runs on it.
fn of_state(state: &State, kind: Kind) -> Result<(Vec<Value>, bool), Failure> {
    let state = state.existing()?;
    let store = ObjectStore::open(&state).map_err(Failure::failed)?;
    let accesses = access::read(&state).map_err(Failure::failed)?;
    let mut items: Vec<Value> = store.of_kind(kind.as_str()).map_err(Failure::failed)?;
    items.iter_mut().for_each(|item| attach(item, kind, &accesses));
    Ok((items, state.holder().is_some()))
}

/// How it is reached goes beside `status`, where no Kubernetes object has anything.
fn attach(item: &mut Value, kind: Kind, accesses: &BTreeMap<String, Access>) {
    match kind {
        Kind::Tenant => {
            if let Some(access) = accesses.get(text(item, "/metadata/name")) {
                item["access"] = json!(access);
            }
        }
        Kind::Agent => {
            let tenant = accesses.get(text(item, "/status/tenant"));
            let file = tenant.and_then(|access| access.api_key_files.get(text(item, "/metadata/name")));
            if let Some(file) = file {
                item["access"] = json!({"apiKeyFile": file});
            }
        }
        Kind::Quota => {}
    }
}

fn shown(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

/// A field of the condition `Ready`.
fn condition(item: &Value, field: &str) -> String {
    ready_condition(item).map_or_else(|| "-".to_owned(), |ready| text(ready, &format!("/{field}")).to_owned())
}

fn age(item: &Value) -> String {
    since(text(item, "/metadata/creationTimestamp"))
}

/// How long ago a time of RFC 3339 is, in the one unit that says enough.
pub(crate) fn since(time: &str) -> String {
    let Ok(time) = OffsetDateTime::parse(time, &Rfc3339) else { return "-".into() };
    let seconds = (OffsetDateTime::now_utc() - time).whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

type Column = (&'static str, fn(&Value) -> String);

/// A table's columns, as the kinds' own definitions have them.
fn columns(kind: Kind, wide: bool) -> Vec<Column> {
    let name: Column = ("NAME", |item| shown(item, "/metadata/name"));
    let namespace: Column = ("NAMESPACE", |item| shown(item, "/metadata/namespace"));
    let ready: Column = ("READY", |item| condition(item, "status"));
    let synced: Column =
        ("SYNCED", |item| standalone::condition(item, "Synced").map_or("-", |synced| text(synced, "/status")).to_owned());
    let reason: Column = ("REASON", |item| condition(item, "reason"));
    let agents: Column = ("AGENTS", |item| shown(item, "/status/agentCount"));
    let message: Column = ("MESSAGE", |item| condition(item, "message"));
    let age: Column = ("AGE", age);
    let (mut columns, further): (Vec<Column>, Vec<Column>) = match kind {
        Kind::Tenant => {
            let tier: Column = ("TIER", |item| shown(item, "/spec/tier"));
            let hub: Column = ("HUB", |item| match item.pointer("/status/hub") {
                Some(hub) => format!("{}/{}", shown(hub, "/readyReplicas"), shown(hub, "/replicas")),
                None => "-".to_owned(),
            });
            let version: Column = ("VERSION", |item| shown(item, "/status/hub/version"));
            let endpoints: Column = ("ENDPOINTS", |item| match endpoints(item) {
                addresses if addresses.is_empty() => "-".to_owned(),
                addresses => addresses.join(","),
            });
            let synced_at: Column = ("LAST SYNC", |item| since(text(item, "/status/lastSyncTime")));
            let id: Column = ("ID", |item| shown(item, "/status/tenantId"));
            let namespace: Column = ("NAMESPACE", |item| shown(item, "/status/namespace"));
            (
                vec![name, tier, ready, synced, reason, agents, hub, endpoints, age],
                vec![version, synced_at, id, namespace, message],
            )
        }
        Kind::Agent => {
            let role: Column = ("ROLE", |item| shown(item, "/spec/role"));
            // A file here, a Secret on a cluster.
            let key: Column = ("API KEY", |item| {
                shown(item, if item.get("access").is_some() { "/access/apiKeyFile" } else { "/status/apiKeySecret" })
            });
            let tenant: Column = ("TENANT", |item| shown(item, "/status/tenant"));
            let kind: Column = ("TYPE", |item| shown(item, "/spec/type"));
            let groups: Column = ("GROUPS", |item| shown(item, "/spec/groups"));
            (vec![namespace, name, role, ready, synced, reason, key, age], vec![tenant, kind, groups, message])
        }
        Kind::Quota => (vec![namespace, name, agents, ready, synced, reason, age], vec![message]),
    };
    if wide {
        columns.extend(further);
    }
    columns
}

fn header(columns: &[Column]) -> Vec<&'static str> {
    columns.iter().map(|(name, _)| *name).collect()
}

fn rows<'a>(columns: &[Column], items: impl IntoIterator<Item = &'a Value>) -> Vec<Vec<String>> {
    items.into_iter().map(|item| columns.iter().map(|(_, cell)| cell(item)).collect()).collect()
}

/// What is not as it should be, each reason once.
fn explain(item: &Value) -> Result<(), Failure> {
    let mut told: Vec<&str> = Vec::new();
    for (name, good) in [("Ready", "True"), ("Synced", "True"), ("Degraded", "False")] {
        let found = standalone::condition(item, name).filter(|found| text(found, "/status") != good);
        let Some(found) = found.filter(|found| !told.contains(&text(found, "/reason"))) else { continue };
        told.push(text(found, "/reason"));
        let line = format!("\n{}: {}: {}", shown(item, "/metadata/name"), text(found, "/reason"), text(found, "/message"));
        output::line(output::printable(&line))?;
    }
    if told.is_empty() && ready_condition(item).is_none() {
        output::line(output::printable(&format!("\n{}: nothing was said of it yet", shown(item, "/metadata/name"))))?;
    }
    Ok(())
}
