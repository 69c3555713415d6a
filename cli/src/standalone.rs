//! Where the standalone commands keep and find their state.

use std::path::PathBuf;

use acb_operator::runtime::standalone::state::{StateDir, StateError};
use clap::Args;
use serde_json::Value;

use crate::output::{Exit, Failure};

/// Where `acb dev` keeps its state.
#[derive(Args, Clone, Debug)]
pub(crate) struct State {
    /// State folder of `acb dev` [default: $XDG_STATE_HOME/acb or ~/.local/state/acb; as root /var/lib/acb/dev].
    #[arg(long, value_name = "DIR", env = "ACB_STATE")]
    state: Option<PathBuf>,
}

impl State {
    /// The folder, whether it is there or not.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(StateDir::default_path)
    }

    /// The folder, which must be there.
    pub(crate) fn existing(&self) -> Result<StateDir, Failure> {
        StateDir::existing(&self.path()).map_err(|error| match error {
            StateError::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => Failure::new(
                Exit::NotFound,
                format!("there is no state in {}: start `acb dev -f DIR`, or give its folder with --state", path.display()),
            ),
            other => Failure::failed(other),
        })
    }
}

/// A text in an object; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The addresses by which a Tenant's hub is reached.
pub(crate) fn endpoints(tenant: &Value) -> Vec<&str> {
    let listed = tenant.pointer("/status/endpoints").and_then(Value::as_array).into_iter().flatten();
    listed.map(|endpoint| text(endpoint, "/address")).collect()
}

/// The condition `Ready` of an object.
pub(crate) fn ready_condition(object: &Value) -> Option<&Value> {
    condition(object, "Ready")
}

/// A condition of an object.
pub(crate) fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
    conditions.iter().find(|condition| condition["type"] == name)
}
