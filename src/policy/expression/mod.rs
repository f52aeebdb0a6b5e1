//! The part of CEL in which validations are written: texts, whole numbers, true and false, and lists of
//! them. It means exactly what it means to approver-policy.
//!
//! The parser is the `cel` crate's. Types are checked here and expressions are evaluated here, because
//! the crate checks no types and differs from approver-policy's CEL in many small things, of which some
//! allow what approver-policy denies. What is outside this part of the language is refused when a
//! policy is read.

mod check;
mod evaluate;
mod functions;
mod pattern;
mod text;

use kube_cel::cel::parser::Parser;
use regex::Regex;

use self::functions::Function;
use crate::cel::{self, Limits};
use crate::policy::Request;

/// How large an expression may be.
const LIMITS: Limits = Limits {
    chars: 4_096,
    nesting: 16,
    operators: 256,
    walks: 2,
};

/// An expression whose types have been checked; its value is true or false.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    root: Node,
}

/// One step of an expression.
#[derive(Clone, Debug)]
enum Node {
    Constant(Value),
    List(Vec<Self>),
    /// A variable of the policy.
    Given(Given),
    /// A variable of a walk, by how many walks further out it was begun, and which of the two it is.
    Local(usize, Local),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    If(Box<Self>, Box<Self>, Box<Self>),
    /// False only if the value is false, and not if it cannot be computed.
    NotStrictlyFalse(Box<Self>),
    Call(Function, Vec<Self>),
    /// `matches` with a pattern that is known beforehand.
    Matches(Box<Self>, Regex),
    Walk(Box<Walk>),
}

/// A walk over a list: `all`, `exists`, `exists_one`, `map` or `filter`.
#[derive(Clone, Debug)]
struct Walk {
    range: Node,
    begin: Node,
    condition: Node,
    step: Node,
    result: Node,
}

/// Which variable of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Local {
    /// The element.
    Element,
    /// What the walk has come to so far.
    Sum,
}

/// What a policy's expressions can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Itself,
    CrName,
    CrNamespace,
    IssuerName,
    IssuerKind,
    IssuerGroup,
    Usages,
}

/// What an expression comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Self>),
}

impl Expression {
    /// Reads an expression; the error says what is wrong with it.
    pub(super) fn compile(written: &str) -> Result<Self, String> {
        if written.chars().count() > LIMITS.chars {
            return Err(format!("it is longer than {} characters", LIMITS.chars));
        }
        let text = text::rewrite(written)?;
        let limits = Limits {
            chars: usize::MAX,
            ..LIMITS
        };
        cel::check_form(&text, &limits)?;
        let compile = || {
            let parsed = Parser::new().parse(&text);
            let parsed = parsed.map_err(|errors| first_line(&errors.to_string()))?;
            check::check(&parsed)
        };
        let root = cel::with_stack(&LIMITS, compile)??;
        Ok(Self { root })
    }

    /// Whether it holds for `value`, which `request` asks for; the error says why that cannot be told.
    pub(super) fn holds(&self, value: &str, request: &Request) -> Result<bool, String> {
        cel::with_stack(&LIMITS, || evaluate::run(&self.root, value, request))?
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests;
