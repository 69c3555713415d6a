//! `acb get`: resources and their status, as the state folder or a cluster has them.

use std::collections::BTreeMap;

use acb_crds::schema::Kind;
use acb_operator::runtime::standalone::{
    access::{self, Access},
    objects::ObjectStore,
};
use clap::Args;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cluster::ClusterArgs,
    output::{self, Exit, Failure, Output},
    standalone::{State, ready_condition, text},
};

/// What to show.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// tenants, agents or quotas (also their short names tn, agt, qta).
    #[arg(value_parser = kind)]
    kind: Kind,
    /// Only this one; exit code 3 where it is not there [default: all].
    name: Option<String>,
    /// Only of this namespace [default: all].
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    cluster: ClusterArgs,
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::find(name).ok_or_else(|| "use tenants, agents or quotas".to_owned())
}

type Row = fn(&Value) -> Vec<String>;

/// Shows resources.
pub(crate) async fn run(args: &GetArgs, output: Output) -> Result<(), Failure> {
    let (mut items, running) = if args.cluster.is_given() {
        (args.cluster.place().open().await?.list(args.kind, args.namespace.as_deref()).await?, None)
    } else {
        let (items, running) = standalone(args)?;
        if !running {
            output::note(output, "acb dev is not running: this is what it saw last");
        }
        (items, Some(running))
    };
    let is_wanted = |object: &Value| {
        args.name.as_deref().is_none_or(|name| text(object, "/metadata/name") == name)
            && args.namespace.as_deref().is_none_or(|namespace| text(object, "/metadata/namespace") == namespace)
    };
    items.retain(is_wanted);
    if let (Some(name), true) = (&args.name, items.is_empty()) {
        return Err(Failure::new(Exit::NotFound, format!("there is no {} {name}", args.kind)));
    }
    match (output, items.len(), &args.name) {
        (Output::Json, 1, Some(_)) => output::json(&items[0]),
        (Output::Json, ..) => {
            let mut list = json!({"kind": format!("{}List", args.kind), "items": items});
            // A cluster is there, or there is no answer.
            if let Some(running) = running {
                list["running"] = json!(running);
            }
            output::json(&list)
        }
        (Output::Table, ..) => {
            let (header, row): (&[&str], Row) = match args.kind {
                Kind::Tenant => (&["NAME", "TIER", "READY", "REASON", "AGENTS", "ENDPOINTS", "AGE"], tenant_row),
                Kind::Agent => (&["NAMESPACE", "NAME", "ROLE", "READY", "REASON", "API KEY", "AGE"], agent_row),
                Kind::Quota => (&["NAMESPACE", "NAME", "AGENTS", "READY", "REASON", "AGE"], quota_row),
            };
            output::table(header, items.iter().map(row).collect())?;
            items.iter().filter(|item| condition(item, "status") != "True").try_for_each(explain)
        }
    }
}

/// What the state folder has, and whether `acb dev` runs on it.
fn standalone(args: &GetArgs) -> Result<(Vec<Value>, bool), Failure> {
    let state = args.state.existing()?;
    let store = ObjectStore::open(&state).map_err(Failure::failed)?;
    let accesses = access::read(&state).map_err(Failure::failed)?;
    let mut items: Vec<Value> = store.of_kind(args.kind.as_str()).map_err(Failure::failed)?;
    items.iter_mut().for_each(|item| attach(item, args.kind, &accesses));
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
    let Ok(created) = OffsetDateTime::parse(text(item, "/metadata/creationTimestamp"), &Rfc3339) else { return "-".into() };
    let seconds = (OffsetDateTime::now_utc() - created).whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn tenant_row(item: &Value) -> Vec<String> {
    vec![
        shown(item, "/metadata/name"),
        shown(item, "/spec/tier"),
        condition(item, "status"),
        condition(item, "reason"),
        shown(item, "/status/agents"),
        shown(item, "/status/endpoints/grpc"),
        age(item),
    ]
}

fn agent_row(item: &Value) -> Vec<String> {
    // A file here, a Secret on a cluster.
    let key = if item.get("access").is_some() { "/access/apiKeyFile" } else { "/status/apiKeySecret" };
    vec![
        shown(item, "/metadata/namespace"),
        shown(item, "/metadata/name"),
        shown(item, "/spec/role"),
        condition(item, "status"),
        condition(item, "reason"),
        shown(item, key),
        age(item),
    ]
}

fn quota_row(item: &Value) -> Vec<String> {
    vec![
        shown(item, "/metadata/namespace"),
        shown(item, "/metadata/name"),
        shown(item, "/status/agents"),
        condition(item, "status"),
        condition(item, "reason"),
        age(item),
    ]
}

fn explain(item: &Value) -> Result<(), Failure> {
    output::line(format!("\n{}: {}", shown(item, "/metadata/name"), condition(item, "message")))
}
