//! What more than one kind uses.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One aspect of a resource's state, as in `metav1.Condition`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Reconciling`, `Stalled` (as in kstatus), `Synced`, or one of ACB's own.
    #[schemars(length(min = 1, max = 316))]
    pub r#type: String,
    /// Whether it holds: `True`, `False` or `Unknown`.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// The generation of the spec that this was decided from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When `status` last changed, in RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, in one word for programs. Stable.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"))]
    pub reason: String,
    /// For people: what is so, and what to do.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
}

/// The most characters of a condition's message, as in `metav1.Condition`.
pub const MAX_MESSAGE: usize = 32_768;

/// A credential that is in use, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// The Secret that it is in; the number at its end rises with each rotation.
    pub secret: String,
    /// When it was made, in RFC 3339.
    pub since: String,
}

/// How long something is kept: a whole number and a unit, such as `7d`, `12h`, `30m` or `90s`. Up to `9999d`, which every store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retention {
    seconds: u64,
}

/// What a [`Retention`] matches.
pub const RETENTION_PATTERN: &str = "^([1-9][0-9]{0,6}[sm]|[1-9][0-9]{0,4}h|[1-9][0-9]{0,3}d)$";

impl Retention {
    /// This many seconds.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self { seconds }
    }

    /// This many days.
    #[must_use]
    pub const fn from_days(days: u64) -> Self {
        Self { seconds: days * 86_400 }
    }

    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.seconds
    }
}

impl std::str::FromStr for Retention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is no duration: write a whole number and a unit, such as 7d, 12h, 30m or 90s");
        let (unit, most) = match text.bytes().last() {
            Some(b's') => (1, 7),
            Some(b'm') => (60, 7),
            Some(b'h') => (3_600, 5),
            Some(b'd') => (86_400, 4),
            _ => return Err(refuse()),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse());
        }
        if digits.len() > most {
            return Err(format!("{text:?} is too long: the most are 9999d, 99999h, 9999999m and 9999999s"));
        }
        let number: u64 = digits.parse().map_err(|_| refuse())?;
        Ok(Self { seconds: number * unit })
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, seconds) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
            if self.seconds >= seconds && self.seconds.is_multiple_of(seconds) {
                return write!(f, "{}{unit}", self.seconds / seconds);
            }
        }
        write!(f, "{}s", self.seconds)
    }
}

impl Serialize for Retention {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Retention {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Retention {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Retention".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": RETENTION_PATTERN})
    }
}

/// As in a PodSpec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. Empty: taints of every key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How the value is compared: `Equal` (where unset) or `Exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Equal", "Exists"]))]
    pub operator: Option<String>,
    /// Value of the taint, where the operator is `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Effect of the taint. Empty: taints of every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["NoSchedule", "PreferNoSchedule", "NoExecute"]))]
    pub effect: Option<String>,
    /// Seconds that a taint with `NoExecute` is tolerated. Unset: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// The schema of an object whose fields another schema describes.
pub(crate) fn free_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
