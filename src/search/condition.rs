//! Conditions over a point's figures: `area_mm2 < 50 && power_w < 10`.
//!
//! Arithmetic (`+ - * /`), comparisons, `&&`, `||`, `!`, parentheses, names and numbers. A figure that is not known makes
//! every comparison with it false. (The crates that evaluate expressions are copyleft, unmaintained, or bring a language.)

use crate::error::{Error, Result};

/// A condition, its names resolved to places in a list of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    root: Node,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Number(f64),
    Name(usize),
    Not(Box<Node>),
    Minus(Box<Node>),
    Both(Operator, Box<Node>, Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Or,
    And,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    Unequal,
    Plus,
    Minus,
    Times,
    Over,
}

/// Operators by how strongly they bind, weakest first; a longer spelling comes before its beginning.
const LEVELS: [&[(&str, Operator)]; 5] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("==", Operator::Equal),
        ("!=", Operator::Unequal),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ],
    &[("+", Operator::Plus), ("-", Operator::Minus)],
    &[("*", Operator::Times), ("/", Operator::Over)],
];

/// Deepest nesting of parentheses and signs.
const DEPTH: usize = 100;

impl Condition {
    /// Reads a condition; `names` are what it may speak of.
    ///
    /// # Errors
    /// [`Error::Argument`] with the place, or a name that is not among `names`.
    pub fn parse(text: &str, names: &[String]) -> Result<Self> {
        let mut parser = Parser { text, at: 0, names, depth: 0 };
        let root = parser.level(0)?;
        parser.blank();
        if parser.at < text.len() {
            return Err(parser.refuse("an operator such as < or && was expected"));
        }
        Ok(Self { root })
    }

    /// Whether values satisfy it.
    pub fn holds(&self, values: &[f64]) -> bool {
        let value = self.root.value(values);
        value != 0.0 && !value.is_nan()
    }

    /// The parts that must all hold, so that the cheap ones may be asked first.
    pub fn conjuncts(self) -> Vec<Self> {
        match self.root {
            Node::Both(Operator::And, a, b) => {
                let mut all = Self { root: *a }.conjuncts();
                all.extend(Self { root: *b }.conjuncts());
                all
            }
            root => vec![Self { root }],
        }
    }

    /// Whether it speaks only of names that `known` says are known.
    pub fn speaks_of(&self, known: &dyn Fn(usize) -> bool) -> bool {
        self.root.all(known)
    }
}

impl Node {
    fn value(&self, values: &[f64]) -> f64 {
        let truth = |b: bool| f64::from(u8::from(b));
        match self {
            Self::Number(v) => *v,
            Self::Name(i) => values.get(*i).copied().unwrap_or(f64::NAN),
            Self::Not(a) => truth(a.value(values) == 0.0),
            Self::Minus(a) => -a.value(values),
            Self::Both(op, a, b) => {
                let (a, b) = (a.value(values), b.value(values));
                match op {
                    Operator::Or => truth((a != 0.0 && !a.is_nan()) || (b != 0.0 && !b.is_nan())),
                    Operator::And => truth(a != 0.0 && b != 0.0 && !a.is_nan() && !b.is_nan()),
                    Operator::Less => truth(a < b),
                    Operator::LessOrEqual => truth(a <= b),
                    Operator::Greater => truth(a > b),
                    Operator::GreaterOrEqual => truth(a >= b),
                    Operator::Equal => truth(a == b),
                    Operator::Unequal => truth(!a.is_nan() && !b.is_nan() && a != b),
                    Operator::Plus => a + b,
                    Operator::Minus => a - b,
                    Operator::Times => a * b,
                    Operator::Over => a / b,
                }
            }
        }
    }

    fn all(&self, known: &dyn Fn(usize) -> bool) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Name(i) => known(*i),
            Self::Not(a) | Self::Minus(a) => a.all(known),
            Self::Both(_, a, b) => a.all(known) && b.all(known),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    names: &'a [String],
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn refuse(&self, what: &str) -> Error {
        Error::argument("--where", format!("`{}`, at `{}`: {what}", self.text, self.rest()))
    }

    fn level(&mut self, level: usize) -> Result<Node> {
        let Some(operators) = LEVELS.get(level) else { return self.single() };
        let mut left = self.level(level + 1)?;
        loop {
            self.blank();
            let Some((spelled, op)) = operators.iter().find(|(s, _)| self.rest().starts_with(s)) else {
                return Ok(left);
            };
            self.at += spelled.len();
            let right = self.level(level + 1)?;
            left = Node::Both(*op, Box::new(left), Box::new(right));
        }
    }

    fn single(&mut self) -> Result<Node> {
        self.blank();
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.refuse("it is nested too deeply"));
        }
        let rest = self.rest();
        let node = match rest.chars().next() {
            Some('(') => {
                self.at += 1;
                let inner = self.level(0)?;
                self.blank();
                if !self.rest().starts_with(')') {
                    return Err(self.refuse("a closing parenthesis was expected"));
                }
                self.at += 1;
                inner
            }
            Some('!') => {
                self.at += 1;
                Node::Not(Box::new(self.single()?))
            }
            Some('-') => {
                self.at += 1;
                Node::Minus(Box::new(self.single()?))
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number()?,
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
                let name = &rest[..end.unwrap_or(rest.len())];
                let place = self.names.iter().position(|n| n == name);
                let known = self.names.iter().map(String::as_str);
                let place = place.ok_or_else(|| Error::unknown("figure", name, known))?;
                self.at += name.len();
                Node::Name(place)
            }
            _ => return Err(self.refuse("a number, a figure's name or a parenthesis was expected")),
        };
        self.depth -= 1;
        Ok(node)
    }

    fn number(&mut self) -> Result<Node> {
        let rest = self.rest();
        let mut end = 0;
        for (i, c) in rest.char_indices() {
            let exponent = i > 0 && matches!(rest.as_bytes()[i - 1], b'e' | b'E');
            if c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '_') || (exponent && matches!(c, '+' | '-')) {
                end = i + 1;
            } else {
                break;
            }
        }
        let value = rest[..end].replace('_', "").parse().map_err(|_| self.refuse("this is not a number"))?;
        self.at += end;
        Ok(Node::Number(value))
    }
}
