//! What an expression of PromQL names: metrics and labels. Not a parser: it reads the expressions that alerts and dashboards have.

use std::collections::BTreeSet;

use crate::exported::{Exported, OF_TARGETS};

/// What an expression names.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Named {
    /// Each metric, with the labels by which it is selected.
    pub(crate) selectors: Vec<(String, BTreeSet<String>)>,
    /// The labels that it groups by.
    pub(crate) grouping: BTreeSet<String>,
}

/// The words of a text, what is in quotes left out, each with what comes after it.
fn words(text: &str) -> Vec<(String, char)> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for character in text.chars().chain([' ', ' ']) {
        match character {
            '"' => quoted = !quoted,
            _ if quoted => {}
            _ if character.is_ascii_alphanumeric() || "_:$".contains(character) => word.push(character),
            ' ' if word.is_empty() => {}
            _ if word.is_empty() => words.push((String::new(), character)),
            _ => words.push((std::mem::take(&mut word), character)),
        }
    }
    words
}

pub(crate) fn named(expression: &str) -> Named {
    let mut named = Named::default();
    // A space between a word and its bracket, or its sign, would hide which it is.
    let expression =
        ["{", "(", "=", "!", "["].iter().fold(expression.to_owned(), |text, sign| text.replace(&format!(" {sign}"), sign));
    let (mut selecting, mut grouping, mut ranging) = (false, false, false);
    for (word, after) in words(&expression) {
        match word.as_str() {
            "" => {}
            _ if ranging => {}
            _ if selecting => {
                if let Some((_, labels)) = named.selectors.last_mut().filter(|_| "=!".contains(after)) {
                    labels.insert(word);
                }
            }
            _ if grouping => {
                named.grouping.insert(word);
            }
            "by" | "on" | "without" | "ignoring" if after == '(' => grouping = true,
            // A function.
            _ if after == '(' => {}
            "up" => named.selectors.push((word, BTreeSet::new())),
            name if name.contains('_') => named.selectors.push((word, BTreeSet::new())),
            // A number, or `or`.
            _ => {}
        }
        match after {
            '{' => selecting = true,
            '}' => selecting = false,
            '[' => ranging = true,
            ']' => ranging = false,
            ')' => grouping = false,
            _ => {}
        }
    }
    named
}

/// What an expression names has to be exported, and what is shown beside it (`{{ $labels.topic }}`, `{{topic}}`) has to be a label of it.
pub(crate) fn check(expression: &str, shown: &str, exported: &Exported, of: &str) {
    let found = named(expression);
    assert!(!found.selectors.is_empty(), "{of} names no metric: {expression}");
    let mut all: BTreeSet<&str> = OF_TARGETS.into_iter().collect();
    for (metric, selected) in &found.selectors {
        let Some(labels) = exported.get(metric) else {
            panic!("{of} names {metric}, which neither operator nor hub exports");
        };
        all.extend(labels.iter().map(String::as_str));
        for label in selected {
            let is_there = labels.contains(label) || OF_TARGETS.contains(&label.as_str());
            assert!(is_there, "{of} selects by {label}, which {metric} does not have");
        }
    }
    let templates = shown.split("{{").skip(1).filter_map(|part| part.split_once("}}"));
    let templates = templates.map(|(template, _)| template.split('|').next().unwrap_or_default().trim());
    let shown = templates.filter(|template| *template != "$value").map(|template| template.trim_start_matches("$labels."));
    for label in found.grouping.iter().map(String::as_str).chain(shown) {
        assert!(all.contains(label), "{of} names {label}, which is a label of nothing in {expression}");
    }
}

#[test]
fn what_an_expression_names_is_found() {
    let expression =
        r#"sum by (le, type) (rate(acb_gone_total{namespace=~"$namespace", a_b!="c_d"}[5m])) / up > 0.9 or vector(0)"#;
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let selectors = vec![("acb_gone_total".to_owned(), set(&["a_b", "namespace"])), ("up".to_owned(), set(&[]))];
    assert_eq!(named(expression), Named { selectors, grouping: set(&["le", "type"]) });
    let unless = named("sum(acb_gone_total unless last_over_time(acb_gone_total[1h] offset 1h)) > 0");
    assert_eq!(unless.selectors.len(), 2, "{unless:?}");
}
