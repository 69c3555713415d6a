//! Rust source as trees of tokens, as far as the walls need it: names, `::`, other characters, texts and groups. Comments, numbers,
//! characters in quotes and lifetimes are left out. `syn` is not used: what it shares with the macros of all other crates would be built in
//! a second way, and they with it.

use crate::graph::Problem;

/// A token, or a group of them in brackets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tree {
    /// A name or a keyword.
    Name(String),
    /// `::`
    Separator,
    /// Any other character.
    Mark(char),
    /// The text between quotes, as it stands there.
    Text(String),
    /// The opening bracket, and what is inside.
    Group(char, Vec<Self>),
}

impl Tree {
    /// Whether it is this name.
    #[must_use]
    pub fn is_name(&self, wanted: &str) -> bool {
        matches!(self, Self::Name(name) if name == wanted)
    }
}

/// Reads a file.
///
/// # Errors
/// Where brackets don't match.
pub fn read(text: &str) -> Result<Vec<Tree>, Problem> {
    let mut source = Source { rest: text };
    let mut open: Vec<(char, Vec<Tree>)> = Vec::new();
    let mut trees = Vec::new();
    while let Some(next) = source.rest.chars().next() {
        match next {
            '(' | '[' | '{' => {
                source.take(1);
                open.push((next, std::mem::take(&mut trees)));
            }
            ')' | ']' | '}' => {
                source.take(1);
                let (bracket, before) = open.pop().ok_or("a bracket too many")?;
                let inside = std::mem::replace(&mut trees, before);
                trees.push(Tree::Group(bracket, inside));
            }
            _ => trees.extend(source.token(next)),
        }
    }
    if open.is_empty() { Ok(trees) } else { Err("a bracket is not closed".into()) }
}

fn is_of_name(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

struct Source<'a> {
    rest: &'a str,
}

impl<'a> Source<'a> {
    /// The next bytes, fewer at the end.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|character| !wanted(character)).unwrap_or(self.rest.len()))
    }

    /// Up to this text and with it.
    fn take_through(&mut self, end: &str) -> &'a str {
        let at = self.rest.find(end).unwrap_or(self.rest.len());
        let taken = self.take(at);
        self.take(end.len());
        taken
    }

    fn token(&mut self, next: char) -> Option<Tree> {
        if self.rest.starts_with("//") {
            self.take_through("\n");
        } else if self.rest.starts_with("/*") {
            self.comment();
        } else if self.rest.starts_with("::") {
            self.take(2);
            return Some(Tree::Separator);
        } else if next == '"' {
            return Some(self.text());
        } else if next == '\'' {
            self.quoted();
        } else if next.is_ascii_digit() {
            self.number();
        } else if is_of_name(next) {
            return self.name();
        } else {
            self.take(next.len_utf8());
            return if next.is_whitespace() { None } else { Some(Tree::Mark(next)) };
        }
        None
    }

    /// Comments in blocks may hold others.
    fn comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
            } else if let Some(next) = self.rest.chars().next() {
                self.take(next.len_utf8());
            } else {
                return;
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn text(&mut self) -> Tree {
        self.take(1);
        let mut escaped = false;
        let end = self.rest.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        let text = self.take(end.unwrap_or(self.rest.len())).to_owned();
        self.take(1);
        Tree::Text(text)
    }

    /// `'x'`, `'\n'`, or a lifetime.
    fn quoted(&mut self) {
        self.take(1);
        let mut characters = self.rest.chars();
        match (characters.next(), characters.next()) {
            (Some('\\'), Some(escaped)) => {
                self.take(1 + escaped.len_utf8());
                self.take_through("'");
            }
            (Some(character), Some('\'')) => {
                self.take(character.len_utf8() + 1);
            }
            _ => {
                self.take_while(is_of_name);
            }
        }
    }

    fn number(&mut self) {
        self.take_while(is_of_name);
        if self.rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit())) {
            self.take(1);
            self.take_while(is_of_name);
        }
    }

    /// A name, or a text with letters before it: `b"…"`, `r#"…"#`.
    fn name(&mut self) -> Option<Tree> {
        let name = self.take_while(is_of_name);
        if name.ends_with('r') && name.len() <= 2 && self.rest.starts_with(['#', '"']) {
            let hashes = self.take_while(|character| character == '#');
            if self.rest.starts_with('"') {
                self.take(1);
                return Some(Tree::Text(self.take_through(&format!("\"{hashes}")).to_owned()));
            }
            // `r#type` is no keyword.
            return Some(Tree::Name(format!("r#{}", self.take_while(is_of_name))));
        }
        match (name, self.rest.chars().next()) {
            ("b" | "c", Some('"')) => Some(self.text()),
            ("b", Some('\'')) => {
                self.quoted();
                None
            }
            _ => Some(Tree::Name(name.to_owned())),
        }
    }
}
