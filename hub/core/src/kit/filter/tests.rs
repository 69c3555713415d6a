//! Filters against what they promise, against another implementation of CEL, and against those who mean harm.

use std::{collections::BTreeMap, thread, time::Instant};

use proptest::prelude::*;
use time::OffsetDateTime;

use super::{
    problem::Cause,
    vocabulary::{Field, Kind, Value},
    *,
};

const THINGS: Vocabulary = Vocabulary {
    root: "thing",
    fields: &[
        Field { name: "name", kind: Kind::Text },
        Field { name: "size", kind: Kind::Number },
        Field { name: "metadata", kind: Kind::Entries },
        Field { name: "made_at", kind: Kind::Time },
        Field { name: "note", kind: Kind::Text },
        Field { name: "flag", kind: Kind::Flag },
    ],
    is_open: false,
};

#[derive(Clone, Debug)]
struct Thing {
    name: String,
    size: i64,
    metadata: BTreeMap<String, String>,
    note: Option<String>,
}

impl Subject for Thing {
    fn value(&self, field: usize) -> Option<Value<'_>> {
        Some(match field {
            0 => Value::Text(&self.name),
            1 => Value::Number(self.size),
            2 => Value::Entries(&self.metadata),
            3 => Value::Time(OffsetDateTime::UNIX_EPOCH),
            4 => Value::Text(self.note.as_deref()?),
            _ => Value::Flag(true),
        })
    }
}

fn thing() -> Thing {
    let metadata = [("priority", "high"), ("a-b", "x\"y"), ("empty", "")];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Thing { name: "plan für dich".to_owned(), size: 1234, metadata: metadata.into(), note: None }
}

fn compile(source: &str) -> Result<Filter, Problem> {
    Filter::compile(source, &THINGS)
}

fn matches(source: &str) -> bool {
    compile(source).unwrap_or_else(|problem| panic!("{source}: {}", problem.fault(source))).matches(&thing())
}

#[test]
fn what_filters_say() {
    for yes in [
        "true",
        "thing.name == 'plan für dich' && thing.size > 1000",
        "thing.metadata[\"priority\"] == \"high\"",
        "thing.metadata.priority in ['low', 'high']",
        "thing.metadata['a-b'] == r'x\"y'",
        "'priority' in thing.metadata && !('none' in thing.metadata)",
        "has(thing.metadata.empty) && !has(thing.metadata.none) && !has(thing.note)",
        "thing.name.startsWith('plan') && thing.name.endsWith(\"dich\") && thing.name.contains('f\\u00fcr')",
        "thing.name.matches('^plan .{3} (dich|mich)$')",
        "matches(thing.name, 'lan') && thing.name.matches(r'^\\w{4}\\s\\w\\Wr')",
        "size(thing.name) == 13 && thing.name.size() == 13 && thing.metadata.size() == 3",
        "thing.size / 1000 == 1 && thing.size % 1000 == 234 && 2 * 617 == thing.size && thing.size - 1234 == 0x0",
        "thing.size > 1000 ? thing.flag : false",
        "thing.made_at < timestamp(\"2026-01-31T12:00:00+01:00\")",
        "-9223372036854775808 < thing.size && - -1 == 1 && !!thing.flag && -(-1) == 1",
        "thing.size in [1, 2, 1234,] // a comment\n && '''a\n''' == \"a\\n\" && \"\\x41\\101\\U00000041\" == 'AAA'",
        "1 == 1 == true",
        "thing.size > 1 == thing.flag",
    ] {
        assert!(matches(yes), "{yes}");
    }
    for no in ["false", "!thing.flag", "thing.size in []", "thing.name < 'p'", "thing.metadata.priority == 'low'"] {
        assert!(!matches(no), "{no}");
    }
}

/// CEL's errors are neither yes nor no, on both sides of a `!`.
#[test]
fn what_is_undecided_does_not_match_and_harms_no_more_than_it_must() {
    for missing in [
        "thing.metadata.none == 'x'",
        "thing.metadata['none'] != 'x'",
        "thing.note == 'x'",
        "9223372036854775807 + thing.size > 0",
        "thing.size / (thing.size - 1234) == 0",
        "-9223372036854775808 % (thing.size - 1235) == 0",
        "-(-9223372036854775808 + thing.size - 1234) == 0",
        "'high' in [thing.metadata.priority, thing.metadata.none]",
        "thing.metadata.none == 'x' ? true : true",
    ] {
        assert!(!matches(missing) && !matches(&format!("!({missing})")), "{missing}");
        assert!(matches(&format!("({missing}) || thing.flag")) && matches(&format!("thing.flag || ({missing})")), "{missing}");
        assert!(matches(&format!("!(({missing}) && false)")) && !matches(&format!("({missing}) && true")), "{missing}");
    }
}

#[test]
fn a_problem_points_at_its_character() {
    for (source, caret, what) in [
        ("", "^", "a value is missing before its end"),
        ("thing.size > ", "             ^", "before its end"),
        ("thing.nam == 'x'", "      ^", "has no field nam: thing has name, size"),
        ("thng.name == 'x'", "^", "no variable thng: thing has name"),
        ("thing.name = 'x'", "           ^", "write =="),
        ("thing.name == 'x", "              ^", "no closing quote"),
        ("thing.name == 'a\\q'", "                ^", "unknown escape"),
        ("thing.name == 5", "           ^", "a text can't be compared with a number"),
        ("thing.size == 1.5", "              ^", "whole numbers only"),
        ("thing.size == 5u", "              ^", "without u"),
        ("thing.name", "      ^", "this is a text: compare it"),
        ("thing", "^", "as a whole is no value"),
        ("thing.name.nam()", "           ^", "no function nam()"),
        ("thing.metadata.exists(k, true)", "               ^", "no loops"),
        ("thing.name.matches('(')", "                   ^", "the regular expression is none: unclosed group"),
        ("thing.name.matches(thing.name)", "                         ^", "in quotes"),
        ("'ü' == 'ü' && thing.x", "                    ^", "no field x"),
        ("timestamp('now') < thing.made_at", "          ^", "RFC 3339"),
        ("thing.size + 'a' == 1", "           ^", "for numbers"),
        ("(thing.flag", "           ^", ") is missing"),
        ("thing.flag thing.flag", "           ^", "ends before thing"),
        ("thing.name.priority == 'x'", "           ^", "a text has no field priority"),
        ("thing.size in thing.metadata", "      ^", "a text is needed here"),
        ("['a'] == ['a']", "^", "behind `in`"),
        ("null == thing.name", "^", "has(…)"),
        ("{'a': 1} == thing.name", "^", "maps"),
        ("b'x' == thing.name", "^", "bytes"),
        ("thing.for == 1", "      ^", "reserved"),
        ("has(thing.name == 'x')", "               ^", "has() takes a field"),
        ("a\u{202e}b", " ^", "no expression has this character"),
    ] {
        let problem = compile(source).unwrap_err();
        let fault = problem.fault(source);
        assert_eq!(fault.reason, "FILTER_INVALID");
        let (message, shown) = fault.message.rsplit_once("\n  ").unwrap();
        assert_eq!(shown, caret, "{source}: {message}");
        assert!(message.contains(what), "{source}: {message}");
        assert!(message.contains(&format!("column {}: ", caret.chars().count())), "{source}: {message}");
        assert!(!message.contains('\u{202e}'));
    }
    let long = format!("{} && thing.x", ["thing.flag"; 40].join(" && "));
    let fault = compile(&long).unwrap_err().fault(&long);
    let lines: Vec<_> = fault.message.lines().collect();
    assert_eq!(lines[1].chars().nth(lines[2].find('^').unwrap()), Some('x'), "{}", fault.message);
    assert!(lines[1].len() < 70);
    let second = compile("thing.flag &&\n  thing.x").unwrap_err().fault("thing.flag &&\n  thing.x");
    assert_eq!(second.message.lines().next().unwrap().split(':').next(), Some("filter, line 2, column 9"));
}

/// The shapes by which parsers run out of stack, each as deep as the length of a filter lets it be, on half the stack of a worker.
#[test]
fn no_shape_is_deeper_than_the_stack() {
    let nested = |open: &str, inner: &str, close: &str| {
        let times = MAX_BYTES / (open.len() + close.len()).max(1);
        let source = format!("{}{inner}{}", open.repeat(times), close.repeat(times));
        source[..source.len().min(MAX_BYTES)].to_owned()
    };
    // Each bracket is closed before the next operator: not deep for a parser, and high as a tree.
    let high = format!("{}1{} > 0", "(".repeat(29), ("+1".repeat(20) + ")").repeat(29));
    assert_eq!(compile(&high).unwrap_err().cause, Cause::Limit);
    let shapes = [
        nested("(", "true", ")"),
        nested("(", "", ""),
        nested("!", "thing.flag", ""),
        nested("-", "1", ""),
        nested("- ", "thing.size", ""),
        nested("[", "1", "]"),
        nested("true?", "true", ":true"),
        nested("true?true:", "true", ""),
        nested("1+", "1", ""),
        nested("1==", "1", ""),
        nested("size(", "'a'", ")"),
        nested("has(", "a", ")"),
        nested("thing.metadata[", "'a'", "]"),
        nested("'a'", "", ".a"),
        nested("'a'", "", ".a()"),
        nested("a[", "", ""),
        nested("a(", "", ""),
        nested("{", "", ""),
        nested("a{", "", ""),
        nested("true&&(", "true", ")"),
        nested("true||!(", "true", ")"),
        nested("'a' in [", "", "]"),
        nested("\"\"\"", "", ""),
        nested("'\\", "", ""),
        nested(".", "", ""),
        high,
        nested("\0", "", ""),
    ];
    for shape in shapes {
        let check = thread::Builder::new().stack_size(1024 * 1024).spawn(move || {
            // Well-formed ones that are refused for their depth, and others that are no expression at all.
            compile(&shape).map(|filter| filter.matches(&thing())).map_err(|problem| problem.fault(&shape).message)
        });
        check.unwrap().join().unwrap().unwrap_err();
    }
    let deep = |levels: usize| format!("{}true{}", "(".repeat(levels), ")".repeat(levels));
    assert!(matches(&deep(syntax::MAX_DEPTH - 1)));
    assert_eq!(compile(&deep(syntax::MAX_DEPTH)).unwrap_err().cause, Cause::Limit);
    // What is wide is not deep.
    assert!(matches(&["thing.flag"; 140].join(" && ")));
    assert!(matches(&["false"; 200].join("||").replacen("false", "true", 1)));
}

#[test]
fn what_costs_too_much_is_refused() {
    let cause = |source: &str| compile(source).unwrap_err().cause;
    assert_eq!(cause(&format!("thing.name == '{}'", "x".repeat(MAX_BYTES))), Cause::Limit);
    assert_eq!(cause(&["thing.name.matches('a')"; 5].join("||")), Cause::Limit);
    for pattern in ["(a{1000}){1000}", "a{4000000000}", "((((a{10}){10}){10}){10}){10}", "\\\\pL{200}"] {
        assert!(compile(&format!("thing.name.matches('{pattern}')")).is_err(), "{pattern}");
    }
    assert_eq!(cause(&format!("thing.name.matches('{}')", "a".repeat(300))), Cause::Limit);
    assert!(compile(&format!("thing.name.matches('{}')", "(".repeat(200) + &")".repeat(200))).is_err());
    // Usual ones are not.
    for pattern in ["(?i)report", "^[a-z]+@[a-z]+\\\\.org$", "\\\\w+ \\\\d{4}", ".*error.*", "\\\\bword\\\\b[\\\\s\\\\W]"] {
        compile(&format!("thing.name.matches('{pattern}')")).unwrap();
    }
}

/// What a backtracking engine would not end with, and texts as long as metadata may be.
#[test]
fn an_evaluation_takes_no_time() {
    let mut large = thing();
    // So that a search remembers much: no two parts are alike.
    let text = (0..16_000_u32).map(|place| if place.wrapping_mul(2_654_435_761) >> 13 & 1 == 0 { 'a' } else { 'b' });
    let text: String = text.collect();
    large.metadata.insert("long".to_owned(), text[..4096].to_owned());
    large.metadata.insert("large".to_owned(), text);
    for source in [
        ["thing.metadata.long.matches('(a*)*$')"; 4].join(" || "),
        ["thing.metadata.long.matches('(a|aa)+$')"; 4].join(" || "),
        ["thing.metadata.long.matches('(.*)(.*)(.*)(.*)(.*)[^b]$')"; 4].join(" || "),
        ["thing.metadata.long.matches('[ab]*a[ab]{200}c')"; 4].join(" || "),
        ["thing.metadata.long.matches('(a[ab]{9}){10}c|(b[ab]{7}){10}c')"; 4].join(" || "),
        ["thing.metadata.large.contains(thing.metadata.large)"; 35].join(" && "),
        ["thing.metadata.large.contains('aaaaaaaaaaaaaaaac')"; 35].join(" || "),
    ] {
        let filter = compile(&source).unwrap();
        let begun = Instant::now();
        let _matches = filter.matches(&large);
        let took = begun.elapsed();
        assert!(took.as_millis() < 2000, "{took:?} {source}");
    }
    let undecided = compile("thing.metadata.large.matches('a') || !thing.metadata.large.matches('a')").unwrap();
    assert!(!undecided.matches(&large));
}

fn noise() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("thing".to_owned()),
        Just(".name".to_owned()),
        Just("thing.metadata".to_owned()),
        Just("thing.size".to_owned()),
        Just("has(".to_owned()),
        Just("size(".to_owned()),
        Just(".matches(".to_owned()),
        Just("timestamp(".to_owned()),
        "[-()\\[\\]{}.,?:!+*/%<>=&|'\"\\\\ur0x9e_ ]{1,3}",
        "\\PC{1,4}",
        "[0-9]{1,22}",
        "'[a-z\\\\]{0,4}'",
        Just(" in ".to_owned()),
        Just("&&".to_owned()),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Texts of an expression of each kind.
fn expressions() -> (BoxedStrategy<String>, BoxedStrategy<String>, BoxedStrategy<String>) {
    let texts = prop_oneof![
        Just("thing.name".to_owned()),
        Just("thing.metadata.priority".to_owned()),
        Just("thing.metadata['none']".to_owned()),
        Just("thing.metadata[thing.name]".to_owned()),
        "'[a-c]{0,2}'",
        Just("\"high\"".to_owned()),
    ]
    .boxed();
    let leaves = prop_oneof![
        Just("thing.size".to_owned()),
        (-5_i64..5).prop_map(|number| number.to_string()),
        Just("9223372036854775807".to_owned()),
        texts.clone().prop_map(|text| format!("size({text})")),
        Just("thing.metadata.size()".to_owned()),
    ];
    let numbers = leaves.prop_recursive(3, 8, 2, |inner| {
        let sign = prop_oneof![Just("+"), Just("-"), Just("*"), Just("/"), Just("%")];
        prop_oneof![
            (inner.clone(), sign, inner.clone()).prop_map(|(left, sign, right)| format!("{left} {sign} {right}")),
            inner.clone().prop_map(|inner| format!("({inner})")),
            inner.prop_map(|inner| format!("-({inner})")),
        ]
    });
    let numbers = numbers.boxed();
    let comparison = prop_oneof![Just("=="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
    let leaves = prop_oneof![
        Just("thing.flag".to_owned()),
        Just("false".to_owned()),
        Just("has(thing.metadata.none)".to_owned()),
        Just("has(thing.metadata.priority)".to_owned()),
        (numbers.clone(), comparison.clone(), numbers.clone()).prop_map(|(left, sign, right)| format!("{left} {sign} {right}")),
        (texts.clone(), comparison, texts.clone()).prop_map(|(left, sign, right)| format!("{left} {sign} {right}")),
        (texts.clone(), proptest::collection::vec(texts.clone(), 0..3))
            .prop_map(|(text, list)| format!("{text} in [{}]", list.join(", "))),
        (numbers.clone(), proptest::collection::vec(numbers.clone(), 0..3))
            .prop_map(|(number, list)| format!("({number}) in [{}]", list.join(", "))),
        texts.clone().prop_map(|text| format!("{text} in thing.metadata")),
        (texts.clone(), prop_oneof![Just("startsWith"), Just("endsWith"), Just("contains")], texts.clone())
            .prop_map(|(left, function, right)| format!("{left}.{function}({right})")),
        (texts.clone(), prop_oneof![Just("^h"), Just("a|b"), Just("[^a]$")])
            .prop_map(|(text, pattern)| format!("{text}.matches('{pattern}')")),
    ];
    let flags = leaves.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), prop_oneof![Just("&&"), Just("||")], inner.clone())
                .prop_map(|(left, sign, right)| format!("{left} {sign} {right}")),
            inner.clone().prop_map(|inner| format!("!({inner})")),
            inner.clone().prop_map(|inner| format!("({inner})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(({a}) ? ({b}) : ({c}))")),
        ]
    });
    (texts, numbers, flags.boxed())
}

/// What the other implementation says: `None` for its error.
fn theirs(source: &str, thing: &Thing) -> Option<bool> {
    use cel::{Context, Program, Value as Cel};
    let program = Program::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    let metadata: std::collections::HashMap<String, Cel> =
        thing.metadata.iter().map(|(name, value)| (name.clone(), Cel::String(Arc::new(value.clone())))).collect();
    let fields: std::collections::HashMap<String, Cel> = [
        ("name".to_owned(), Cel::String(Arc::new(thing.name.clone()))),
        ("size".to_owned(), Cel::Int(thing.size)),
        ("flag".to_owned(), Cel::Bool(true)),
        ("metadata".to_owned(), metadata.into()),
    ]
    .into();
    let mut context = Context::default();
    context.add_variable_from_value("thing", Cel::from(fields));
    match program.execute(&context) {
        Ok(Cel::Bool(flag)) => Some(flag),
        Ok(other) => panic!("{source}: {other:?}"),
        Err(_) => None,
    }
}

fn things() -> impl Strategy<Value = Thing> {
    (prop_oneof![Just("a"), Just("high"), Just("priority"), Just("")], -3_i64..4, "[a-c]{0,2}").prop_map(|(name, size, value)| {
        Thing {
            name: name.to_owned(),
            size,
            metadata: [("priority".to_owned(), "high".to_owned()), ("a".to_owned(), value)].into(),
            note: None,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_makes_it_panic(source in noise()) {
        match compile(&source) {
            Ok(filter) => drop(filter.matches(&thing())),
            Err(problem) => {
                let fault = problem.fault(&source);
                prop_assert!(fault.message.len() < 1000, "{}", fault.message);
                prop_assert!(source.is_char_boundary(problem.at));
            }
        }
    }

    #[test]
    fn it_is_cel(source in expressions().2, thing in things()) {
        prop_assume!(source.len() <= MAX_BYTES);
        let ours = match compile(&source) {
            Ok(filter) => filter,
            Err(problem) => {
                prop_assert_eq!(problem.cause, Cause::Limit, "{}", problem.fault(&source));
                return Ok(());
            }
        };
        prop_assert_eq!(ours.0.flag(&thing), theirs(&source, &thing), "{}", source);
    }
}
