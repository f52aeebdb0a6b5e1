//! Checks the types of an expression, as approver-policy's compiler does, and refuses what is not
//! supported.

use std::fmt;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, LiteralValue, SelectExpr, operators,
};

use super::functions::{FUNCTIONS, Function};
use super::{Given, Local, Node, Value, Walk, pattern};

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Text,
    List(Box<Self>),
    /// The element of a list that has none.
    Any,
}

/// Names that CEL keeps for itself, so that no variable may have them.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];
/// Functions of CEL, or of approver-policy, that exist there and not here.
const UNSUPPORTED: [&str; 13] = [
    "type",
    "dyn",
    "double",
    "uint",
    "bytes",
    "timestamp",
    "duration",
    "format",
    "quote",
    "has",
    "getName",
    "getNamespace",
    "serviceAccount",
];

/// Checks an expression and makes steps of it.
pub(super) fn check(parsed: &IdedExpr) -> Result<Node, String> {
    let mut checker = Checker { walks: Vec::new() };
    let (root, kind) = checker.check(parsed)?;
    match kind {
        Type::Bool => Ok(root),
        other => Err(format!("it gives a {other}, not true or false")),
    }
}

#[derive(Default)]
struct Checker {
    walks: Vec<Variables>,
}

/// The variables of one walk.
struct Variables {
    element: (String, Type),
    sum: (String, Type),
    /// Whether the element can be named: not where the walk begins and ends.
    has_element: bool,
}

type Checked = (Node, Type);

impl Checker {
    fn check(&mut self, expression: &IdedExpr) -> Result<Checked, String> {
        match &expression.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.field(select),
            Expr::List(list) => self.list(&list.elements),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(walk) => self.walk(walk),
            Expr::Map(_) | Expr::Struct(_) => Err("maps and messages are not supported".to_owned()),
            Expr::Unspecified => Err("a part of it is missing".to_owned()),
        }
    }

    fn local(&self, name: &str) -> Option<Checked> {
        let walks = self.walks.iter().rev().enumerate();
        for (outer, walk) in walks {
            let (element, kind) = &walk.element;
            if walk.has_element && element == name {
                return Some((Node::Local(outer, Local::Element), kind.clone()));
            }
            let (sum, kind) = &walk.sum;
            if sum == name {
                return Some((Node::Local(outer, Local::Sum), kind.clone()));
            }
        }
        None
    }

    fn variable(&self, name: &str) -> Result<Checked, String> {
        if let Some(found) = self.local(name) {
            return Ok(found);
        }
        match name {
            "self" => Ok((Node::Given(Given::Itself), Type::Text)),
            "usages" => {
                let kind = Type::List(Box::new(Type::Text));
                Ok((Node::Given(Given::Usages), kind))
            }
            "cr" | "issuer" => Err(format!(
                "{name} is not a value: name a field of it, {FIELDS}"
            )),
            _ => Err(format!(
                "{name:?} is not a variable: there are self, usages, {FIELDS}"
            )),
        }
    }

    fn field(&mut self, select: &SelectExpr) -> Result<Checked, String> {
        if select.test {
            return Err("has() is not supported: every field is always there".to_owned());
        }
        let Expr::Ident(object) = &select.operand.expr else {
            return Err(format!("what .{} is taken of has no fields", select.field));
        };
        if self.local(object).is_some() || matches!(object.as_str(), "self" | "usages") {
            return Err(format!("{object} has no field {:?}", select.field));
        }
        let given = match (object.as_str(), select.field.as_str()) {
            ("cr", "name") => Given::CrName,
            ("cr", "namespace") => Given::CrNamespace,
            ("issuer", "name") => Given::IssuerName,
            ("issuer", "kind") => Given::IssuerKind,
            ("issuer", "group") => Given::IssuerGroup,
            ("cr", "username") => {
                return Err(
                    "cr.username is not supported: what Bouncert signs itself is asked for by \
                     no user"
                        .to_owned(),
                );
            }
            (object, field) => {
                return Err(format!(
                    "{object}.{field} does not exist: there are {FIELDS}"
                ));
            }
        };
        Ok((Node::Given(given), Type::Text))
    }

    fn list(&mut self, elements: &[IdedExpr]) -> Result<Checked, String> {
        let mut nodes = Vec::with_capacity(elements.len());
        let mut common = Type::Any;
        for element in elements {
            let (node, kind) = self.check(element)?;
            common = join(&common, &kind).ok_or_else(|| {
                format!("a list of {common} and {kind} is not supported: write one type")
            })?;
            nodes.push(node);
        }
        Ok((Node::List(nodes), Type::List(Box::new(common))))
    }

    fn call(&mut self, call: &CallExpr) -> Result<Checked, String> {
        let name = call.func_name.as_str();
        if let Some(target) = &call.target
            && let Expr::Ident(space) = &target.expr
            && self.local(space).is_none()
            && !["self", "usages", "cr", "issuer"].contains(&space.as_str())
        {
            return Err(format!(
                "{space}.{name}() {}",
                if UNSUPPORTED.contains(&name) {
                    "is not supported"
                } else {
                    "does not exist"
                }
            ));
        }
        let parts = call.target.as_deref().into_iter().chain(&call.args);
        let parts = parts.map(|part| self.check(part));
        let (nodes, types): (Vec<Node>, Vec<Type>) =
            parts.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        match operator(name, nodes, &types) {
            Ok(checked) => checked,
            Err(nodes) => function(name, call.target.is_some(), nodes, &types),
        }
    }

    fn walk(&mut self, walk: &ComprehensionExpr) -> Result<Checked, String> {
        let (range, kind) = self.check(&walk.iter_range)?;
        let Type::List(element) = kind else {
            return Err(format!("a {kind} cannot be walked over: split it first"));
        };
        if RESERVED.contains(&walk.iter_var.as_str()) || walk.iter_var2.is_some() {
            return Err(format!(
                "{:?} cannot be the name of a variable",
                walk.iter_var
            ));
        }
        let (begin, sum) = self.check(&walk.accu_init)?;
        self.walks.push(Variables {
            element: (walk.iter_var.clone(), *element),
            sum: (walk.accu_var.clone(), sum),
            has_element: true,
        });
        let body = self.body(walk);
        self.walks.pop();
        let (condition, step, (result, kind)) = body?;
        let walk = Walk {
            range,
            begin,
            condition,
            step,
            result,
        };
        Ok((Node::Walk(Box::new(walk)), kind))
    }

    fn body(&mut self, walk: &ComprehensionExpr) -> Result<(Node, Node, Checked), String> {
        let (condition, _) = self.check(&walk.loop_cond)?;
        let (step, kind) = self.check(&walk.loop_step)?;
        let innermost = self.walks.last_mut();
        let variables = innermost.ok_or_else(|| "a part of it is missing".to_owned())?;
        variables.sum.1 = join(&variables.sum.1, &kind)
            .ok_or_else(|| format!("a walk has to give true or false, not a {kind}"))?;
        variables.has_element = false;
        Ok((condition, step, self.check(&walk.result)?))
    }
}

const FIELDS: &str = "cr.name, cr.namespace, issuer.name, issuer.kind and issuer.group";

fn constant(literal: &LiteralValue) -> Result<Checked, String> {
    let unsupported = |what: &str| Err(format!("{what} is not supported"));
    match literal {
        LiteralValue::Boolean(value) => {
            Ok((Node::Constant(Value::Bool(*value.inner())), Type::Bool))
        }
        LiteralValue::Int(value) => Ok((Node::Constant(Value::Int(*value.inner())), Type::Int)),
        LiteralValue::String(value) => {
            let text = value.inner().to_owned();
            Ok((Node::Constant(Value::Text(text)), Type::Text))
        }
        LiteralValue::Double(_) => unsupported("a number with a fraction"),
        LiteralValue::UInt(_) => unsupported("a number without a sign (u)"),
        LiteralValue::Bytes(_) => unsupported("a string of octets"),
        LiteralValue::Null => unsupported("null"),
    }
}

/// The node of an operator, or the nodes again where `name` is none.
fn operator(
    name: &str,
    nodes: Vec<Node>,
    types: &[Type],
) -> Result<Result<Checked, String>, Vec<Node>> {
    use Type::{Bool, Int, Text};
    let wrong = || {
        let types: Vec<String> = types.iter().map(ToString::to_string).collect();
        Err(format!("{name} is not defined for {}", types.join(" and ")))
    };
    let logic = |right: bool, make: fn(Box<Node>, Box<Node>) -> Node, nodes: Vec<Node>| {
        match <[Node; 2]>::try_from(nodes) {
            Ok([left, other]) if right => Ok((make(Box::new(left), Box::new(other)), Bool)),
            _ => wrong(),
        }
    };
    let only_bools = types.iter().all(|kind| *kind == Bool);
    let call = |function, kind, nodes| Ok((Node::Call(function, nodes), kind));
    let same = match types {
        [left, right] => join(left, right),
        _ => None,
    };
    Ok(match name {
        operators::LOGICAL_AND => logic(only_bools, Node::And, nodes),
        operators::LOGICAL_OR => logic(only_bools, Node::Or, nodes),
        operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE => match (single(nodes), types) {
            (Some(node), [Bool]) if name == operators::LOGICAL_NOT => {
                Ok((Node::Not(Box::new(node)), Bool))
            }
            (Some(node), [Bool]) => Ok((Node::NotStrictlyFalse(Box::new(node)), Bool)),
            _ => wrong(),
        },
        operators::CONDITIONAL => match (<[Node; 3]>::try_from(nodes), types) {
            (Ok([condition, yes, no]), [Bool, left, right]) => match join(left, right) {
                Some(kind) => Ok((
                    Node::If(Box::new(condition), Box::new(yes), Box::new(no)),
                    kind,
                )),
                None => wrong(),
            },
            _ => wrong(),
        },
        operators::EQUALS if same.is_some() => call(Function::Equals, Bool, nodes),
        operators::NOT_EQUALS if same.is_some() => Ok((
            Node::Not(Box::new(Node::Call(Function::Equals, nodes))),
            Bool,
        )),
        operators::LESS if is_ordered(same.as_ref()) => call(Function::Less, Bool, nodes),
        operators::LESS_EQUALS if is_ordered(same.as_ref()) => {
            call(Function::LessOrEqual, Bool, nodes)
        }
        operators::GREATER if is_ordered(same.as_ref()) => call(Function::Greater, Bool, nodes),
        operators::GREATER_EQUALS if is_ordered(same.as_ref()) => {
            call(Function::GreaterOrEqual, Bool, nodes)
        }
        operators::ADD => match same {
            Some(kind @ (Int | Text | Type::List(_))) => call(Function::Add, kind, nodes),
            _ => wrong(),
        },
        operators::SUBSTRACT if *types == [Int, Int] => call(Function::Subtract, Int, nodes),
        operators::MULTIPLY if *types == [Int, Int] => call(Function::Multiply, Int, nodes),
        operators::DIVIDE if *types == [Int, Int] => call(Function::Divide, Int, nodes),
        operators::MODULO if *types == [Int, Int] => call(Function::Modulo, Int, nodes),
        operators::NEGATE if *types == [Int] => call(Function::Negate, Int, nodes),
        operators::INDEX => match types {
            [Type::List(element), Int] => call(Function::Index, *element.clone(), nodes),
            _ => wrong(),
        },
        operators::IN => match types {
            [wanted, Type::List(element)] if join(wanted, element).is_some() => {
                call(Function::In, Bool, nodes)
            }
            _ => wrong(),
        },
        _ if name.contains(|c: char| c != '_' && !c.is_alphanumeric()) => wrong(),
        _ => return Err(nodes),
    })
}

fn function(
    name: &str,
    is_method: bool,
    nodes: Vec<Node>,
    types: &[Type],
) -> Result<Checked, String> {
    let mut known = FUNCTIONS
        .iter()
        .filter(|known| known.name == name)
        .peekable();
    if known.peek().is_none() {
        if UNSUPPORTED.contains(&name) {
            return Err(format!("{name}() is not supported"));
        }
        let mut names: Vec<&str> = FUNCTIONS.iter().map(|known| known.name).collect();
        names.dedup();
        return Err(format!(
            "{name}() does not exist: there are {}",
            names.join(", ")
        ));
    }
    let found = known.find(|known| known.takes(is_method, types));
    let Some(found) = found else {
        let types: Vec<String> = types.iter().map(ToString::to_string).collect();
        let (target, arguments) = match types.split_first() {
            Some((target, arguments)) if is_method => (format!("a {target}."), arguments),
            _ => (String::new(), types.as_slice()),
        };
        return Err(format!(
            "{target}{name}({}) does not exist: its arguments are others",
            arguments.join(", ")
        ));
    };
    if found.function == Function::Matches
        && let [_, Node::Constant(Value::Text(text))] = nodes.as_slice()
    {
        let pattern = pattern::compile(text)?;
        let subject = nodes.into_iter().next();
        let subject = subject.ok_or_else(|| "a part of it is missing".to_owned())?;
        return Ok((Node::Matches(Box::new(subject), pattern), Type::Bool));
    }
    Ok((Node::Call(found.function, nodes), found.gives()))
}

fn single(nodes: Vec<Node>) -> Option<Node> {
    let [node] = <[Node; 1]>::try_from(nodes).ok()?;
    Some(node)
}

fn is_ordered(kind: Option<&Type>) -> bool {
    matches!(kind, Some(Type::Bool | Type::Int | Type::Text))
}

/// The type that both are of.
pub(super) fn join(left: &Type, right: &Type) -> Option<Type> {
    match (left, right) {
        (Type::Any, other) | (other, Type::Any) => Some(other.clone()),
        (Type::List(left), Type::List(right)) => {
            join(left, right).map(|element| Type::List(Box::new(element)))
        }
        (left, right) => (left == right).then(|| left.clone()),
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Text => f.write_str("string"),
            Self::List(_) => f.write_str("list"),
            Self::Any => f.write_str("value of any type"),
        }
    }
}
