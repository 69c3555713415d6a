//! `acb plan`: what would be done for a folder, before it is.

use std::path::PathBuf;

use acb_operator::runtime::standalone::{preview, preview::PreviewError, state::StateDir};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    output::{self, Exit, Failure, Output},
    standalone::State,
};

/// What to plan for.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// Folder of YAML files, or one file.
    #[arg(short, long, value_name = "DIR")]
    file: PathBuf,
    #[command(flatten)]
    state: State,
}

/// Plans.
pub(crate) async fn run(args: &PlanArgs, output: Output) -> Result<(), Failure> {
    let state = StateDir::existing(&args.state.path()).ok();
    let preview = preview::preview(&args.file, state.as_ref()).await.map_err(|error| match error {
        PreviewError::World(error) if error.is_transient() => Failure::new(Exit::Unavailable, error),
        error => Failure::failed(error),
    })?;
    let wrong = !preview.refused.is_empty() || preview.objects.iter().any(|(_, plan)| plan.is_err());
    let changes = !preview.removed.is_empty()
        || preview.objects.iter().any(|(_, plan)| plan.as_ref().is_ok_and(|plan| !plan.steps.is_empty()));
    match output {
        Output::Json => output::json(&as_json(&preview))?,
        Output::Table => print(&preview)?,
    }
    match (wrong, changes) {
        (true, _) => Err(Failure::failed("some resources are refused; nothing of those would be applied")),
        (false, true) => Err(Failure::new(Exit::Usage, "")),
        (false, false) => Ok(()),
    }
}

fn as_json(preview: &preview::Preview) -> Value {
    let object = |(object, plan): &(acb_crds::schema::ObjectRef, Result<acb_operator::plan::Plan, _>)| {
        let problems = |problems: &Vec<acb_operator::condition::Problem>| {
            problems
                .iter()
                .map(|problem| json!({"field": problem.field, "reason": problem.reason.to_string(), "message": problem.message}))
                .collect::<Vec<_>>()
        };
        let base = json!({"kind": object.kind.as_str(), "namespace": object.namespace, "name": object.name});
        let mut value = base;
        match plan {
            Ok(plan) => value["steps"] = json!(plan.steps),
            Err(found) => value["problems"] = json!(problems(found)),
        }
        value
    };
    json!({
        "against": if preview.live { "live" } else { "nothing" },
        "objects": preview.objects.iter().map(object).collect::<Vec<_>>(),
        "removed": preview.removed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "refused": preview.refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn print(preview: &preview::Preview) -> Result<(), Failure> {
    if !preview.live {
        output::line("No `acb dev` runs on this state: the plan starts from nothing.\n")?;
    }
    for (object, plan) in &preview.objects {
        match plan {
            Ok(plan) if plan.steps.is_empty() => output::line(format!("{object}: no change"))?,
            Ok(plan) => {
                output::line(format!("{object}: {} steps", plan.steps.len()))?;
                for line in plan.to_string().lines() {
                    output::line(format!("  {line}"))?;
                }
            }
            Err(problems) => {
                output::line(format!("{object}: refused"))?;
                problems.iter().try_for_each(|problem| output::line(format!("  ! {problem}")))?;
            }
        }
    }
    preview.removed.iter().try_for_each(|object| output::line(format!("{object}: no longer in the folder; would be removed")))?;
    preview.refused.iter().try_for_each(|refused| output::line(format!("! {refused}")))
}
