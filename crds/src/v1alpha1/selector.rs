//! Label selectors, as Kubernetes has them.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Objects by their labels. Everything that is set must be met; where nothing is set, every object is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that the object must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub match_labels: BTreeMap<String, String>,
    /// What the labels of the object must meet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// A condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)")
        .message("In and NotIn have values, Exists and DoesNotExist have none")
)]
pub struct LabelSelectorRequirement {
    /// Key of the label that is looked at.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label is compared: `In` or `NotIn` the values, `Exists` or `DoesNotExist`.
    pub operator: SelectorOperator,
    /// What the label is compared with, for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelectorRequirement {
    /// Whether an object with these labels meets it, as Kubernetes decides.
    #[must_use]
    pub fn is_met_by(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let is_listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            SelectorOperator::In => is_listed,
            SelectorOperator::NotIn => !is_listed,
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_requirement_is_met_as_kubernetes_decides() {
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        for (key, operator, values, there, elsewhere) in [
            ("team", "In", &["a", "b"][..], true, false),
            ("team", "In", &["b"], false, false),
            ("team", "NotIn", &["b"], true, true),
            ("team", "NotIn", &["a"], false, true),
            ("team", "Exists", &[], true, false),
            ("team", "DoesNotExist", &[], false, true),
        ] {
            let requirement = json!({"key": key, "operator": operator, "values": values});
            let requirement: LabelSelectorRequirement = serde_json::from_value(requirement).unwrap();
            let met = (requirement.is_met_by(&labels), requirement.is_met_by(&BTreeMap::new()));
            assert_eq!(met, (there, elsewhere), "{operator} {values:?}");
        }
    }
}
