//! The items of a module: where each begins and ends, what it is, and its name.

use crate::{paths, tokens::Tree};

/// An item with its attributes.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// All its tokens.
    pub trees: &'a [Tree],
    /// Those behind its attributes and its visibility.
    body: &'a [Tree],
    /// Whether it is seen outside of its module.
    pub is_visible: bool,
    /// Whether it is built for tests alone.
    pub is_for_tests: bool,
}

/// A module that is declared.
#[derive(Clone, Copy, Debug)]
pub enum Declared<'a> {
    /// `mod name;`
    File,
    /// `mod name { … }`
    Braces(&'a [Tree]),
}

impl<'a> Item<'a> {
    /// What is behind `use`, where it is such a line.
    #[must_use]
    pub fn used(&self) -> Option<&'a [Tree]> {
        match self.body {
            [first, used @ .., Tree::Mark(';')] if first.is_name("use") => Some(used),
            _ => None,
        }
    }

    /// The module that it declares.
    #[must_use]
    pub fn declared(&self) -> Option<(&'a str, Declared<'a>)> {
        match self.body {
            [first, Tree::Name(name), Tree::Mark(';')] if first.is_name("mod") => Some((name, Declared::File)),
            [first, Tree::Name(name), Tree::Group('{', inside)] if first.is_name("mod") => Some((name, Declared::Braces(inside))),
            _ => None,
        }
    }

    /// The name that it has in its module; an `impl` and a `use` have none.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        let mut trees = self.body.iter().filter(|tree| **tree != Tree::Mark('!'));
        let kind = trees.find_map(|tree| match tree {
            Tree::Name(name) if !MODIFIERS.contains(&name.as_str()) => Some(name),
            _ => None,
        });
        let constant = self.body.first().filter(|first| first.is_name("const")).and(self.body.get(1));
        match (kind?.as_str(), constant) {
            ("fn" | "struct" | "enum" | "union" | "trait" | "type" | "static" | "macro_rules", _) => trees
                .find(|tree| !tree.is_name("mut"))
                .and_then(|tree| if let Tree::Name(name) = tree { Some(name) } else { None }),
            (_, Some(Tree::Name(name))) => Some(name),
            _ => None,
        }
        .map(String::as_str)
    }
}

const MODIFIERS: [&str; 4] = ["async", "unsafe", "const", "extern"];

/// The items of a module, one after another.
pub fn items(mut trees: &[Tree]) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    // `#![…]`
    while let [Tree::Mark('#'), Tree::Mark('!'), Tree::Group('[', attribute), rest @ ..] = trees {
        if paths::is_for_tests(attribute) {
            return items;
        }
        trees = rest;
    }
    while !trees.is_empty() {
        let (item, rest) = item(trees);
        items.push(item);
        trees = rest;
    }
    items
}

fn item(trees: &[Tree]) -> (Item<'_>, &[Tree]) {
    let mut body = trees;
    let mut is_for_tests = false;
    while let [Tree::Mark('#'), Tree::Group('[', attribute), rest @ ..] = body {
        is_for_tests |= paths::is_for_tests(attribute);
        body = rest;
    }
    let is_visible = body.first().is_some_and(|first| first.is_name("pub"));
    match body {
        [_, Tree::Group('(', _), rest @ ..] | [_, rest @ ..] if is_visible => body = rest,
        _ => {}
    }
    // A group in braces ends it, unless it is of those that end with a semicolon.
    let is_function = |tree: &Tree| ["fn", "unsafe", "async", "extern"].iter().any(|name| tree.is_name(name));
    let semicolon = match body {
        [Tree::Name(name), next, ..] if name == "const" => !is_function(next),
        [Tree::Name(name), next, ..] if name == "extern" => next.is_name("crate"),
        [Tree::Name(name), ..] => ["use", "static", "type"].contains(&name.as_str()),
        _ => false,
    };
    let ends = |tree: &Tree| *tree == Tree::Mark(';') || (!semicolon && matches!(tree, Tree::Group('{', _)));
    let length = body.iter().position(ends).map_or(body.len(), |last| last + 1);
    let (body, rest) = body.split_at(length);
    let trees = &trees[..trees.len() - rest.len()];
    (Item { trees, body, is_visible, is_for_tests }, rest)
}
