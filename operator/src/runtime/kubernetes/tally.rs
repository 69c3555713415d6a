//! How many resources say what of themselves: kept with each change, so that nobody has to go through all of them. Pure.

use std::collections::BTreeMap;

use acb_crds::schema::Kind;
use serde_json::Value;

use crate::{
    condition::{DEGRADED, ISOLATION_VERIFIED, NEAR_LIMIT, READY, ROLLOUT_PENDING, STALLED, SUSPENDED, SYNCED},
    effect::kubernetes::ObjectKey,
};

/// What is counted of each resource.
const COUNTED: [&str; 8] = [READY, SYNCED, STALLED, DEGRADED, SUSPENDED, ROLLOUT_PENDING, NEAR_LIMIT, ISOLATION_VERIFIED];

/// What a resource says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Said {
    pub(super) kind: &'static str,
    pub(super) condition: &'static str,
    pub(super) status: String,
    pub(super) reason: String,
}

/// How many say so; there is no entry of none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    counts: BTreeMap<Said, usize>,
}

impl Tally {
    /// An object is otherwise than before, new, or gone.
    pub(super) fn change(&mut self, key: &ObjectKey, before: Option<&Value>, now: Option<&Value>) {
        if key.api_version != acb_crds::API_VERSION {
            return;
        }
        let Some(kind) = Kind::find(&key.kind) else { return };
        for said in before.into_iter().flat_map(|object| said(kind, object)) {
            if let Some(count) = self.counts.get_mut(&said) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.counts.remove(&said);
                }
            }
        }
        for said in now.into_iter().flat_map(|object| said(kind, object)) {
            *self.counts.entry(said).or_default() += 1;
        }
    }

    /// What is said, and how often.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Said, usize)> {
        self.counts.iter().map(|(said, count)| (said, *count))
    }
}

fn said(kind: Kind, object: &Value) -> impl Iterator<Item = Said> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.filter_map(move |condition| {
        let text = |name: &str| condition.get(name).and_then(Value::as_str);
        let name = text("type")?;
        Some(Said {
            kind: kind.as_str(),
            condition: COUNTED.into_iter().find(|counted| *counted == name)?,
            status: text("status")?.to_owned(),
            reason: text("reason")?.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    #[test]
    fn each_change_is_counted_once() {
        let tenant = |status: &str, reason: &str| {
            json!({"status": {"conditions": [
                {"type": "Ready", "status": status, "reason": reason}, {"type": "FieldsNotActedOn", "status": "True", "reason": "x"},
            ]}})
        };
        let key = |name: &str| ObjectKey::new(acb_crds::API_VERSION, "Tenant", "", name);
        let mut tally = Tally::default();
        let (fine, down) = (tenant("True", "Provisioned"), tenant("False", "HubUnavailable"));
        tally.change(&key("a"), None, Some(&fine));
        tally.change(&key("b"), None, Some(&fine));
        tally.change(&key("b"), Some(&fine), Some(&down));
        let of = |tally: &Tally| {
            let said = tally.iter().map(|(said, count)| format!("{} {} {} {count}", said.kind, said.condition, said.reason));
            said.collect::<Vec<_>>()
        };
        assert_eq!(of(&tally), ["Tenant Ready HubUnavailable 1", "Tenant Ready Provisioned 1"]);
        tally.change(&key("b"), Some(&down), None);
        tally.change(&key("a"), Some(&fine), None);
        tally.change(&ObjectKey::new("apps/v1", "Deployment", "n", "hub"), None, Some(&fine));
        assert_eq!(tally, Tally::default());
    }
}
