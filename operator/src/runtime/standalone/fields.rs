//! Reads a planned object strictly: every field is taken, ignored by name with a reason, or an error that names it.

use serde_json::{Map, Value};

/// Why a planned object can't run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {detail}")]
pub struct Unsupported {
    /// Such as `Deployment acbhub-acme/hub: spec.template.spec.hostNetwork`.
    pub path: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Unsupported {
    pub(crate) fn new(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), detail: detail.into() }
    }
}

/// The fields of one object that nobody has looked at yet.
#[derive(Debug)]
pub(crate) struct Fields {
    path: String,
    rest: Map<String, Value>,
}

impl Fields {
    pub(crate) fn new(path: impl Into<String>, value: Value) -> Result<Self, Unsupported> {
        let path = path.into();
        match value {
            Value::Object(rest) => Ok(Self { path, rest }),
            other => Err(Unsupported::new(path, format!("expected an object, found {other}"))),
        }
    }

    fn at(&self, key: &str) -> String {
        if self.path.ends_with(": ") { format!("{}{key}", self.path) } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn wrong(&self, key: &str, detail: impl Into<String>) -> Unsupported {
        Unsupported::new(self.at(key), detail)
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.rest.remove(key).filter(|value| !value.is_null())
    }

    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Self>, Unsupported> {
        self.take(key).map(|value| Self::new(self.at(key), value)).transpose()
    }

    pub(crate) fn required_object(&mut self, key: &str) -> Result<Self, Unsupported> {
        self.object(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    pub(crate) fn list(&mut self, key: &str) -> Result<Vec<Value>, Unsupported> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(self.wrong(key, format!("expected a list, found {other}"))),
        }
    }

    pub(crate) fn objects(&mut self, key: &str) -> Result<Vec<Self>, Unsupported> {
        let path = self.at(key);
        let values = self.list(key)?;
        values.into_iter().enumerate().map(|(index, value)| Self::new(format!("{path}[{index}]"), value)).collect()
    }

    pub(crate) fn strings(&mut self, key: &str) -> Result<Vec<String>, Unsupported> {
        let values = self.list(key)?;
        values
            .into_iter()
            .map(|value| match value {
                Value::String(text) => Ok(text),
                other => Err(self.wrong(key, format!("expected text, found {other}"))),
            })
            .collect()
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, Unsupported> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, format!("expected text, found {other}"))),
        }
    }

    pub(crate) fn required_text(&mut self, key: &str) -> Result<String, Unsupported> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    pub(crate) fn number(&mut self, key: &str) -> Result<Option<u32>, Unsupported> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| self.wrong(key, format!("expected a number, found {value}"))),
        }
    }

    /// Leaves out what has no meaning here; the caller says why.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.rest.remove(*key);
        }
    }

    /// Fails for the first field that nobody took.
    pub(crate) fn finish(self) -> Result<(), Unsupported> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.wrong(key, "the standalone runtime does not know this field")),
        }
    }
}
