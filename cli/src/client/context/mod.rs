//! Contexts: what there is, what is in one, its next version; files into contexts, and contexts into files.

pub(super) mod changes;
mod description;
mod pull;
mod push;
mod share;
mod transfer;
mod view;

use std::path::PathBuf;

use acb_sdk::{Code, Context, Scope, system_time};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use self::view::{named, scope, updated, view};
use super::{Target, payload, refused};
use crate::output::{self, Exit, Failure, Output};

/// Shares, lists, shows, updates, deletes and transfers contexts. `acb watch --contexts` follows their changes.
#[derive(Debug, clap::Args)]
pub(crate) struct Contexts {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ContextCommand {
    /// Shares a file, or the standard input, as a context: inline up to 1 MiB, streamed up to 100 MiB.
    Share(share::Share),
    /// Lists contexts that this agent may read.
    #[command(visible_alias = "ls")]
    List(List),
    /// Shows one, with its payload where that is inline. A streamed one is fetched with `acb context pull`.
    Get(Get),
    /// Streams a file of at most 100 MiB into a context; goes on by itself where the connection breaks.
    Push(push::Push),
    /// Fetches the payload of a context into a file, and verifies it.
    Pull(pull::Pull),
    /// Makes the next version of one of this agent's own.
    Update(Update),
    /// Says anew who may read one of this agent's own: gives it to agents or groups, or takes it back.
    Access(AccessOf),
    /// Deletes some of this agent's own.
    #[command(visible_alias = "rm")]
    Delete(Delete),
}

impl Contexts {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        match self.command {
            ContextCommand::Share(share) => share.run(output).await,
            ContextCommand::Push(push) => push.run(output).await,
            ContextCommand::Pull(pull) => pull.run(output).await,
            ContextCommand::List(list) => list.run(output).await,
            ContextCommand::Get(get) => get.run(output).await,
            ContextCommand::Update(update) => update.run(output).await,
            ContextCommand::Access(access) => access.run(output).await,
            ContextCommand::Delete(delete) => delete.run(output).await,
        }
    }
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    target: Target,
    /// Only those of this context type.
    #[arg(long)]
    r#type: Option<String>,
    /// Only those that match: a CEL expression, such as `context.metadata["priority"] == "high" && context.size < 65536`.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// At most so many: the oldest.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

impl List {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let contexts = client.contexts_matching(&self.r#type.unwrap_or_default(), &self.filter.unwrap_or_default());
        let contexts: Vec<Context> =
            contexts.take(self.limit.unwrap_or(usize::MAX)).try_collect().await.map_err(|error| refused("contexts", &error))?;
        match output {
            Output::Document(syntax) => syntax.document(&contexts.iter().map(view).collect::<Vec<_>>()),
            Output::Table { .. } => output::table(
                &["ID", "TYPE", "CREATOR", "VERSION", "SIZE", "SCOPE", "UPDATED"],
                contexts
                    .into_iter()
                    .map(|context| {
                        let (scope, updated) = (scope(&context), updated(&context));
                        let (version, size) = (context.version.to_string(), context.size.to_string());
                        vec![context.id, context.r#type, context.creator, version, size, scope, updated]
                    })
                    .collect(),
            ),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Get {
    #[command(flatten)]
    target: Target,
    /// Its id.
    id: String,
}

impl Get {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let context = client.context(&self.id).await.map_err(|error| refused(&named(&self.id), &error))?;
        if let Output::Document(syntax) = output {
            let mut view = view(&context);
            match &context.payload_ref {
                Some(chunks) => view["payloadRef"] = json!({"backend": chunks.backend, "chunks": chunks.chunk_count}),
                None => payload::attach(&mut view, &context.payload),
            }
            return syntax.document(&view);
        }
        let time = |at| system_time(at).map(payload::time).unwrap_or_default();
        let mut rows = vec![
            ("id", context.id.clone()),
            ("type", context.r#type.clone()),
            ("creator", context.creator.clone()),
            ("version", context.version.to_string()),
            ("size", context.size.to_string()),
            ("content type", context.content_type.clone()),
            ("scope", scope(&context)),
            ("created", time(context.created_at)),
            ("updated", time(context.updated_at)),
        ];
        if context.expires_at.is_some() {
            rows.push(("expires", time(context.expires_at)));
        }
        let metadata: std::collections::BTreeMap<_, _> = context.metadata.iter().collect();
        let metadata = metadata.into_iter().map(|(key, value)| vec![format!("metadata {key}"), value.clone()]);
        let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).chain(metadata).collect();
        output::table(&["FIELD", "VALUE"], rows)?;
        match &context.payload_ref {
            Some(_) => output::line(format_args!("\nIts payload is streamed: fetch it with `acb context pull {}`.", context.id)),
            None => output::line(format_args!("\n{}", payload::printable(&context.payload))),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Update {
    #[command(flatten)]
    target: Target,
    /// Its id.
    id: String,
    /// A file with the new payload; `-` is the standard input [default: the payload stays].
    file: Option<PathBuf>,
    /// The version that the update is made from: it fails where that is no longer the current one [default: whichever is].
    #[arg(long)]
    if_version: Option<u64>,
    /// Sets an entry of the metadata, as key=value; may be repeated. Others stay.
    #[arg(long, value_parser = payload::pair)]
    metadata: Vec<(String, String)>,
    /// Removes an entry of the metadata; may be repeated.
    #[arg(long, value_name = "KEY")]
    remove_metadata: Vec<String>,
    /// What the payload is [default: as before].
    #[arg(long)]
    content_type: Option<String>,
    /// Deleted after this time from now on, such as 1h [default: the expiry stays].
    #[arg(long, value_parser = payload::duration)]
    ttl: Option<std::time::Duration>,
}

impl Update {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let object = named(&self.id);
        let given = self.file.as_deref().map(payload::file).transpose()?;
        let client = self.target.connect().await?;
        let mut read = client.context(&self.id).await.map_err(|error| refused(&object, &error))?;
        let payload = match given {
            Some(payload) => payload.into(),
            None if read.payload_ref.is_some() => {
                let message =
                    format!("{object}: its payload is streamed and can't be kept by an update: give a file with the new one");
                return Err(Failure::new(Exit::Usage, message));
            }
            None => read.payload.clone(),
        };
        read.version = self.if_version.unwrap_or(read.version);
        let mut update = client.update(&read, payload);
        for (key, value) in self.metadata {
            update = update.metadata(key, value);
        }
        for key in &self.remove_metadata {
            update = update.without_metadata(key);
        }
        if let Some(content_type) = self.content_type {
            update = update.content_type(content_type);
        }
        if let Some(ttl) = self.ttl {
            update = update.ttl(ttl);
        }
        let updated = update.send().await.map_err(|error| match error.code() {
            Code::Aborted => Failure::failed(format_args!("{object}: {error}; see it with `acb context get {}`", self.id)),
            _ => refused(&object, &error),
        })?;
        match output {
            Output::Document(syntax) => syntax.document(&view(&updated)),
            Output::Table { .. } => {
                output::line(format_args!("Updated {} to version {} ({} bytes).", updated.id, updated.version, updated.size))
            }
        }
    }
}

#[derive(Debug, clap::Args)]
struct AccessOf {
    #[command(flatten)]
    target: Target,
    /// Its id.
    id: String,
    /// Who may read it from now on: public, private, group:a,b or shared:agent-a,agent-b.
    #[arg(value_parser = payload::scope)]
    scope: Scope,
}

impl AccessOf {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let context = client.set_access(&self.id, self.scope).await.map_err(|error| refused(&named(&self.id), &error))?;
        match output {
            Output::Document(syntax) => syntax.document(&view(&context)),
            Output::Table { .. } => {
                output::line(format_args!("{} is {} since version {}.", context.id, scope(&context), context.version))
            }
        }
    }
}

#[derive(Debug, clap::Args)]
struct Delete {
    #[command(flatten)]
    target: Target,
    /// Their ids.
    #[arg(required = true)]
    ids: Vec<String>,
}

impl Delete {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        for id in &self.ids {
            client.delete_context(id).await.map_err(|error| refused(&named(id), &error))?;
            match output {
                Output::Document(syntax) => syntax.record(&json!({"deleted": id}))?,
                Output::Table { .. } => output::line(format_args!("Deleted {id}."))?,
            }
        }
        Ok(())
    }
}
