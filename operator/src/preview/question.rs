//! What `acb plan` asks the operator on a cluster, and where. Both ends read it here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The port on the loopback address of the operator's pod: reached by port-forward alone, as the API server and the kubelet allow it.
pub const PORT: u16 = 8081;
/// Where the question is posted to.
pub const PATH: &str = "/plan";
/// The audience of a token that is made for this alone, and is of no use anywhere else.
pub const AUDIENCE: &str = "acb.dev/plan";
/// The verb that allows to ask about an object, as creating or patching it does.
pub const VERB: &str = "plan";
/// The most bytes of a question.
pub const MAX_BYTES: usize = 2 << 20;
/// The most objects in one.
pub const MAX_OBJECTS: usize = 500;

/// The question: what would a reconcile do if these were applied?
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// Whole documents, as in a file.
    pub objects: Vec<Value>,
}
