//! The grammar of CEL, as far as filters have it. What is deeper than [`MAX_DEPTH`] is refused before the parser goes there: neither it
//! nor what walks its tree can run out of stack.

use super::{
    problem::Problem,
    token::{Placed, Token, tokens},
};

/// How deep an expression may be nested.
pub(super) const MAX_DEPTH: usize = 32;

/// A part of an expression, and the byte that names it in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) at: usize,
    pub(super) form: Form,
    /// Levels of the tree from here on.
    height: usize,
}

impl Syntax {
    /// Refuses a tree that is too high: what stands behind closing brackets may be so without ever having been deep for the parser.
    fn new(at: usize, form: Form) -> Result<Self, Problem> {
        let height = 1 + match &form {
            Form::Flag(_) | Form::Number(_) | Form::Text(_) | Form::Name(_) => 0,
            Form::List(items) | Form::All(items) | Form::Any(items) => highest(items),
            Form::Field(of, _) | Form::Not(of) | Form::Negative(of) => of.height,
            Form::Index(left, right) | Form::Binary(_, left, right) => left.height.max(right.height),
            Form::Call(target, _, arguments) => target.as_ref().map_or(0, |target| target.height).max(highest(arguments)),
            Form::Choice(parts) => highest(&**parts),
        };
        if height > MAX_DEPTH {
            return Err(too_deep(at));
        }
        Ok(Self { at, form, height })
    }
}

fn highest(parts: &[Syntax]) -> usize {
    parts.iter().map(|part| part.height).max().unwrap_or(0)
}

fn too_deep(at: usize) -> Problem {
    Problem::limit(at, format!("a filter is nested at most {MAX_DEPTH} levels deep"))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Flag(bool),
    Number(i64),
    Text(String),
    Name(String),
    List(Vec<Syntax>),
    /// `of.field`
    Field(Box<Syntax>, String),
    /// `of[index]`
    Index(Box<Syntax>, Box<Syntax>),
    /// `function(arguments)` or `target.function(arguments)`
    Call(Option<Box<Syntax>>, String, Vec<Syntax>),
    Not(Box<Syntax>),
    Negative(Box<Syntax>),
    /// Joined by `&&`.
    All(Vec<Syntax>),
    /// Joined by `||`.
    Any(Vec<Syntax>),
    Binary(&'static str, Box<Syntax>, Box<Syntax>),
    Choice(Box<[Syntax; 3]>),
}

/// The tree of a source.
pub(super) fn parse(source: &str) -> Result<Syntax, Problem> {
    let mut parser = Parser { tokens: tokens(source)?, next: 0, depth: 0 };
    let syntax = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(syntax),
        other => Err(Problem::syntax(parser.at(), format!("the expression ends before {}", shown(other)))),
    }
}

struct Parser {
    tokens: Vec<Placed>,
    next: usize,
    /// How deep the part is that is read now.
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |placed| &placed.token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |placed| placed.at)
    }

    fn advance(&mut self) {
        self.next += 1;
    }

    /// Takes one of these signs where it comes next.
    fn take(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        let Token::Sign(sign) = self.peek() else { return None };
        let sign = *sign;
        signs.contains(&sign).then(|| {
            self.advance();
            sign
        })
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Problem> {
        match self.take(&[sign]) {
            Some(_) => Ok(()),
            None => Err(Problem::syntax(self.at(), format!("{sign} is missing before {}", shown(self.peek())))),
        }
    }

    /// One level deeper, before anything is read there.
    fn descend(&mut self, levels: usize) -> Result<(), Problem> {
        self.depth += levels;
        if self.depth > MAX_DEPTH {
            return Err(too_deep(self.at()));
        }
        Ok(())
    }

    fn expression(&mut self) -> Result<Syntax, Problem> {
        let before = self.depth;
        self.descend(1)?;
        let condition = self.any()?;
        let at = self.at();
        let syntax = if self.take(&["?"]).is_some() {
            let then = self.any()?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            Syntax::new(at, Form::Choice(Box::new([condition, then, otherwise])))?
        } else {
            condition
        };
        self.depth = before;
        Ok(syntax)
    }

    /// Terms that one operator joins: not nested, however many they are.
    fn joined(
        &mut self,
        sign: &'static str,
        term: fn(&mut Self) -> Result<Syntax, Problem>,
        join: fn(Vec<Syntax>) -> Form,
    ) -> Result<Syntax, Problem> {
        let first = term(self)?;
        let at = self.at();
        if self.peek() != &Token::Sign(sign) {
            return Ok(first);
        }
        let before = self.depth;
        self.descend(1)?;
        let mut terms = vec![first];
        while self.take(&[sign]).is_some() {
            terms.push(term(self)?);
        }
        self.depth = before;
        Syntax::new(at, join(terms))
    }

    fn any(&mut self) -> Result<Syntax, Problem> {
        self.joined("||", Self::all, Form::Any)
    }

    fn all(&mut self) -> Result<Syntax, Problem> {
        self.joined("&&", Self::relation, Form::All)
    }

    /// Operators of one rank, the left ones first: each is a level of its own.
    fn ranked(&mut self, signs: &[&'static str], term: fn(&mut Self) -> Result<Syntax, Problem>) -> Result<Syntax, Problem> {
        let before = self.depth;
        let mut left = term(self)?;
        loop {
            let at = self.at();
            let sign = match self.take(signs) {
                Some(sign) => sign,
                None if signs.contains(&"in") && self.peek() == &Token::Name("in".to_owned()) => {
                    self.advance();
                    "in"
                }
                None => break,
            };
            self.descend(1)?;
            let right = term(self)?;
            left = Syntax::new(at, Form::Binary(sign, Box::new(left), Box::new(right)))?;
        }
        self.depth = before;
        Ok(left)
    }

    fn relation(&mut self) -> Result<Syntax, Problem> {
        self.ranked(&["==", "!=", "<=", ">=", "<", ">", "in"], Self::sum)
    }

    fn sum(&mut self) -> Result<Syntax, Problem> {
        self.ranked(&["+", "-"], Self::product)
    }

    fn product(&mut self) -> Result<Syntax, Problem> {
        self.ranked(&["*", "/", "%"], Self::unary)
    }

    fn unary(&mut self) -> Result<Syntax, Problem> {
        let before = self.depth;
        let first = self.at();
        let Some(sign) = self.take(&["!", "-"]) else { return self.member() };
        let mut places = vec![first];
        self.descend(1)?;
        loop {
            let at = self.at();
            if self.take(&[sign]).is_none() {
                break;
            }
            self.descend(1)?;
            places.push(at);
        }
        // The smallest number has no positive counterpart.
        let mut inner = match (sign, self.peek()) {
            ("-", Token::Number(number)) if is_last_operand(self.tokens.get(self.next + 1)) => {
                let number = 0_i64.checked_sub_unsigned(*number);
                let number = number.ok_or_else(|| Problem::syntax(self.at(), "the number is too large"))?;
                self.advance();
                places.pop();
                Syntax::new(first, Form::Number(number))?
            }
            _ => self.member()?,
        };
        while let Some(at) = places.pop() {
            let form = if sign == "!" { Form::Not(Box::new(inner)) } else { Form::Negative(Box::new(inner)) };
            inner = Syntax::new(at, form)?;
        }
        self.depth = before;
        Ok(inner)
    }

    fn member(&mut self) -> Result<Syntax, Problem> {
        let before = self.depth;
        let mut of = self.primary()?;
        while let Some(sign) = self.take(&[".", "["]) {
            self.descend(1)?;
            let at = self.at();
            of = if sign == "[" {
                let index = self.expression()?;
                self.expect("]")?;
                Syntax::new(at, Form::Index(Box::new(of), Box::new(index)))?
            } else {
                let Token::Name(name) = self.peek().clone() else {
                    return Err(Problem::syntax(at, format!("a name is missing before {}", shown(self.peek()))));
                };
                self.advance();
                if self.take(&["("]).is_some() {
                    Syntax::new(at, Form::Call(Some(Box::new(of)), name, self.list(")")?))?
                } else {
                    Syntax::new(at, Form::Field(Box::new(of), name))?
                }
            };
        }
        self.depth = before;
        Ok(of)
    }

    fn primary(&mut self) -> Result<Syntax, Problem> {
        let at = self.at();
        let token = self.peek().clone();
        self.advance();
        let form = match token {
            Token::Text(text) => Form::Text(text),
            Token::Number(number) => {
                Form::Number(i64::try_from(number).map_err(|_| Problem::syntax(at, "the number is too large"))?)
            }
            Token::Name(name) => match name.as_str() {
                "true" => Form::Flag(true),
                "false" => Form::Flag(false),
                "null" => return Err(Problem::syntax(at, "filters have no null: ask with has(…) whether there is a value")),
                "in" => return Err(Problem::syntax(at, "a value is missing before in")),
                _ if self.take(&["("]).is_some() => Form::Call(None, name, self.list(")")?),
                _ => Form::Name(name),
            },
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => Form::List(self.list("]")?),
            Token::Sign("{") => return Err(Problem::syntax(at, "filters have no maps and messages of their own")),
            other => return Err(Problem::syntax(at, format!("a value is missing before {}", shown(&other)))),
        };
        Syntax::new(at, form)
    }

    /// Expressions up to the closing sign, which is taken, too.
    fn list(&mut self, closing: &'static str) -> Result<Vec<Syntax>, Problem> {
        let mut items = Vec::new();
        while self.take(&[closing]).is_none() {
            if !items.is_empty() {
                self.expect(",")?;
                // A list may end with a comma; arguments may not.
                if closing == "]" && self.take(&["]"]).is_some() {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }
}

/// Whether nothing that binds more closely than a sign follows a number.
fn is_last_operand(next: Option<&Placed>) -> bool {
    !matches!(next, Some(Placed { token: Token::Sign("." | "["), .. }))
}

fn shown(token: &Token) -> String {
    match token {
        Token::Name(name) => clipped(name),
        Token::Number(number) => number.to_string(),
        Token::Text(_) => "a text".to_owned(),
        Token::Sign(sign) => (*sign).to_owned(),
        Token::End => "its end".to_owned(),
    }
}

/// A name as a message has it: names are of ASCII letters, digits and underscores.
pub(super) fn clipped(name: &str) -> String {
    const MOST: usize = 40;
    name.get(..MOST).map_or_else(|| name.to_owned(), |start| format!("{start}…"))
}
