//! Runs the attacks, and shows how they ended.

use acb_isolation::{Attacker, Report, Row, Victim};

use crate::output::{self, Failure, Output};

/// `ended` is told of each attack as it ends.
pub(super) async fn attack(attacker: &Attacker, victims: &[Victim], output: Output, mut ended: impl FnMut(&Row)) -> Report {
    let told = |row: &Row| {
        ended(row);
        if !output.is_document() {
            let verdict = if row.outcome.is_refused() { "refused" } else { "NOT REFUSED" };
            // The table after it has everything again, for a reader that went away.
            let _ = output::line(format!("{:<12} {:<36} {}", verdict, row.attack, row.prize));
        }
    };
    acb_isolation::run(attacker, victims, told).await
}

pub(super) fn say(report: &Report, output: Output) -> Result<(), Failure> {
    match output {
        Output::Document(syntax) => syntax.document(report)?,
        Output::Table { .. } => {
            for row in report.breaches() {
                output::line(format!("{} against {}: {:?}", row.attack, row.victim, row.outcome))?;
            }
            output::line(format!("\n{} of {} attacks were refused", report.refused(), report.attempts()))?;
        }
    }
    Ok(())
}
