//! A checked expression, and its value for a subject. No value at all (`None`) is CEL's error: of a map's entry or a field that is not there, of a
//! number out of range. It makes undecided what needs it, and no more.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::{Map, Value as Json};
use time::OffsetDateTime;

use super::vocabulary::{Subject, Value};

/// The longest text that a regular expression is looked for in. In a longer one it is undecided whether it is there.
const MAX_SEARCHED_BYTES: usize = 4096;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Flag(bool),
    Number(i64),
    Text(Box<str>),
    Time(OffsetDateTime),
    Field(usize),
    /// Of a field that is a map, the text under this name.
    Entry(usize, Box<Node>),
    /// Whether a field that is a map has this name.
    HasEntry(usize, Box<Node>),
    HasValue(usize),
    /// The variable itself, where it is open.
    Whole,
    /// Of an object, what has this name.
    Part(Box<[Node; 2]>),
    /// Whether an object has this name.
    HasPart(Box<[Node; 2]>),
    /// Whether a list has this value, or an object this name.
    IsIn(Box<[Node; 2]>),
    Not(Box<Node>),
    Negative(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Compare(Comparison, Box<[Node; 2]>),
    Calculate(Calculation, Box<[Node; 2]>),
    OneOf(Box<Node>, Vec<Node>),
    Choice(Box<[Node; 3]>),
    Contains(TextPart, Box<[Node; 2]>),
    Matches(Box<Node>, Regex),
    /// Characters of a text, or entries of a map.
    Size(Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calculation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Calculation {
    fn of(self, left: i64, right: i64) -> Option<i64> {
        match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide => left.checked_div(right),
            Self::Remainder => left.checked_rem(right),
        }
    }
}

/// Where a text is looked for in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextPart {
    Anywhere,
    Start,
    End,
}

impl Node {
    /// The value, of the kind that was checked.
    pub(super) fn value<'a>(&'a self, subject: &'a dyn Subject) -> Option<Value<'a>> {
        Some(match self {
            Self::Flag(flag) => Value::Flag(*flag),
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text),
            Self::Time(time) => Value::Time(*time),
            Self::Field(field) => subject.value(*field)?,
            Self::Entry(field, name) => {
                let Value::Entries(entries) = subject.value(*field)? else { return None };
                Value::Text(entries.get(name.text(subject)?)?)
            }
            Self::HasEntry(field, name) => {
                let Value::Entries(entries) = subject.value(*field)? else { return None };
                Value::Flag(entries.contains_key(name.text(subject)?))
            }
            Self::HasValue(field) => Value::Flag(subject.value(*field).is_some()),
            Self::Whole => Value::Object(subject.whole()?),
            Self::Part(parts) => {
                let [of, name] = &**parts;
                Value::of_json(of.object(subject)?.get(name.text(subject)?)?)?
            }
            Self::HasPart(parts) => {
                let [of, name] = &**parts;
                Value::Flag(of.object(subject)?.get(name.text(subject)?).is_some_and(|part| !part.is_null()))
            }
            Self::IsIn(parts) => {
                let [value, list] = &**parts;
                let value = value.value(subject)?;
                Value::Flag(match list.value(subject)? {
                    Value::List(list) => {
                        list.iter().filter_map(Value::of_json).any(|item| order(value, item).is_some_and(Ordering::is_eq))
                    }
                    Value::Object(object) => {
                        let Value::Text(name) = value else { return None };
                        object.contains_key(name)
                    }
                    _ => return None,
                })
            }
            Self::Not(inner) => Value::Flag(!inner.flag(subject)?),
            Self::Negative(inner) => Value::Number(inner.number(subject)?.checked_neg()?),
            Self::All(terms) => Value::Flag(decided(terms, subject, false)?),
            Self::Any(terms) => Value::Flag(decided(terms, subject, true)?),
            Self::Compare(comparison, sides) => {
                let [left, right] = &**sides;
                Value::Flag(comparison.holds(order(left.value(subject)?, right.value(subject)?)?))
            }
            Self::Calculate(calculation, sides) => {
                let [left, right] = &**sides;
                Value::Number(calculation.of(left.number(subject)?, right.number(subject)?)?)
            }
            Self::OneOf(value, list) => {
                let value = value.value(subject)?;
                let mut is_found = false;
                for item in list {
                    is_found |= order(value, item.value(subject)?)?.is_eq();
                }
                Value::Flag(is_found)
            }
            Self::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                if condition.flag(subject)? { then.value(subject)? } else { otherwise.value(subject)? }
            }
            Self::Contains(part, texts) => {
                let [whole, wanted] = &**texts;
                let (whole, wanted) = (whole.text(subject)?, wanted.text(subject)?);
                Value::Flag(match part {
                    TextPart::Anywhere => whole.contains(wanted),
                    TextPart::Start => whole.starts_with(wanted),
                    TextPart::End => whole.ends_with(wanted),
                })
            }
            Self::Matches(text, pattern) => {
                let text = text.text(subject).filter(|text| text.len() <= MAX_SEARCHED_BYTES)?;
                Value::Flag(pattern.is_match(text))
            }
            Self::Size(of) => Value::Number(
                i64::try_from(match of.value(subject)? {
                    Value::Text(text) => text.chars().count(),
                    Value::Entries(entries) => entries.len(),
                    Value::Object(object) => object.len(),
                    Value::List(list) => list.len(),
                    _ => return None,
                })
                .ok()?,
            ),
        })
    }

    pub(super) fn flag(&self, subject: &dyn Subject) -> Option<bool> {
        match self.value(subject)? {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    fn number(&self, subject: &dyn Subject) -> Option<i64> {
        match self.value(subject)? {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn text<'a>(&'a self, subject: &'a dyn Subject) -> Option<&'a str> {
        match self.value(subject)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn object<'a>(&'a self, subject: &'a dyn Subject) -> Option<&'a Map<String, Json>> {
        match self.value(subject)? {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }
}

/// Whether one of these terms is `deciding`: then the others do not matter, even where they are undecided.
fn decided(terms: &[Node], subject: &dyn Subject, deciding: bool) -> Option<bool> {
    let mut undecided = false;
    for term in terms {
        match term.flag(subject) {
            Some(flag) if flag == deciding => return Some(deciding),
            Some(_) => {}
            None => undecided = true,
        }
    }
    (!undecided).then_some(!deciding)
}

fn order(left: Value<'_>, right: Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Flag(left), Value::Flag(right)) => Some(left.cmp(&right)),
        (Value::Number(left), Value::Number(right)) => Some(left.cmp(&right)),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Time(left), Value::Time(right)) => Some(left.cmp(&right)),
        _ => None,
    }
}
