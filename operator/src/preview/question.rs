//! What `acb plan` asks the operator on a cluster, and where. Both ends read it here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The port on the loopback address of the operator's pod: reached by port-forward alone, as the API server and the kubelet allow it.
pub const PORT: u16 = 8081;
/// Where the question is posted to.
pub const PATH: &str = "/plan";
/// Where `acb get orphans` asks.
pub const ORPHANS_PATH: &str = "/orphans";
/// The audience of a token that is made for this alone, and is of no use anywhere else.
pub const AUDIENCE: &str = "acb.dev/plan";
/// The verb that allows to ask about an object, as creating or patching it does.
pub const VERB: &str = "plan";
/// The most bytes of a question.
pub const MAX_BYTES: usize = 2 << 20;
/// The most objects in one.
pub const MAX_OBJECTS: usize = 500;
/// The most lists, maps and items of them: in memory the smallest are hundreds of times as large as in the text.
pub const MAX_PARTS: usize = 50_000;
/// The most bytes of an answer.
pub const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The question: what would a reconcile do if these were applied?
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// Whole documents, as in a file.
    pub objects: Vec<Value>,
}

/// How many lists, maps and items a JSON text has, or a few less: known before any of it is in memory.
#[must_use]
pub(crate) fn count_parts(text: &[u8]) -> usize {
    let (mut count, mut is_text, mut is_escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' | b',' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_outside_of_texts() {
        for (text, expected) in [("1", 0), ("[1,1,{}]", 4), (r#"{"a,[": "\\\",{", "b": "\\"}"#, 2), ("", 0), (r#"["\\",[],"#, 4)]
        {
            assert_eq!(count_parts(text.as_bytes()), expected, "{text}");
        }
    }
}
