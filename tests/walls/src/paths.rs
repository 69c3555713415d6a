//! What the text of a module names: its `use` lines, and every path in its code, in attributes and in the arguments of macros too. Doc
//! comments and what is built for tests alone are left out.

use std::collections::BTreeSet;

use crate::tokens::Tree;

/// `crate::log::Bounds` is `["crate", "log", "Bounds"]`.
pub type Segments = Vec<String>;

/// One name that a `use` line brings in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Import {
    /// As the module calls it: with `as`, the new name.
    pub name: String,
    /// Where it comes from.
    pub path: Segments,
    /// `pub use`, in any width: the name is passed on, and the module itself need not use it.
    pub passed_on: bool,
}

/// `use path::*`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob {
    /// What stands before the star.
    pub path: Segments,
    /// As for [`Import`].
    pub passed_on: bool,
}

/// Collected from items.
#[derive(Debug, Default)]
pub struct Paths {
    /// Every name of every `use` line, those inside functions included.
    pub imports: Vec<Import>,
    /// Every `use` line that ends in a star.
    pub globs: Vec<Glob>,
    /// Every path in code. What only looks like one, such as the name of a field, is among them: nothing in the crate answers to it.
    pub used: BTreeSet<Segments>,
}

impl Paths {
    /// Adds what is behind `use`, up to its semicolon.
    pub fn add_use(&mut self, trees: &[Tree], passed_on: bool) {
        // `use ::name` is another crate's.
        if trees.first() != Some(&Tree::Separator) {
            self.add_tree(trees, &Segments::new(), passed_on);
        }
    }

    fn add_tree(&mut self, trees: &[Tree], before: &Segments, passed_on: bool) {
        match trees {
            [Tree::Name(name), Tree::Separator, rest @ ..] => {
                let mut path = before.clone();
                path.push(name.clone());
                self.add_tree(rest, &path, passed_on);
            }
            [Tree::Name(last), renamed @ ..] => {
                let mut path = before.clone();
                // `use a::{self}` brings in `a`.
                if last != "self" || before.is_empty() {
                    path.push(last.clone());
                }
                let renamed = match renamed {
                    [Tree::Name(_), Tree::Name(name)] => Some(name.clone()),
                    _ => None,
                };
                if let Some(name) = renamed.or_else(|| path.last().cloned()) {
                    self.imports.push(Import { name, path, passed_on });
                }
            }
            [Tree::Mark('*')] => self.globs.push(Glob { path: before.clone(), passed_on }),
            [Tree::Group('{', inside)] => {
                inside.split(|tree| *tree == Tree::Mark(',')).for_each(|tree| self.add_tree(tree, before, passed_on));
            }
            _ => {}
        }
    }

    /// Adds every path in code.
    pub fn add_code(&mut self, trees: &[Tree]) {
        let mut rest = trees;
        let mut path = Segments::new();
        let mut before: Option<&Tree> = None;
        while let [tree, after @ ..] = rest {
            rest = after;
            match (tree, after) {
                (Tree::Mark('#'), [Tree::Group('[', attribute), after @ ..]) => {
                    rest = if is_for_tests(attribute) { behind_element(after) } else { after };
                    self.add_attribute(attribute);
                }
                // Visible within another module: that uses nothing of it.
                (Tree::Name(name), [Tree::Group('(', _), after @ ..]) if name == "pub" => rest = after,
                (Tree::Name(name), [next, ..]) if name == "use" && *next != Tree::Mark('<') => {
                    let end = after.iter().position(|tree| *tree == Tree::Mark(';')).unwrap_or(after.len());
                    let (used, after) = after.split_at(end);
                    self.add_use(used, false);
                    rest = after;
                }
                (Tree::Name(name), _) => {
                    let continues = before.is_some_and(|before| *before == Tree::Separator);
                    if !continues {
                        self.found(&mut path);
                    }
                    // A field or method behind a point, what is behind `<T>::` or `::` alone, and a macro's variable name no module of ours.
                    let names_none = match before {
                        Some(Tree::Mark('.')) => !is_range(trees, rest),
                        Some(Tree::Mark('$')) => name != "crate",
                        _ => continues && path.is_empty(),
                    };
                    if !names_none {
                        path.push(name.clone());
                    }
                }
                (Tree::Group(_, inside), _) => {
                    self.found(&mut path);
                    self.add_code(inside);
                }
                (Tree::Separator, _) => {}
                (Tree::Mark(_) | Tree::Text(_), _) => self.found(&mut path),
            }
            before = Some(tree);
        }
        self.found(&mut path);
    }

    /// Adds the paths of an attribute, `#[serde(with = "crate::hex")]` included.
    pub fn add_attribute(&mut self, attribute: &[Tree]) {
        if attribute.first().is_none_or(|first| !first.is_name("doc")) {
            self.add_code(attribute);
            self.add_texts(attribute);
        }
    }

    fn add_texts(&mut self, trees: &[Tree]) {
        for tree in trees {
            match tree {
                Tree::Text(text) if text.contains("::") => {
                    if let Ok(path) = crate::tokens::read(text) {
                        self.add_code(&path);
                    }
                }
                Tree::Group(_, inside) => self.add_texts(inside),
                _ => {}
            }
        }
    }

    fn found(&mut self, path: &mut Segments) {
        if !path.is_empty() {
            self.used.insert(std::mem::take(path));
        }
    }
}

/// Whether the two tokens before the last one that was read are points.
fn is_range(all: &[Tree], rest: &[Tree]) -> bool {
    let read = all.len() - rest.len();
    read >= 3 && all.get(read - 3) == Some(&Tree::Mark('.'))
}

/// Whether it is `cfg(test)` or `cfg(all(test, …))`.
#[must_use]
pub fn is_for_tests(attribute: &[Tree]) -> bool {
    let [cfg, Tree::Group('(', condition)] = attribute else { return false };
    cfg.is_name("cfg")
        && match condition.as_slice() {
            [name] => name.is_name("test"),
            [all, Tree::Group('(', conditions)] => {
                all.is_name("all") && conditions.iter().any(|condition| condition.is_name("test"))
            }
            _ => false,
        }
}

/// What is behind the next item, statement, field or variant.
fn behind_element(mut trees: &[Tree]) -> &[Tree] {
    let mut depth = 0_i32;
    let mut before: Option<&Tree> = None;
    while let [tree, rest @ ..] = trees {
        trees = rest;
        match tree {
            Tree::Mark('<') => depth += 1,
            // Not of `->` and `=>`.
            Tree::Mark('>') if !matches!(before, Some(Tree::Mark('-' | '='))) => depth -= 1,
            Tree::Mark(';') => break,
            Tree::Mark(',') if depth <= 0 => break,
            Tree::Group('{', _) => break,
            _ => {}
        }
        before = Some(tree);
    }
    trees
}
