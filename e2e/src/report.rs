//! `target/e2e/report.json`.

use std::fs;

use serde::Serialize;

use crate::{
    error::{Result, at},
    place::Place,
};

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Passed,
    Failed,
    /// The machine has no node, or an earlier scenario that it builds on failed.
    NotRun,
}

/// A scenario, and how it ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) status: Status,
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// Everything that a run did.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) scenarios: Vec<Row>,
}

impl Report {
    pub(crate) fn write(&self, place: &Place) -> Result<()> {
        let path = place.report();
        fs::write(&path, serde_json::to_string_pretty(self)?).map_err(at(&path))
    }

    pub(crate) fn count(&self, status: Status) -> usize {
        self.scenarios.iter().filter(|row| row.status == status).count()
    }
}
