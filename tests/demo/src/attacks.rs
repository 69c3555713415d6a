//! The other tenant tries to read it all, with its own credentials: `acb isolation`, as anyone can run it.

use acb_isolation::Report;

use crate::{
    Failure,
    event::{Event, Recorder},
    stage::Stage,
    stream::Streamed,
    tell,
};

pub(crate) async fn run(stage: &Stage, streamed: &Streamed, recorder: &Recorder) -> Result<Report, Failure> {
    tell("globex tries to read it all: through the hub, through PostgreSQL, and through Kafka where it is used");
    let arguments = [
        "isolation",
        "globex",
        "--against",
        "acme",
        "--context",
        &streamed.context_id,
        "--upload",
        &streamed.upload_id,
        "--output",
        "json",
    ];
    let report: Report = stage.acb_json(&arguments).await?;
    for row in &report.rows {
        if !row.outcome.is_refused() && !row.outcome.is_nothing() {
            tell(format!("  NOT REFUSED  {:<34} {:?}", row.attack, row.outcome));
        }
        recorder.record(Event::Attacked { row: row.clone() })?;
    }
    let (refused, nothing) = (report.refused(), report.nothing());
    tell(format!("  {refused} of {} attacks were refused, {nothing} had nothing to be tried on", report.attempts()));
    Ok(report)
}
