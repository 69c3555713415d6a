//! What would be done for some resources: the same decisions as when they are applied, with nothing written anywhere. `acb plan` prints a
//! report of it, and an operator on a cluster answers with one. What is in a Secret is never in it.

pub(crate) mod overlay;
pub mod question;
pub(crate) mod tenancy;

use std::fmt;

use acb_crds::schema::{Kind, ObjectRef};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{condition::Problem, plan::Plan};

/// The steps, or everything that is wrong.
pub(crate) type Decision = Result<Plan, Refused>;

/// Why nothing is made of an object, and what is taken away from it all the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Refused {
    pub(crate) problems: Vec<Problem>,
    pub(crate) restraint: Plan,
}

impl From<Vec<Problem>> for Refused {
    fn from(problems: Vec<Problem>) -> Self {
        Self { problems, restraint: Plan::default() }
    }
}

/// What would be done, and for which objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What the plans start from.
    pub against: Against,
    /// In the order in which they are looked at.
    pub objects: Vec<Planned>,
    /// Objects that are no longer in the folder.
    #[serde(default)]
    pub removed: Vec<String>,
    /// Documents that their schema refuses.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// What the plans start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Against {
    /// Nothing: there is no world that could be read.
    #[default]
    Nothing,
    /// What `acb dev` runs.
    Live,
    /// A cluster, whose operator was asked.
    Cluster,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Which.
    #[serde(flatten, with = "NamedObject")]
    pub object: ObjectRef,
    /// Nobody asked about it: it changes along with those that were asked about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub also: bool,
    /// What would be done for it.
    #[serde(flatten)]
    pub found: Found,
}

/// What would be done for an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum Found {
    /// These steps.
    Plan {
        /// As data.
        steps: Vec<Value>,
        /// For people, a line or more for each.
        text: Vec<String>,
    },
    /// So many steps; what they are is for those who may see the object.
    Hidden {
        /// How many; none where it would be refused.
        hidden_steps: usize,
    },
    /// Nothing: it is refused.
    Refused {
        /// Never empty.
        problems: Vec<Described>,
        /// What is taken away from it all the same, for people.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        restraint: Vec<String>,
    },
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Such as `spec.limits.maxAgents`.
    pub field: String,
    /// For programs.
    pub reason: String,
    /// What is wrong, and what to do.
    pub message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ObjectRef")]
struct NamedObject {
    #[serde(with = "NamedKind")]
    kind: Kind,
    namespace: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Kind")]
enum NamedKind {
    Tenant,
    Agent,
    Quota,
}

impl From<&Decision> for Found {
    fn from(decision: &Decision) -> Self {
        match decision {
            Ok(plan) => Self::Plan {
                steps: plan.steps.iter().map(|step| json!(step)).collect(),
                text: plan.steps.iter().flat_map(|step| lines(&step.to_string())).collect(),
            },
            Err(refused) => Self::Refused {
                restraint: refused.restraint.steps.iter().flat_map(|step| lines(&step.to_string())).collect(),
                problems: refused
                    .problems
                    .iter()
                    .map(|problem| Described {
                        field: problem.field.clone(),
                        reason: problem.reason.to_string(),
                        message: problem.message.clone(),
                    })
                    .collect(),
            },
        }
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

impl Found {
    /// The same, for who may not see the object.
    pub(crate) fn hidden(&self) -> Self {
        let hidden_steps = match self {
            Self::Plan { steps, .. } => steps.len(),
            Self::Hidden { hidden_steps } => *hidden_steps,
            Self::Refused { restraint, .. } => restraint.len(),
        };
        Self::Hidden { hidden_steps }
    }

    /// Whether something would be done.
    fn is_change(&self) -> bool {
        match self {
            Self::Plan { steps, .. } => !steps.is_empty(),
            Self::Hidden { hidden_steps } => *hidden_steps > 0,
            Self::Refused { restraint, .. } => !restraint.is_empty(),
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Hidden { hidden_steps: 0 })
    }
}

impl Report {
    /// Whether something would be done or removed.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.removed.is_empty() || self.objects.iter().any(|planned| planned.found.is_change())
    }

    /// Whether something is refused, of which nothing would be applied.
    #[must_use]
    pub fn has_refusals(&self) -> bool {
        !self.refused.is_empty() || self.objects.iter().any(|planned| planned.found.is_refusal())
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if self.also {
            f.write_str(", along with them")?;
        }
        let count = |steps: usize| if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") };
        match &self.found {
            Found::Plan { steps, .. } if steps.is_empty() => writeln!(f, ": no change"),
            Found::Plan { steps, text } => {
                writeln!(f, ": {}", count(steps.len()))?;
                text.iter().try_for_each(|line| writeln!(f, "  {line}"))
            }
            Found::Hidden { hidden_steps: 0 } => writeln!(f, ": refused; why is for those who may see it"),
            Found::Hidden { hidden_steps } => writeln!(f, ": {}, for those who may see it", count(*hidden_steps)),
            Found::Refused { problems, restraint } => {
                writeln!(f, ": refused")?;
                problems.iter().try_for_each(|problem| writeln!(f, "  ! {}: {}", problem.field, problem.message))?;
                restraint.iter().try_for_each(|line| writeln!(f, "  {line}"))
            }
        }
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.against == Against::Nothing {
            writeln!(f, "No `acb dev` runs on this state: the plan starts from nothing.\n")?;
        }
        self.objects.iter().try_for_each(|planned| planned.fmt(f))?;
        self.removed.iter().try_for_each(|object| writeln!(f, "{object}: no longer in the folder; would be removed"))?;
        self.refused.iter().try_for_each(|refused| writeln!(f, "! {refused}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::{
        condition::Reason,
        plan::{KubernetesStep, SecretContent, SecretRef, Step},
    };

    fn planned(name: &str, found: Found) -> Planned {
        Planned { object: ObjectRef { kind: Kind::Agent, namespace: "acb-acme".into(), name: name.into() }, also: false, found }
    }

    fn report() -> Report {
        let secret = SecretRef { namespace: "acb-acme".into(), name: "a-api-key".into(), generation: 1 };
        let content = SecretContent::ApiKey { authority: secret.clone() };
        let step = Step::Kubernetes(KubernetesStep::EnsureSecret { secret, content, asked: None });
        let changed = Found::from(&Ok(Plan { steps: vec![step] }));
        let wrong = Found::from(&Err(vec![Problem::new(Reason::TooManyAgents, "metadata.name", "3 at most")].into()));
        let tenant = ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: "acme".into() };
        let objects = vec![
            planned("a", changed.clone()),
            planned("b", Found::from(&Ok(Plan::default()))),
            planned("c", wrong),
            Planned { object: tenant, also: true, found: changed.hidden() },
        ];
        Report { against: Against::Cluster, objects, ..Report::default() }
    }

    #[test]
    fn a_report_reads_as_a_plan_does() {
        let text = "Agent acb-acme/a: 1 step\n  + Secret acb-acme/a-api-key-1 (API key)\nAgent acb-acme/b: no change\n\
                    Agent acb-acme/c: refused\n  ! metadata.name: 3 at most\n\
                    Tenant acme, along with them: 1 step, for those who may see it\n";
        assert_eq!(report().to_string(), text);
        assert!(Report::default().to_string().starts_with("No `acb dev` runs"));
    }

    #[test]
    fn a_report_comes_back_from_json_as_it_was() {
        let value = serde_json::to_value(report()).unwrap();
        assert_eq!(value["against"], "cluster");
        assert_eq!(value["objects"][0]["kind"], "Agent");
        assert_eq!(value["objects"][0]["steps"][0]["action"], "ensureSecret");
        assert_eq!(value["objects"][2]["problems"][0]["reason"], "TooManyAgents");
        assert_eq!(serde_json::from_value::<Report>(value).unwrap(), report());
    }

    #[test]
    fn what_is_hidden_still_counts() {
        let only = |found: Found| Report { objects: vec![planned("a", found)], ..Report::default() };
        let change = only(Found::Hidden { hidden_steps: 2 });
        assert!(change.has_changes() && !change.has_refusals());
        let refusal = only(Found::Refused { problems: Vec::new(), restraint: Vec::new() }.hidden());
        assert!(!refusal.has_changes() && refusal.has_refusals());
    }
}
