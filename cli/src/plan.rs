//! `acb plan`: what would be done for a folder, before it is.

use std::path::PathBuf;

use acb_crds::schema;
use acb_operator::{
    preview::{Against, Report, question::Question},
    runtime::standalone::{preview, preview::PreviewError, resources::Resources, state::StateDir},
};
use clap::Args;

use crate::{
    cluster::{
        ClusterArgs,
        planner::{self, PlannerArgs},
    },
    output::{self, Exit, Failure, Output},
    standalone::State,
};

/// What to plan for.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// Folder of YAML files, or one file. On a cluster what is not in it stays as it is.
    #[arg(short, long, value_name = "DIR")]
    file: PathBuf,
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    planner: PlannerArgs,
}

/// Plans.
pub(crate) async fn run(args: &PlanArgs, output: Output) -> Result<(), Failure> {
    let report = if args.cluster.is_given() { on_cluster(args).await? } else { standalone(args).await? };
    match output {
        Output::Json => output::json(&report)?,
        Output::Table => output::line(report.to_string().trim_end())?,
    }
    match (report.has_refusals(), report.has_changes()) {
        (true, _) => Err(Failure::failed("some resources are refused; nothing of those would be applied")),
        (false, true) => Err(Failure::new(Exit::Usage, "")),
        (false, false) => Ok(()),
    }
}

async fn standalone(args: &PlanArgs) -> Result<Report, Failure> {
    let state = StateDir::existing(&args.state.path()).ok();
    preview::preview(&args.file, state.as_ref()).await.map_err(|error| match error {
        PreviewError::World(error) if error.is_transient() => Failure::new(Exit::Unavailable, error),
        error => Failure::failed(error),
    })
}

async fn on_cluster(args: &PlanArgs) -> Result<Report, Failure> {
    let loaded = schema::collect(&Resources::read_files(&args.file).map_err(Failure::failed)?);
    let objects = loaded.resources.iter().map(|(_, resource)| resource.to_value()).collect::<Result<_, _>>();
    let question = Question { objects: objects.map_err(Failure::failed)? };
    let mut report = if question.objects.is_empty() {
        Report { against: Against::Cluster, ..Report::default() }
    } else {
        planner::ask(&args.cluster.place().open().await?, &args.planner, &question).await?
    };
    // What no API server would take was not asked about.
    report.refused.extend(loaded.errors.iter().map(ToString::to_string));
    Ok(report)
}
