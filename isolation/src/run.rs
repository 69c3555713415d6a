//! Runs the attacks one after the other, and says how each ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    attack::{Attack, Outcome, Wall},
    broker, hub, postgres,
    target::{Attacker, Victim},
};

/// No attack takes longer, or it is inconclusive.
const LIMIT: Duration = Duration::from_secs(30);

/// How one attack ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub attack: String,
    /// Its wall.
    pub wall: Wall,
    /// Who was attacked.
    pub victim: String,
    /// What would have been had.
    pub prize: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How all of them ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// In the order in which they ran.
    pub rows: Vec<Row>,
}

impl Report {
    /// How many were tried.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.rows.len()
    }

    /// How many were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.rows.iter().filter(|row| row.outcome.is_refused()).count()
    }

    /// How many had nothing to be tried on.
    #[must_use]
    pub fn nothing(&self) -> usize {
        self.rows.iter().filter(|row| row.outcome.is_nothing()).count()
    }

    /// Those that were tried, and not refused.
    pub fn breaches(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.outcome.is_refused() && !row.outcome.is_nothing())
    }
}

/// Every attack, in a fixed order.
#[must_use]
pub fn attacks() -> Vec<Attack> {
    [hub::attacks(), postgres::attacks(), broker::attacks()].into_iter().flatten().collect()
}

/// Runs every attack that can be made: those on Kafka need an attacker with a user of Kafka, those on a door one that can be connected to.
/// Tells of each as it ends. What is the same against whomever is made once, against the first.
pub async fn run(attacker: &Attacker, victims: &[Victim], mut told: impl FnMut(&Row)) -> Report {
    let mut report = Report::default();
    let attacks = attacks();
    for (index, victim) in victims.iter().enumerate() {
        for attack in attacks.iter().filter(|attack| (index == 0 || !attack.is_of_all) && attack.fits(attacker, victim)) {
            let row = attack.run(attacker, victim).await;
            told(&row);
            report.rows.push(row);
        }
    }
    report
}

impl Attack {
    /// Runs this one.
    pub async fn run(&self, attacker: &Attacker, victim: &Victim) -> Row {
        let outcome = tokio::time::timeout(LIMIT, (self.attempt)(attacker, victim))
            .await
            .unwrap_or_else(|_| Outcome::Inconclusive(format!("no answer within {} s", LIMIT.as_secs())));
        // What is not there can't be had, whether the wall stands or not.
        let outcome = match (outcome, self.on.filter(|on| victim.invented.contains(on))) {
            (Outcome::Refused(said), Some(on)) => Outcome::Nothing(format!("no {on} of {} is known: {said}", victim.tenant)),
            (outcome, _) => outcome,
        };
        let victim = victim.tenant.clone();
        Row { attack: self.name.clone(), wall: self.wall, victim, prize: self.prize.clone(), outcome }
    }
}
