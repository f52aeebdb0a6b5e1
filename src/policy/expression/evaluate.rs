//! Evaluates an expression. What cannot be computed is an error, which `&&` and `||` swallow where the
//! other side decides, as CEL's do.

use super::functions::call;
use super::{Given, Local, Node, Value, Walk};
use crate::policy::Request;

/// Most steps of one evaluation.
const STEPS_MAX: u32 = 1_000_000;

type Answer = Result<Value, String>;

/// Whether `root` holds for `value`.
pub(super) fn run(root: &Node, value: &str, request: &Request) -> Result<bool, String> {
    let mut evaluation = Evaluation {
        value,
        request,
        walks: Vec::new(),
        steps: 0,
    };
    truth(evaluation.run(root))
}

struct Evaluation<'a> {
    value: &'a str,
    request: &'a Request,
    walks: Vec<(Value, Answer)>,
    steps: u32,
}

impl Evaluation<'_> {
    fn run(&mut self, node: &Node) -> Answer {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(format!("it takes more than {STEPS_MAX} steps"));
        }
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::List(elements) => {
                let values = elements.iter().map(|element| self.run(element));
                values.collect::<Result<_, _>>().map(Value::List)
            }
            Node::Given(given) => Ok(self.given(*given)),
            Node::Local(outer, which) => self.local(*outer, *which),
            Node::Not(inner) => self.truth(inner).map(|answer| Value::Bool(!answer)),
            Node::And(left, right) => self.decided_by(false, left, right),
            Node::Or(left, right) => self.decided_by(true, left, right),
            Node::If(condition, yes, no) => {
                let chosen = if self.truth(condition)? { yes } else { no };
                self.run(chosen)
            }
            Node::NotStrictlyFalse(inner) => {
                let answer = self.run(inner);
                Ok(Value::Bool(answer != Ok(Value::Bool(false))))
            }
            Node::Call(function, parts) => {
                let values = parts.iter().map(|part| self.run(part));
                let values = values.collect::<Result<Vec<_>, _>>()?;
                self.steps = self.steps.saturating_add(values.iter().map(cost).sum());
                call(*function, &values)
            }
            Node::Matches(subject, pattern) => match self.run(subject)? {
                Value::Text(text) => Ok(Value::Bool(pattern.is_match(&text))),
                _ => Err("only a text can match a pattern".to_owned()),
            },
            Node::Walk(walk) => self.walk(walk),
        }
    }

    fn given(&self, given: Given) -> Value {
        let Request {
            name,
            namespace,
            issuer,
            usages,
            ..
        } = self.request;
        let text: &str = match given {
            Given::Itself => self.value,
            Given::CrName => name,
            Given::CrNamespace => namespace,
            Given::IssuerName => &issuer.name,
            Given::IssuerKind => &issuer.kind,
            Given::IssuerGroup => issuer.group(),
            Given::Usages => {
                return Value::List(usages.iter().cloned().map(Value::Text).collect());
            }
        };
        Value::Text(text.to_owned())
    }

    fn local(&self, outer: usize, which: Local) -> Answer {
        let walk = self.walks.iter().rev().nth(outer);
        let (element, sum) = walk.ok_or_else(|| "a variable is unknown".to_owned())?;
        match which {
            Local::Element => Ok(element.clone()),
            Local::Sum => sum.clone(),
        }
    }

    fn truth(&mut self, node: &Node) -> Result<bool, String> {
        truth(self.run(node))
    }

    /// `&&` is decided by a false side, `||` by a true one, whatever the other side is.
    fn decided_by(&mut self, decisive: bool, left: &Node, right: &Node) -> Answer {
        let left = self.truth(left);
        if left == Ok(decisive) {
            return Ok(Value::Bool(decisive));
        }
        let right = self.truth(right);
        if right == Ok(decisive) {
            return Ok(Value::Bool(decisive));
        }
        left.and(right).map(Value::Bool)
    }

    fn walk(&mut self, walk: &Walk) -> Answer {
        let Value::List(elements) = self.run(&walk.range)? else {
            return Err("only a list can be walked over".to_owned());
        };
        let begin = self.run(&walk.begin);
        self.walks.push((Value::Bool(false), begin));
        let answer = self.body(walk, elements);
        self.walks.pop();
        answer
    }

    fn body(&mut self, walk: &Walk, elements: Vec<Value>) -> Answer {
        for next in elements {
            if let Some((element, _)) = self.walks.last_mut() {
                *element = next;
            }
            if !self.truth(&walk.condition)? {
                break;
            }
            let step = self.run(&walk.step);
            if let Some((_, sum)) = self.walks.last_mut() {
                *sum = step;
            }
        }
        self.run(&walk.result)
    }
}

/// What a function pays for a value beside its step.
fn cost(value: &Value) -> u32 {
    match value {
        Value::Bool(_) | Value::Int(_) => 0,
        Value::Text(text) => u32::try_from(text.len() / 64).unwrap_or(STEPS_MAX),
        Value::List(list) => u32::try_from(list.len() / 4).unwrap_or(STEPS_MAX),
    }
}

fn truth(answer: Answer) -> Result<bool, String> {
    match answer? {
        Value::Bool(answer) => Ok(answer),
        _ => Err("a value is neither true nor false".to_owned()),
    }
}
