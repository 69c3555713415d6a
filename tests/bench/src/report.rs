//! `target/bench/report.json`, and the same as a table.

use std::{fmt::Write as _, fs, path::Path};

use serde::Serialize;

use crate::Failure;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// One figure. A goal is the most that it may be, or the least where that is said.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    against: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    goal: Option<f64>,
    #[serde(rename = "atLeast", skip_serializing_if = "std::ops::Not::not")]
    at_least: bool,
    met: Option<bool>,
}

impl Report {
    /// A figure against another one.
    pub(crate) fn ratio(&mut self, what: impl Into<String>, against: &str, (value, other): (f64, f64), goal: f64) {
        let ratio = rounded(value / other);
        self.rows.push(Row {
            what: what.into(),
            against: Some(against.to_owned()),
            ratio: Some(ratio),
            value: None,
            unit: None,
            goal: Some(goal),
            at_least: false,
            met: Some(ratio <= goal),
        });
    }

    /// A figure against another one, that is to be `goal` at least.
    pub(crate) fn at_least_ratio(&mut self, what: impl Into<String>, against: &str, (value, other): (f64, f64), goal: f64) {
        self.ratio(what, against, (value, other), goal);
        if let Some(row) = self.rows.last_mut() {
            (row.at_least, row.met) = (true, row.ratio.map(|ratio| ratio >= goal));
        }
    }

    /// A figure that may be `goal` at most.
    pub(crate) fn value(&mut self, what: impl Into<String>, value: f64, unit: &'static str, goal: f64) {
        let value = rounded(value);
        self.push(what.into(), None, value, unit, Some(goal));
    }

    /// A figure that is to be `goal` at least.
    pub(crate) fn at_least(&mut self, what: impl Into<String>, value: f64, unit: &'static str, goal: f64) {
        let value = rounded(value);
        let (met, at_least) = (Some(value >= goal), true);
        let row = Row {
            what: what.into(),
            against: None,
            ratio: None,
            value: Some(value),
            unit: Some(unit),
            goal: Some(goal),
            at_least,
            met,
        };
        self.rows.push(row);
    }

    /// A figure that stands beside others.
    pub(crate) fn beside(&mut self, what: impl Into<String>, against: Option<&str>, value: f64, unit: &'static str) {
        self.push(what.into(), against.map(str::to_owned), rounded(value), unit, None);
    }

    fn push(&mut self, what: String, against: Option<String>, value: f64, unit: &'static str, goal: Option<f64>) {
        let met = goal.map(|goal| value <= goal);
        self.rows.push(Row { what, against, ratio: None, value: Some(value), unit: Some(unit), goal, at_least: false, met });
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(self)?;
        fs::write(path, json + "\n").map_err(|error| Failure(format!("{}: {error}", path.display())))
    }

    pub(crate) fn table(&self) -> String {
        let head = ["what", "against", "figure", "goal", "met"].map(str::to_owned);
        let lines: Vec<[String; 5]> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let mut widths = [0; 5];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut table = String::new();
        for [what, against, figure, goal, met] in &lines {
            let [a, b, c, d, e] = widths;
            let line = format!("{what:<a$}  {against:<b$}  {figure:>c$}  {goal:>d$}  {met:<e$}");
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table
    }
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let figure = match (self.ratio, self.value) {
            (Some(ratio), _) => format!("{ratio:.2} times"),
            (None, Some(value)) => format!("{value:.2} {}", self.unit.unwrap_or_default()),
            (None, None) => String::new(),
        };
        let met = self.met.map_or("", |met| if met { "yes" } else { "NO" });
        let goal = self.goal.map_or_else(String::new, |goal| format!("{} {goal}", if self.at_least { "≥" } else { "≤" }));
        [self.what.clone(), self.against.clone().unwrap_or_default(), figure, goal, met.to_owned()]
    }
}

/// More digits than this would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_row_says_whether_its_goal_is_met() {
        let mut report = Report::default();
        report.ratio("message p50", "bare", (1.5, 1.0), 1.4);
        report.value("start", 0.5, "s", 1.0);
        report.beside("raw", None, 0.8, "ms");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json["rows"][0],
            serde_json::json!({"what": "message p50", "against": "bare", "ratio": 1.5, "goal": 1.4, "met": false})
        );
        assert_eq!(json["rows"][1]["met"], true);
        assert!(json["rows"][2]["met"].is_null());
        report.at_least("topics", 49.0, "/s", 50.0);
        assert_eq!(serde_json::to_value(&report).unwrap()["rows"][3]["met"], false);
        report.at_least_ratio("topics", "bare", (40.0, 100.0), 0.5);
        assert_eq!(serde_json::to_value(&report).unwrap()["rows"][4]["met"], false);
        assert!(report.table().lines().nth(1).unwrap().ends_with("NO"));
    }
}
