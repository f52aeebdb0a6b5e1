//! The functions of expressions, with the meaning that they have in approver-policy's CEL: `size`,
//! indices and offsets count code points, and what is out of range is an error.

use super::check::{Type, join};
use super::{Value, pattern};

/// Largest text or list that a function may make.
const RESULT_MAX: usize = 1 << 20;

/// An operator or a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Equals,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Negate,
    Index,
    In,
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    CharAt,
    IndexOf,
    LastIndexOf,
    Join,
    LowerAscii,
    UpperAscii,
    Replace,
    Reverse,
    Split,
    Substring,
    Trim,
    ToInt,
    ToText,
    ToBool,
}

/// One way to call a function.
pub(super) struct Overload {
    pub(super) name: &'static str,
    pub(super) function: Function,
    /// Whether it is called as `a.f(b)`, as `f(a, b)`, or both.
    call: Call,
    takes: &'static [Kind],
    gives: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Method,
    Global,
    Both,
}

#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Int,
    Text,
    Texts,
    AnyList,
}

const fn overload(
    name: &'static str,
    function: Function,
    call: Call,
    takes: &'static [Kind],
    gives: Kind,
) -> Overload {
    Overload {
        name,
        function,
        call,
        takes,
        gives,
    }
}

/// All functions, those of one name side by side.
pub(super) const FUNCTIONS: &[Overload] = {
    use Call::{Both, Global, Method};
    use Function as F;
    use Kind::{AnyList, Bool, Int, Text, Texts};
    &[
        overload("size", F::Size, Both, &[Text], Int),
        overload("size", F::Size, Both, &[AnyList], Int),
        overload("contains", F::Contains, Method, &[Text, Text], Bool),
        overload("startsWith", F::StartsWith, Method, &[Text, Text], Bool),
        overload("endsWith", F::EndsWith, Method, &[Text, Text], Bool),
        overload("matches", F::Matches, Both, &[Text, Text], Bool),
        overload("charAt", F::CharAt, Method, &[Text, Int], Text),
        overload("indexOf", F::IndexOf, Method, &[Text, Text], Int),
        overload("indexOf", F::IndexOf, Method, &[Text, Text, Int], Int),
        overload("lastIndexOf", F::LastIndexOf, Method, &[Text, Text], Int),
        overload(
            "lastIndexOf",
            F::LastIndexOf,
            Method,
            &[Text, Text, Int],
            Int,
        ),
        overload("join", F::Join, Method, &[Texts], Text),
        overload("join", F::Join, Method, &[Texts, Text], Text),
        overload("lowerAscii", F::LowerAscii, Method, &[Text], Text),
        overload("upperAscii", F::UpperAscii, Method, &[Text], Text),
        overload("replace", F::Replace, Method, &[Text, Text, Text], Text),
        overload(
            "replace",
            F::Replace,
            Method,
            &[Text, Text, Text, Int],
            Text,
        ),
        overload("reverse", F::Reverse, Method, &[Text], Text),
        overload("split", F::Split, Method, &[Text, Text], Texts),
        overload("split", F::Split, Method, &[Text, Text, Int], Texts),
        overload("substring", F::Substring, Method, &[Text, Int], Text),
        overload("substring", F::Substring, Method, &[Text, Int, Int], Text),
        overload("trim", F::Trim, Method, &[Text], Text),
        overload("int", F::ToInt, Global, &[Text], Int),
        overload("int", F::ToInt, Global, &[Int], Int),
        overload("string", F::ToText, Global, &[Text], Text),
        overload("string", F::ToText, Global, &[Int], Text),
        overload("string", F::ToText, Global, &[Bool], Text),
        overload("bool", F::ToBool, Global, &[Bool], Bool),
        overload("bool", F::ToBool, Global, &[Text], Bool),
    ]
};

impl Overload {
    pub(super) fn takes(&self, is_method: bool, types: &[Type]) -> bool {
        let is_called_so = match self.call {
            Call::Both => true,
            Call::Method => is_method,
            Call::Global => !is_method,
        };
        is_called_so
            && types.len() == self.takes.len()
            && types
                .iter()
                .zip(self.takes)
                .all(|(found, wanted)| wanted.is(found))
    }

    pub(super) fn gives(&self) -> Type {
        self.gives.to_type()
    }
}

impl Kind {
    fn to_type(self) -> Type {
        match self {
            Self::Bool => Type::Bool,
            Self::Int => Type::Int,
            Self::Text => Type::Text,
            Self::Texts => Type::List(Box::new(Type::Text)),
            Self::AnyList => Type::List(Box::new(Type::Any)),
        }
    }

    fn is(self, found: &Type) -> bool {
        join(&self.to_type(), found).is_some()
    }
}

/// Calls `function`; the error says what it cannot do.
pub(super) fn call(function: Function, values: &[Value]) -> Result<Value, String> {
    use Value::{Bool, Int, List, Text};
    match (function, values) {
        (Function::Equals, [left, right]) => Ok(Bool(left == right)),
        (Function::Less, [left, right]) => Ok(Bool(compare(left, right)?.is_lt())),
        (Function::LessOrEqual, [left, right]) => Ok(Bool(compare(left, right)?.is_le())),
        (Function::Greater, [left, right]) => Ok(Bool(compare(left, right)?.is_gt())),
        (Function::GreaterOrEqual, [left, right]) => Ok(Bool(compare(left, right)?.is_ge())),
        (Function::Add, [Text(left), Text(right)]) => bounded(format!("{left}{right}")),
        (Function::Add, [List(left), List(right)]) => {
            if left.len() + right.len() > RESULT_MAX {
                return Err("a list grows beyond all bounds".to_owned());
            }
            Ok(List([left.as_slice(), right.as_slice()].concat()))
        }
        (Function::Negate, [Int(value)]) => whole(value.checked_neg()),
        (Function::In, [wanted, List(list)]) => Ok(Bool(list.contains(wanted))),
        (Function::Index, [List(list), Int(at)]) => {
            let found = usize::try_from(*at).ok().and_then(|at| list.get(at));
            found.cloned().ok_or_else(|| out_of_range(*at))
        }
        (_, [Int(left), Int(right)]) => arithmetic(function, *left, *right),
        (Function::Size, [List(list)]) => length(list.len()),
        (Function::Join, [List(list)]) => join_all(list, ""),
        (Function::Join, [List(list), Text(between)]) => join_all(list, between),
        (Function::ToInt | Function::ToText | Function::ToBool, [value]) => {
            convert(function, value)
        }
        (_, [Text(text), rest @ ..]) => of_text(function, text, rest),
        _ => Err(unexpected()),
    }
}

fn of_text(function: Function, text: &str, rest: &[Value]) -> Result<Value, String> {
    use Value::{Bool, Int, Text};
    match (function, rest) {
        (Function::Size, []) => length(text.chars().count()),
        (Function::Contains, [Text(part)]) => Ok(Bool(text.contains(part.as_str()))),
        (Function::StartsWith, [Text(part)]) => Ok(Bool(text.starts_with(part.as_str()))),
        (Function::EndsWith, [Text(part)]) => Ok(Bool(text.ends_with(part.as_str()))),
        (Function::Matches, [Text(written)]) => Ok(Bool(pattern::compile(written)?.is_match(text))),
        (Function::CharAt, [Int(at)]) => char_at(text, *at),
        (Function::IndexOf, [Text(part)]) => index_of(text, part, 0),
        (Function::IndexOf, [Text(part), Int(from)]) => index_of(text, part, *from),
        (Function::LastIndexOf, [Text(part)]) if part.is_empty() => length(text.chars().count()),
        (Function::LastIndexOf, [Text(part)]) => {
            let last = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            last_index_of(text, part, last.saturating_sub(1))
        }
        (Function::LastIndexOf, [Text(part), Int(from)]) => last_index_of(text, part, *from),
        (Function::LowerAscii, []) => Ok(Text(text.to_ascii_lowercase())),
        (Function::UpperAscii, []) => Ok(Text(text.to_ascii_uppercase())),
        (Function::Replace, [Text(old), Text(new)]) => replace(text, old, new, -1),
        (Function::Replace, [Text(old), Text(new), Int(most)]) => replace(text, old, new, *most),
        (Function::Reverse, []) => Ok(Text(text.chars().rev().collect())),
        (Function::Split, [Text(by)]) => Ok(split(text, by, -1)),
        (Function::Split, [Text(by), Int(most)]) => Ok(split(text, by, *most)),
        (Function::Substring, [Int(from)]) => {
            let end = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            substring(text, *from, end)
        }
        (Function::Substring, [Int(from), Int(end)]) => substring(text, *from, *end),
        (Function::Trim, []) => Ok(Text(text.trim().to_owned())),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> String {
    "it calls a function with values of another type".to_owned()
}

fn out_of_range(at: i64) -> String {
    format!("index out of range: {at}")
}

fn length(count: usize) -> Result<Value, String> {
    whole(i64::try_from(count).ok())
}

fn whole(number: Option<i64>) -> Result<Value, String> {
    number
        .map(Value::Int)
        .ok_or_else(|| "a number is too large".to_owned())
}

fn bounded(text: String) -> Result<Value, String> {
    if text.len() > RESULT_MAX {
        return Err("a text grows beyond all bounds".to_owned());
    }
    Ok(Value::Text(text))
}

fn compare(left: &Value, right: &Value) -> Result<std::cmp::Ordering, String> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(right)),
        (Value::Int(left), Value::Int(right)) => Ok(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Ok(left.cmp(right)),
        _ => Err(unexpected()),
    }
}

fn arithmetic(function: Function, left: i64, right: i64) -> Result<Value, String> {
    let is_division = matches!(function, Function::Divide | Function::Modulo);
    if is_division && right == 0 {
        return Err("it divides by zero".to_owned());
    }
    match function {
        Function::Add => whole(left.checked_add(right)),
        Function::Subtract => whole(left.checked_sub(right)),
        Function::Multiply => whole(left.checked_mul(right)),
        Function::Divide => whole(left.checked_div(right)),
        Function::Modulo => whole(left.checked_rem(right)),
        _ => Err(unexpected()),
    }
}

fn convert(function: Function, value: &Value) -> Result<Value, String> {
    let written = match value {
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Bool(answer) => answer.to_string(),
        Value::List(_) => return Err(unexpected()),
    };
    match function {
        Function::ToInt => written
            .parse()
            .map(Value::Int)
            .map_err(|_| "a text is not a number".to_owned()),
        Function::ToBool => match written.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err("a text is neither true nor false".to_owned()),
        },
        _ => Ok(Value::Text(written)),
    }
}

fn char_at(text: &str, at: i64) -> Result<Value, String> {
    let count = text.chars().count();
    let index = usize::try_from(at).ok().filter(|index| *index <= count);
    let index = index.ok_or_else(|| out_of_range(at))?;
    Ok(Value::Text(text.chars().skip(index).take(1).collect()))
}

/// An empty part is found where the search begins, wherever that is.
fn index_of(text: &str, part: &str, from: i64) -> Result<Value, String> {
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let from = usize::try_from(from).map_err(|_| out_of_range(from))?;
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    let found = text
        .windows(part.len())
        .enumerate()
        .skip(from)
        .find(|(_, window)| *window == part.as_slice());
    found.map_or(Ok(Value::Int(-1)), |(at, _)| length(at))
}

fn last_index_of(text: &str, part: &str, from: i64) -> Result<Value, String> {
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let from = usize::try_from(from).map_err(|_| out_of_range(from))?;
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    if from >= text.len() {
        return Ok(Value::Int(-1));
    }
    let mut windows = text.windows(part.len()).take(from + 1);
    let found = windows.rposition(|window| window == part.as_slice());
    found.map_or(Ok(Value::Int(-1)), length)
}

fn replace(text: &str, old: &str, new: &str, most: i64) -> Result<Value, String> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let found = text.matches(old).take(most).count();
    if found.saturating_mul(new.len()) > RESULT_MAX {
        return Err("a text grows beyond all bounds".to_owned());
    }
    bounded(text.replacen(old, new, found))
}

fn split(text: &str, by: &str, most: i64) -> Value {
    let pieces: Vec<String> = match usize::try_from(most) {
        Ok(0) => Vec::new(),
        Ok(most) if by.is_empty() => {
            let mut starts = text.char_indices().map(|(at, _)| at);
            let cut = starts.nth(most.saturating_sub(1)).unwrap_or(text.len());
            let single = text[..cut].chars().map(String::from);
            let rest = Some(text[cut..].to_owned()).filter(|rest| !rest.is_empty());
            single.chain(rest).collect()
        }
        Ok(most) => text.splitn(most, by).map(str::to_owned).collect(),
        Err(_) if by.is_empty() => text.chars().map(String::from).collect(),
        Err(_) => text.split(by).map(str::to_owned).collect(),
    };
    Value::List(pieces.into_iter().map(Value::Text).collect())
}

fn substring(text: &str, from: i64, end: i64) -> Result<Value, String> {
    let count = text.chars().count();
    if from > end {
        return Err(format!("invalid substring range: {from} to {end}"));
    }
    let within = |at: i64| usize::try_from(at).ok().filter(|at| *at <= count);
    let first = within(from).ok_or_else(|| out_of_range(from))?;
    let last = within(end).ok_or_else(|| out_of_range(end))?;
    let part = text.chars().skip(first).take(last - first);
    Ok(Value::Text(part.collect()))
}

fn join_all(list: &[Value], between: &str) -> Result<Value, String> {
    let texts = list.iter().map(|value| match value {
        Value::Text(text) => Ok(text.as_str()),
        _ => Err(unexpected()),
    });
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let total = texts.iter().map(|text| text.len()).sum::<usize>();
    if total.saturating_add(between.len().saturating_mul(texts.len())) > RESULT_MAX {
        return Err("a text grows beyond all bounds".to_owned());
    }
    Ok(Value::Text(texts.join(between)))
}
