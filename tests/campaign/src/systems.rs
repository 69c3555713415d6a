//! The three systems, what was asked of them, and how they fail.

use std::collections::BTreeSet;

use acb_operator::{effect::EffectError, plan::Step};

use crate::{kafka::Kafka, kubernetes::Kubernetes, postgres::Postgres};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum System {
    Kubernetes,
    Postgres,
    Kafka,
}

impl System {
    pub(crate) const ALL: [Self; 3] = [Self::Kubernetes, Self::Postgres, Self::Kafka];

    fn of(step: &Step) -> Self {
        match step {
            Step::Kubernetes(_) => Self::Kubernetes,
            Step::Postgres(_) => Self::Postgres,
            Step::Kafka(_) => Self::Kafka,
        }
    }

    pub(crate) fn away(self) -> EffectError {
        EffectError::unavailable(format!("{self:?}"), "it is away")
    }
}

/// What goes wrong with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process dies before it is sent.
    Before(usize),
    /// It is carried out, and the process dies before the answer.
    After(usize),
    /// It is carried out, and the answer is lost: the process lives on, and takes it for failed.
    Unanswered(usize),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Systems {
    pub(crate) kubernetes: Kubernetes,
    pub(crate) postgres: Postgres,
    pub(crate) kafka: Option<Kafka>,
    pub(crate) away: BTreeSet<System>,
    /// Those that do not say what they hold, and take every step: they come and go between a look and a step.
    pub(crate) unread: BTreeSet<System>,
    pub(crate) crash: Option<Crash>,
    /// Steps that were carried out.
    pub(crate) steps: usize,
    /// The last of them.
    pub(crate) log: Vec<String>,
}

impl Systems {
    /// Whether what a system holds can't be read.
    pub(crate) fn is_unread(&self, system: System) -> bool {
        self.away.contains(&system) || self.unread.contains(&system)
    }

    /// Whether a step comes to its system.
    pub(crate) fn reaches(&self, step: &Step) -> bool {
        !self.away.contains(&System::of(step)) && self.crash != Some(Crash::Before(self.steps))
    }

    pub(crate) fn apply(&mut self, step: &Step) -> Result<(), EffectError> {
        let lost = || EffectError::unavailable("the process", "it died");
        if self.crash == Some(Crash::Before(self.steps)) {
            self.crash = None;
            return Err(lost());
        }
        if self.away.contains(&System::of(step)) {
            return Err(System::of(step).away());
        }
        match step {
            Step::Kubernetes(step) => self.kubernetes.apply(step)?,
            Step::Postgres(step) => self.postgres.apply(step, &self.kubernetes)?,
            Step::Kafka(step) => match &mut self.kafka {
                Some(kafka) => kafka.apply(step, &self.kubernetes)?,
                None => panic!("a step for a Kafka that is not there: {step:?}"),
            },
        }
        if self.log.len() < 400 {
            self.log.push(format!("{}: {step:?}", self.steps).chars().take(240).collect());
        }
        self.steps += 1;
        if self.crash == Some(Crash::After(self.steps - 1)) {
            self.crash = None;
            return Err(lost());
        }
        if self.crash == Some(Crash::Unanswered(self.steps - 1)) {
            self.crash = None;
            return Err(EffectError::unavailable(format!("{:?}", System::of(step)), "its answer was lost"));
        }
        Ok(())
    }
}
