//! The words of an expression.

use std::{iter::Peekable, str::CharIndices};

use super::problem::Problem;

/// A word or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, `true`, `false`, `null` or `in`.
    Name(String),
    /// A whole number, without its sign.
    Number(u64),
    /// A text, without its quotes.
    Text(String),
    /// Brackets and operators.
    Sign(&'static str),
    /// The end of the source.
    End,
}

/// A token, and the byte where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) at: usize,
    pub(super) token: Token,
}

/// Signs, those first that begin like a shorter one.
const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "?", ":", "(", ")", "[", "]", "{", "}", ".", ",", "+", "-", "*", "/", "%",
];

/// What CEL keeps for itself.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// All tokens of a source, the last of them [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<Placed>, Problem> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        tokens.push(Placed { at, token });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.at += rest.len() - blank.len();
            if !blank.starts_with("//") {
                return;
            }
            self.at += blank.find('\n').unwrap_or(blank.len());
        }
    }

    /// Takes what matches.
    fn take_while(&mut self, matches: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|character| !matches(character)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn token(&mut self) -> Result<Token, Problem> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        if let Some((raw, bytes, prefix)) = quote(rest) {
            if bytes {
                return Err(Problem::syntax(self.at, "filters have no bytes: write a text, without b"));
            }
            self.at += prefix;
            return self.text(raw).map(Token::Text);
        }
        match first {
            'a'..='z' | 'A'..='Z' | '_' => self.name(),
            '0'..='9' => self.number(),
            '.' if rest[1..].starts_with(|next: char| next.is_ascii_digit()) => Err(self.no_fractions()),
            _ => match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
                Some(sign) => {
                    self.at += sign.len();
                    Ok(Token::Sign(sign))
                }
                None => Err(Problem::syntax(self.at, hint(rest))),
            },
        }
    }

    fn name(&mut self) -> Result<Token, Problem> {
        let at = self.at;
        let name = self.take_while(|next| next.is_ascii_alphanumeric() || next == '_');
        if RESERVED.contains(&name) {
            return Err(Problem::syntax(at, format!("{name} is a reserved word")));
        }
        Ok(Token::Name(name.to_owned()))
    }

    fn no_fractions(&self) -> Problem {
        Problem::syntax(self.at, "filters have whole numbers only")
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let at = self.at;
        let hexadecimal = self.rest().strip_prefix("0x").or_else(|| self.rest().strip_prefix("0X")).is_some();
        let (digits, radix) = if hexadecimal {
            self.at += 2;
            (self.take_while(|next| next.is_ascii_hexdigit()), 16)
        } else {
            (self.take_while(|next| next.is_ascii_digit()), 10)
        };
        let follows = self.rest();
        let fraction = follows.strip_prefix('.').is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()));
        if fraction || radix == 10 && follows.starts_with(['e', 'E']) {
            self.at = at;
            return Err(self.no_fractions());
        }
        if follows.starts_with(['u', 'U']) {
            return Err(Problem::syntax(at, "filters have numbers with a sign only: write it without u"));
        }
        if digits.is_empty() || follows.starts_with(|next: char| next.is_alphanumeric() || next == '_') {
            return Err(Problem::syntax(at, "this is no number"));
        }
        u64::from_str_radix(digits, radix).map(Token::Number).map_err(|_| Problem::syntax(at, "the number is too large"))
    }

    /// From its opening quote on.
    fn text(&mut self, raw: bool) -> Result<String, Problem> {
        let start = self.at;
        let rest = self.rest();
        let single = rest.get(..1).unwrap_or_default();
        let triple = rest.get(..3).filter(|three| ["\"\"\"", "'''"].contains(three));
        let quotes = triple.unwrap_or(single);
        let mut text = String::new();
        let inner = rest.get(quotes.len()..).unwrap_or_default();
        let mut characters = inner.char_indices().peekable();
        while let Some((index, character)) = characters.next() {
            let here = start + quotes.len() + index;
            if inner.get(index..).is_some_and(|rest| rest.starts_with(quotes)) {
                self.at = here + quotes.len();
                return Ok(text);
            }
            match character {
                '\\' if !raw => text.push(escape(&mut characters).ok_or_else(|| {
                    Problem::syntax(here, "unknown escape: write \\\\ for a backslash, or r\"…\" for a text without escapes")
                })?),
                '\r' | '\n' if triple.is_none() => break,
                // Line ends are the same, however they were written.
                '\r' => {
                    characters.next_if(|(_, next)| *next == '\n');
                    text.push('\n');
                }
                other => text.push(other),
            }
        }
        Err(Problem::syntax(start, "the text has no closing quote"))
    }
}

/// Whether a text begins here: whether it is raw, whether it is of bytes, and how long what is before its quote is.
fn quote(rest: &str) -> Option<(bool, bool, usize)> {
    let prefix = rest.bytes().take(3).position(|byte| matches!(byte, b'"' | b'\''))?;
    match rest.get(..prefix)?.to_ascii_lowercase().as_str() {
        "" => Some((false, false, prefix)),
        "r" => Some((true, false, prefix)),
        "b" | "br" | "rb" => Some((false, true, prefix)),
        _ => None,
    }
}

fn escape(characters: &mut Peekable<CharIndices<'_>>) -> Option<char> {
    let (_, kind) = characters.next()?;
    let mut digits = |count: usize, radix: u32, first: u32| {
        (0..count).try_fold(first, |value, _| {
            let (_, digit) = characters.next()?;
            Some(value * radix + digit.to_digit(radix)?)
        })
    };
    match kind {
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        '\\' | '\'' | '"' | '`' | '?' => Some(kind),
        'x' | 'X' => char::from_u32(digits(2, 16, 0)?),
        'u' => char::from_u32(digits(4, 16, 0)?),
        // Eight digits fit into 32 bits.
        'U' => char::from_u32(digits(8, 16, 0)?),
        '0'..='3' => char::from_u32(digits(2, 8, kind.to_digit(8)?)?),
        _ => None,
    }
}

fn hint(rest: &str) -> &'static str {
    match rest.chars().next() {
        Some('=') => "one = is no operator: write == to compare",
        Some('&') => "one & is no operator: write && for and",
        Some('|') => "one | is no operator: write || for or",
        Some('`') => "filters have no quoted names: write metadata[\"a-name\"]",
        _ => "no expression has this character outside of a text",
    }
}
