//! JSON that counts how often it is looked at.
//!
//! What a JSON Schema costs can't be told from its text: with `$ref` a short one can ask for a look at one value on each of 2³⁰ ways
//! through it. So the looks are counted, for each check. When they are used up, lists and objects end and references lead nowhere, so that
//! the check comes to an end soon. What it found by then means nothing.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use jsonschema::{
    JsonType, Keyword, ValidationError,
    json::{Array, Json, Node, NodeIdentity, Object, SerdeJson, unique},
};
use serde_json::{Map, Number, Value};

/// Bytes of a text that count as one look.
const BYTES_PER_LOOK: usize = 64;

/// Looks between two questions whether to stop.
const LOOKS_PER_QUESTION: u64 = 1024;

thread_local! {
    /// How many looks the check on this thread has left. A validator makes values by itself (of the names of properties), so that they
    /// can't carry it.
    static LEFT: Cell<u64> = const { Cell::new(0) };
    /// Whether that check is to end.
    static STOPPED: RefCell<Arc<AtomicBool>> = RefCell::default();
}

/// Runs a check on this thread with so many looks, fewer where it is stopped. The second result says whether they were enough; where not,
/// the first one means nothing.
pub(crate) fn counted<T>(looks: u64, stopped: &Arc<AtomicBool>, check: impl FnOnce() -> T) -> (T, bool) {
    LEFT.set(looks);
    STOPPED.set(Arc::clone(stopped));
    let found = check();
    (found, LEFT.replace(0) > 0)
}

/// Takes so many looks, and says whether there are any left.
fn take(looks: u64) -> bool {
    let left = LEFT.get();
    let rest = left.saturating_sub(looks);
    let asks = left / LOOKS_PER_QUESTION != rest / LOOKS_PER_QUESTION;
    let rest = if asks && STOPPED.with_borrow(|stopped| stopped.load(Ordering::Relaxed)) { 0 } else { rest };
    LEFT.set(rest);
    rest > 0
}

fn take_text(text: &str) {
    take(1 + (text.len() / BYTES_PER_LOOK) as u64);
}

/// Takes what a walk through all of a value costs.
fn take_all(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            take_text(text);
            take(0)
        }
        Value::Array(items) => take(1) && items.iter().all(take_all),
        Value::Object(members) => take(1) && members.values().all(take_all),
        Value::Null | Value::Bool(_) | Value::Number(_) => take(1),
    }
}

/// The representation, for the validator.
#[derive(Debug)]
pub(crate) enum Metered {}

/// A value whose looks are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a>(pub(crate) &'a Value);

impl Json for Metered {
    type Node<'a> = Seen<'a>;
    type PreparedKey = String;
    type StringBuffer = Value;

    const KEYS_PER_LOOKUP: usize = <SerdeJson as Json>::KEYS_PER_LOOKUP;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut Value, string: &str, f: impl FnOnce(Seen<'_>) -> T) -> T {
        SerdeJson::with_string_node(buffer, string, |value| f(Seen(value)))
    }
}

impl<'a> Node<'a, Metered> for Seen<'a> {
    type Object = Members<'a>;
    type Array = Elements<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Members<'a>> {
        take(1);
        self.0.as_object().map(Members)
    }

    fn as_array(&self) -> Option<Elements<'a>> {
        take(1);
        self.0.as_array().map(|items| Elements(items))
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let text = self.0.as_str()?;
        take_text(text);
        Some(Cow::Borrowed(text))
    }

    fn as_number(&self) -> Option<&'a Number> {
        take(1);
        Node::<SerdeJson>::as_number(&self.0)
    }

    fn as_boolean(&self) -> Option<bool> {
        take(1);
        self.0.as_bool()
    }

    fn is_null(&self) -> bool {
        take(1);
        self.0.is_null()
    }

    fn json_type(&self) -> JsonType {
        take(1);
        Node::<SerdeJson>::json_type(&self.0)
    }

    fn string_length(&self) -> Option<u64> {
        take_text(self.0.as_str()?);
        Node::<SerdeJson>::string_length(&self.0)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        let alike = match (self.0, expected) {
            (Value::String(one), Value::String(other)) => one.len() == other.len(),
            (Value::Array(one), Value::Array(other)) => one.len() == other.len(),
            (Value::Object(one), Value::Object(other)) => one.len() == other.len(),
            _ => false,
        };
        let may_compare = if alike { take_all(self.0) } else { take(1) };
        may_compare && Node::<SerdeJson>::equals_value(&self.0, expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Borrowed(self.0)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Node::<SerdeJson>::identity(&self.0)
    }
}

/// The members of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Members<'a>(&'a Map<String, Value>);

impl<'a> Object<'a, Metered> for Members<'a> {
    type Node = Seen<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<Seen<'a>> {
        take(1);
        self.0.get(key).map(Seen)
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.0.iter())
    }
}

/// Ends early where the looks are used up.
pub(crate) struct MembersIter<'a>(serde_json::map::Iter<'a>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, Seen<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        take_text(name);
        take(0).then_some((name, Seen(value)))
    }
}

/// The elements of an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elements<'a>(&'a [Value]);

impl<'a> Array<'a, Metered> for Elements<'a> {
    type Node = Seen<'a>;
    type ElementsIter = ElementsIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> ElementsIter<'a> {
        ElementsIter(self.0.iter())
    }

    fn is_unique(&self) -> bool {
        self.0.iter().all(take_all) && unique::is_unique(self.0)
    }
}

/// Ends early where the looks are used up.
pub(crate) struct ElementsIter<'a>(std::slice::Iter<'a, Value>);

impl<'a> Iterator for ElementsIter<'a> {
    type Item = Seen<'a>;

    fn next(&mut self) -> Option<Seen<'a>> {
        let value = self.0.next()?;
        take(1).then_some(Seen(value))
    }
}

/// A keyword that is met as long as there are looks left.
#[derive(Debug)]
pub(crate) struct LooksLeft;

impl<'i> Keyword<'i, Metered> for LooksLeft {
    fn validate(&self, value: Seen<'i>) -> Result<(), ValidationError<'i>> {
        if self.is_valid(value) { Ok(()) } else { Err(ValidationError::custom("too costly")) }
    }

    fn is_valid(&self, _: Seen<'i>) -> bool {
        take(1)
    }
}
