//! From a tree to a checked expression: every name is known, every operation fits its values, and what it costs at most is bounded.

use regex::{Regex, RegexBuilder};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    expression::{Calculation, Comparison, Node, TextPart},
    problem::Problem,
    syntax::{Form, Syntax, clipped},
    vocabulary::{Kind, Vocabulary},
};

/// How many regular expressions a filter may have, how long each may be, how much each may take once compiled, and how deep each may be nested.
/// Their time is linear in the text and in their size: the product is what a search may take.
pub(super) const MAX_PATTERNS: usize = 4;
/// See [`MAX_PATTERNS`].
pub(super) const MAX_PATTERN_BYTES: usize = 256;
const PATTERN_MEMORY: usize = 16 * 1024;
const PATTERN_CACHE: usize = 64 * 1024;
const PATTERN_DEPTH: u32 = 16;

/// The expression that a tree says, of these variables. Its value is of this kind.
pub(super) fn check(syntax: &Syntax, vocabulary: &Vocabulary, wanted: Kind) -> Result<Node, Problem> {
    let mut checker = Checker { vocabulary, patterns: 0 };
    let (kind, node) = checker.any_kind(syntax)?;
    match wanted {
        _ if kind.fits(wanted) => Ok(node),
        Kind::Flag => Err(Problem::of_type(syntax.at, format!("a filter is true or false, and this is {kind}: compare it"))),
        _ => Err(Problem::of_type(syntax.at, format!("it has to yield {wanted}, and this is {kind}"))),
    }
}

struct Checker<'a> {
    vocabulary: &'a Vocabulary,
    patterns: usize,
}

type Checked = (Kind, Node);

impl Checker<'_> {
    fn any_kind(&mut self, syntax: &Syntax) -> Result<Checked, Problem> {
        let at = syntax.at;
        Ok(match &syntax.form {
            Form::Flag(flag) => (Kind::Flag, Node::Flag(*flag)),
            Form::Number(number) => (Kind::Number, Node::Number(*number)),
            Form::Text(text) => (Kind::Text, Node::Text(text.as_str().into())),
            Form::Name(_) if self.vocabulary.is_open && self.is_root(syntax) => (Kind::Any, Node::Whole),
            Form::Name(name) => return Err(self.lone_name(at, name)),
            Form::List(_) => {
                return Err(Problem::of_type(at, "a list stands behind `in` only, such as x in [\"a\", \"b\"]"));
            }
            Form::Field(of, name) if self.is_root(of) && !self.vocabulary.is_open => {
                let (place, kind) = self.field(at, name)?;
                (kind, Node::Field(place))
            }
            Form::Field(of, name) => {
                let of = self.any_kind(of)?;
                let name_node = Node::Text(name.as_str().into());
                part(of, name_node).map_err(|kind| Problem::of_type(at, format!("{kind} has no field {}", clipped(name))))?
            }
            Form::Index(of, name) => {
                let (of, name) = (self.any_kind(of)?, self.kind(name, Kind::Text)?);
                part(of, name).map_err(|kind| Problem::of_type(at, format!("{kind} has no parts to name in [ ]")))?
            }
            Form::Call(target, name, arguments) => self.call(at, target.as_deref(), name, arguments)?,
            Form::Not(inner) => (Kind::Flag, Node::Not(Box::new(self.kind(inner, Kind::Flag)?))),
            Form::Negative(inner) => (Kind::Number, Node::Negative(Box::new(self.kind(inner, Kind::Number)?))),
            Form::All(terms) => (Kind::Flag, Node::All(self.kinds(terms, Kind::Flag)?)),
            Form::Any(terms) => (Kind::Flag, Node::Any(self.kinds(terms, Kind::Flag)?)),
            Form::Binary("in", value, list) => (Kind::Flag, self.is_in(value, list)?),
            Form::Binary(sign, left, right) => self.binary(at, sign, left, right)?,
            Form::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                let condition = self.kind(condition, Kind::Flag)?;
                let (kind, then) = self.any_kind(then)?;
                let at = otherwise.at;
                let (other, otherwise) = self.any_kind(otherwise)?;
                if !other.fits(kind) {
                    return Err(Problem::of_type(at, format!("{kind} is needed here, and this is {other}")));
                }
                let kind = if other == Kind::Any { other } else { kind };
                (kind, Node::Choice(Box::new([condition, then, otherwise])))
            }
        })
    }

    /// An expression of this kind.
    fn kind(&mut self, syntax: &Syntax, wanted: Kind) -> Result<Node, Problem> {
        match self.any_kind(syntax)? {
            (kind, node) if kind.fits(wanted) => Ok(node),
            (kind, _) => Err(Problem::of_type(syntax.at, format!("{wanted} is needed here, and this is {kind}"))),
        }
    }

    fn kinds(&mut self, all: &[Syntax], wanted: Kind) -> Result<Vec<Node>, Problem> {
        all.iter().map(|syntax| self.kind(syntax, wanted)).collect()
    }

    fn is_root(&self, syntax: &Syntax) -> bool {
        matches!(&syntax.form, Form::Name(name) if name == self.vocabulary.root)
    }

    fn lone_name(&self, at: usize, name: &str) -> Problem {
        let Vocabulary { root, .. } = self.vocabulary;
        if name == *root {
            return Problem::of_type(at, format!("{root} as a whole is no value: {}", self.fields()));
        }
        Problem::of_type(at, format!("there is no variable {}: {}", clipped(name), self.fields()))
    }

    fn fields(&self) -> String {
        let names: Vec<_> = self.vocabulary.fields.iter().map(|field| field.name).collect();
        format!("{} has {}", self.vocabulary.root, names.join(", "))
    }

    fn field(&self, at: usize, name: &str) -> Result<(usize, Kind), Problem> {
        let found = self.vocabulary.fields.iter().position(|field| field.name == name);
        let found = found.and_then(|place| Some((place, self.vocabulary.fields.get(place)?.kind)));
        found.ok_or_else(|| {
            Problem::of_type(at, format!("{} has no field {}: {}", self.vocabulary.root, clipped(name), self.fields()))
        })
    }

    fn is_in(&mut self, value: &Syntax, list: &Syntax) -> Result<Node, Problem> {
        if let Form::List(items) = &list.form {
            let (kind, node) = self.any_kind(value)?;
            if kind == Kind::Entries {
                return Err(Problem::of_type(value.at, format!("{kind} can't be looked for in a list")));
            }
            return Ok(Node::OneOf(Box::new(node), self.kinds(items, kind)?));
        }
        let (of_value, value) = (value.at, self.any_kind(value)?);
        let text = |(kind, node): Checked| match kind.fits(Kind::Text) {
            true => Ok(node),
            false => Err(Problem::of_type(of_value, format!("{} is needed here, and this is {kind}", Kind::Text))),
        };
        match self.any_kind(list)? {
            (Kind::Entries, Node::Field(place)) => Ok(Node::HasEntry(place, Box::new(text(value)?))),
            (Kind::Any, list) if value.0.fits(Kind::Any) => Ok(Node::IsIn(Box::new([value.1, list]))),
            (Kind::Any, _) => Err(Problem::of_type(of_value, format!("{} can't be looked for there", value.0))),
            (kind, _) => {
                text(value)?;
                Err(Problem::of_type(list.at, format!("`in` needs a list or a map behind it, and this is {kind}")))
            }
        }
    }

    fn binary(&mut self, at: usize, sign: &str, left: &Syntax, right: &Syntax) -> Result<Checked, Problem> {
        let comparison = match sign {
            "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return self.calculation(at, sign, left, right),
        };
        let (kind, left) = self.any_kind(left)?;
        if kind == Kind::Entries {
            return Err(Problem::of_type(at, format!("{kind} can't be compared: name one of its texts")));
        }
        let (other, right) = self.any_kind(right)?;
        if !other.fits(kind) {
            return Err(Problem::of_type(at, format!("{kind} can't be compared with {other}")));
        }
        Ok((Kind::Flag, Node::Compare(comparison, Box::new([left, right]))))
    }

    fn calculation(&mut self, at: usize, sign: &str, left: &Syntax, right: &Syntax) -> Result<Checked, Problem> {
        let calculation = match sign {
            "+" => Calculation::Add,
            "-" => Calculation::Subtract,
            "*" => Calculation::Multiply,
            "/" => Calculation::Divide,
            _ => Calculation::Remainder,
        };
        let mut number = |side| match self.any_kind(side)? {
            (kind, node) if kind.fits(Kind::Number) => Ok(node),
            (kind, _) => Err(Problem::of_type(at, format!("{sign} is for numbers, and this is {kind}"))),
        };
        let sides = [number(left)?, number(right)?];
        Ok((Kind::Number, Node::Calculate(calculation, Box::new(sides))))
    }

    fn call(&mut self, at: usize, target: Option<&Syntax>, name: &str, arguments: &[Syntax]) -> Result<Checked, Problem> {
        match (target, name, arguments) {
            (None, "has", [of]) => Ok((Kind::Flag, self.has(of)?)),
            (None, "timestamp", [text]) => timestamp(text),
            (Some(of), "size", []) | (None, "size", [of]) => match self.any_kind(of)? {
                (Kind::Text | Kind::Entries | Kind::Any, node) => Ok((Kind::Number, Node::Size(Box::new(node)))),
                (kind, _) => Err(Problem::of_type(at, format!("{kind} has no size"))),
            },
            (Some(text), "matches", [pattern]) | (None, "matches", [text, pattern]) => {
                let text = self.kind(text, Kind::Text)?;
                Ok((Kind::Flag, Node::Matches(Box::new(text), self.pattern(pattern)?)))
            }
            (Some(whole), "contains" | "startsWith" | "endsWith", [part]) => {
                let which = match name {
                    "contains" => TextPart::Anywhere,
                    "startsWith" => TextPart::Start,
                    _ => TextPart::End,
                };
                let texts = [self.kind(whole, Kind::Text)?, self.kind(part, Kind::Text)?];
                Ok((Kind::Flag, Node::Contains(which, Box::new(texts))))
            }
            (_, "all" | "exists" | "exists_one" | "existsOne" | "map" | "filter", _) => {
                Err(Problem::of_type(at, format!("filters have no loops, and so no {name}()")))
            }
            (_, "has" | "timestamp" | "size" | "matches" | "contains" | "startsWith" | "endsWith", _) => {
                Err(Problem::of_type(at, format!("{name}() takes another number of values, or stands behind a dot")))
            }
            _ => Err(Problem::of_type(
                at,
                format!(
                    "there is no function {}(): there are has, size, startsWith, endsWith, contains, matches, timestamp",
                    clipped(name)
                ),
            )),
        }
    }

    fn has(&mut self, of: &Syntax) -> Result<Node, Problem> {
        match (&of.form, self.any_kind(of)?.1) {
            (Form::Field(..), Node::Field(place)) => Ok(Node::HasValue(place)),
            (Form::Field(..), Node::Entry(place, name)) => Ok(Node::HasEntry(place, name)),
            (Form::Field(..), Node::Part(parts)) => Ok(Node::HasPart(parts)),
            _ => Err(Problem::of_type(of.at, "has() takes a field, such as has(x.metadata.name)")),
        }
    }

    fn pattern(&mut self, pattern: &Syntax) -> Result<Regex, Problem> {
        let at = pattern.at;
        let Form::Text(pattern) = &pattern.form else {
            return Err(Problem::of_type(at, "matches() takes a regular expression in quotes: it is compiled once"));
        };
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            return Err(Problem::limit(at, format!("a filter has at most {MAX_PATTERNS} regular expressions")));
        }
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(Problem::limit(at, format!("a regular expression has at most {MAX_PATTERN_BYTES} bytes")));
        }
        let mut builder = RegexBuilder::new(&ascii(pattern));
        builder.size_limit(PATTERN_MEMORY).dfa_size_limit(PATTERN_CACHE).nest_limit(PATTERN_DEPTH);
        builder.build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                Problem::limit(at, "the regular expression is too large once it is compiled: repeat less")
            }
            // Its last line says what is wrong; the others show the pattern once more.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                Problem::of_type(at, format!("the regular expression is none: {last}"))
            }
        })
    }
}

/// What of a map or an object has this name. Or the kind of what is neither.
fn part(of: Checked, name: Node) -> Result<Checked, Kind> {
    match of {
        (Kind::Entries, Node::Field(place)) => Ok((Kind::Text, Node::Entry(place, Box::new(name)))),
        (Kind::Any, of) => Ok((Kind::Any, Node::Part(Box::new([of, name])))),
        (kind, _) => Err(kind),
    }
}

fn timestamp(text: &Syntax) -> Result<Checked, Problem> {
    let time = match &text.form {
        Form::Text(time) => OffsetDateTime::parse(time, &Rfc3339).ok(),
        _ => None,
    };
    let time = time.ok_or_else(|| {
        let why = "timestamp() takes a time of RFC 3339 in quotes, such as timestamp(\"2026-01-31T12:00:00Z\")";
        Problem::of_type(text.at, why)
    })?;
    Ok((Kind::Time, Node::Time(time)))
}

/// A pattern as CEL means it: its classes such as `\w` are those of ASCII. They are also much smaller once compiled.
fn ascii(pattern: &str) -> String {
    let mut whole = String::with_capacity(2 * pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            whole.push(character);
            continue;
        }
        match characters.next() {
            Some('w') => whole.push_str("[0-9A-Za-z_]"),
            Some('W') => whole.push_str("[^0-9A-Za-z_]"),
            Some('d') => whole.push_str("[0-9]"),
            Some('D') => whole.push_str("[^0-9]"),
            Some('s') => whole.push_str("[\\t\\n\\f\\r ]"),
            Some('S') => whole.push_str("[^\\t\\n\\f\\r ]"),
            Some('b') => whole.push_str("(?-u:\\b)"),
            Some('B') => whole.push_str("(?-u:\\B)"),
            Some(other) => whole.extend(['\\', other]),
            None => whole.push('\\'),
        }
    }
    whole
}
