//! Runs the attacks, and shows how they ended.

use acb_isolation::{Attacker, Outcome, Report, Row, Victim};
use serde_json::json;

use crate::output::{self, Failure, Output};

/// `ended` is told of each attack as it ends.
pub(super) async fn attack(attacker: &Attacker, victims: &[Victim], output: Output, mut ended: impl FnMut(&Row)) -> Report {
    let told = |row: &Row| {
        ended(row);
        if !output.is_document() {
            let verdict = match &row.outcome {
                Outcome::Refused(_) => "refused",
                Outcome::Nothing(_) => "nothing there",
                Outcome::Succeeded(_) | Outcome::Inconclusive(_) => "NOT REFUSED",
            };
            // The table after it has everything again, for a reader that went away.
            let _ = output::line(format!("{:<14} {:<36} {}", verdict, row.attack, row.prize));
        }
    };
    acb_isolation::run(attacker, victims, told).await
}

pub(super) fn say(report: &Report, output: Output) -> Result<(), Failure> {
    match output {
        Output::Document(syntax) => syntax.document(&json!({
            "rows": report.rows,
            "counts": {
                "attacks": report.attempts(), "refused": report.refused(), "nothing": report.nothing(),
                "notRefused": report.breaches().count(),
            },
        }))?,
        Output::Table { .. } => {
            for row in report.breaches() {
                output::line(format!("{} against {}: {:?}", row.attack, row.victim, row.outcome))?;
            }
            output::line(format!("\n{} of {} attacks were refused", report.refused(), report.attempts()))?;
            if report.nothing() > 0 {
                output::line(format!("{} had nothing to be tried on, and show nothing:", report.nothing()))?;
            }
            for row in &report.rows {
                if let Outcome::Nothing(why) = &row.outcome {
                    output::line(format!("  {} against {}: {why}", row.attack, row.victim))?;
                }
            }
        }
    }
    Ok(())
}
