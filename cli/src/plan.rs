//! `acb plan`: what would be done for a folder, before it is.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use acb_crds::document::{self, Loaded};
use acb_operator::{
    preview::{Against, Report, question::Question},
    runtime::standalone::{preview, preview::PreviewError, resources::Resources, state::StateDir},
};
use clap::Args;

use crate::{
    cluster::planner::{self, PlannerArgs},
    output::{self, Exit, Failure, Output},
    platform::PlatformArgs,
};

/// What to plan for.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// Folder of YAML or JSON files with its subfolders, or one file; `-` is the standard input. Objects of other API groups are passed
    /// over. On a cluster what is not in it stays as it is.
    #[arg(short, long, value_name = "DIR")]
    file: PathBuf,
    #[command(flatten)]
    platform: PlatformArgs,
    #[command(flatten)]
    planner: PlannerArgs,
}

/// Plans.
pub(crate) async fn run(args: &PlanArgs, output: Output) -> Result<(), Failure> {
    args.platform.say(output);
    let loaded = load(args, output)?;
    let report = if args.platform.is_cluster() { on_cluster(args, loaded).await? } else { standalone(args, loaded).await? };
    match output {
        Output::Document(syntax) => syntax.document(&report)?,
        Output::Table { .. } => output::line(report.to_string().trim_end())?,
    }
    match (report.has_refusals(), report.has_changes()) {
        (true, _) => Err(Failure::failed("some resources are refused; nothing of those would be applied")),
        (false, true) => Err(Failure::new(Exit::Changes, "")),
        (false, false) => Ok(()),
    }
}

/// What is planned for. Nothing of ours in it is a mistake, and no plan without changes.
fn load(args: &PlanArgs, output: Output) -> Result<Loaded, Failure> {
    let loaded = if args.file == Path::new("-") {
        let mut text = String::new();
        let most = document::MAX_FILE_BYTES as u64 + 1;
        let read = std::io::stdin().lock().take(most).read_to_string(&mut text);
        read.map_err(|error| Failure::failed(format_args!("standard input: {error}")))?;
        document::collect(&[("standard input".to_owned(), text)])
    } else {
        Resources::load(&args.file).map_err(Failure::failed)?
    };
    loaded.notes().iter().for_each(|note| output::note(output, &output::printable(note)));
    if loaded.is_empty() {
        let message = format!("{}: no Tenant, Agent or Quota of {} is in it", args.file.display(), acb_crds::API_VERSION);
        return Err(Failure::new(Exit::NotFound, message));
    }
    Ok(loaded)
}

async fn standalone(args: &PlanArgs, loaded: Loaded) -> Result<Report, Failure> {
    let state = StateDir::existing(&args.platform.state.path()).ok();
    preview::preview(loaded, state.as_ref()).await.map_err(|error| match error {
        PreviewError::World(error) if error.is_transient() => Failure::new(Exit::Unavailable, error),
        error => Failure::failed(error),
    })
}

async fn on_cluster(args: &PlanArgs, loaded: Loaded) -> Result<Report, Failure> {
    let objects = loaded.resources.iter().map(|(_, resource)| resource.to_value()).collect::<Result<_, _>>();
    let question = Question { objects: objects.map_err(Failure::failed)? };
    let mut report = if question.objects.is_empty() {
        Report { against: Against::Cluster, ..Report::default() }
    } else {
        planner::ask(&args.platform.cluster.place().open().await?, &args.planner, &question).await?
    };
    // What no API server would take was not asked about.
    report.refused.extend(loaded.errors.iter().map(ToString::to_string));
    Ok(report)
}
