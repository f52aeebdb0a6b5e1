//! The part of `JSONPath` that printer columns use: fields, indexes, `[*]` and equality filters.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.path == value)]`, or `!=`.
    Filter {
        path: JsonPath,
        wanted: Value,
        equal: bool,
    },
}

impl JsonPath {
    /// Reads `.status.conditions[?(@.type=="Ready")].status`, with or without braces around it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .unwrap_or(text);
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('[') {
                Some(inside) => bracket(inside)?,
                None => field(rest.strip_prefix('.').unwrap_or(rest))?,
            };
            steps.push(step);
            rest = after;
        }
        Some(Self(steps))
    }

    /// Everything in `value` that the path leads to.
    pub(super) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.0.iter().fold(vec![value], |found, step| {
            found
                .into_iter()
                .flat_map(|value| step.from(value))
                .collect()
        })
    }
}

impl Step {
    fn from<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Field(name), _) => value.get(name).into_iter().collect(),
            (Self::Index(i), Value::Array(items)) => {
                let at = if *i < 0 {
                    *i + i64::try_from(items.len()).unwrap_or(0)
                } else {
                    *i
                };
                usize::try_from(at)
                    .ok()
                    .and_then(|at| items.get(at))
                    .into_iter()
                    .collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(fields)) => fields.values().collect(),
            (
                Self::Filter {
                    path,
                    wanted,
                    equal,
                },
                Value::Array(items),
            ) => {
                let holds = |item: &&Value| {
                    let found = path.find(item);
                    !found.is_empty() && (found[0] == wanted) == *equal
                };
                items.iter().filter(holds).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A field name up to the next dot or bracket; a backslash makes those part of the name.
fn field(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => return (!name.is_empty()).then(|| (step(name), &text[at..])),
            _ => name.push(c),
        }
    }
    (!name.is_empty()).then(|| (step(name), ""))
}

fn step(name: String) -> Step {
    if name == "*" {
        Step::All
    } else {
        Step::Field(name)
    }
}

fn bracket(inside: &str) -> Option<(Step, &str)> {
    if let Some(filter) = inside.strip_prefix("?(") {
        let (condition, after) = filter.split_once(")]")?;
        let (left, right, equal) = match condition.split_once("==") {
            Some((left, right)) => (left, right, true),
            None => condition
                .split_once("!=")
                .map(|(left, right)| (left, right, false))?,
        };
        let path = JsonPath::parse(left.trim().strip_prefix('@')?)?;
        let wanted = literal(right.trim())?;
        return Some((
            Step::Filter {
                path,
                wanted,
                equal,
            },
            after,
        ));
    }
    if let Some(quote) = inside.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let (name, after) = inside[1..].split_once(&format!("{quote}]"))?;
        return Some((Step::Field(name.replace('\\', "")), after));
    }
    let (index, after) = inside.split_once(']')?;
    Some((
        if index == "*" {
            Step::All
        } else {
            Step::Index(index.parse().ok()?)
        },
        after,
    ))
}

fn literal(text: &str) -> Option<Value> {
    match text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')) {
        Some(quoted) => Some(Value::from(quoted)),
        None => serde_json::from_str(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_what_they_name() {
        let object = json!({
            "metadata": { "annotations": { "a.b/c": "yes" } },
            "status": {
                "conditions": [
                    { "type": "Idle", "status": "False", "n": 1 },
                    { "type": "Ready", "status": "True", "n": 2 },
                ],
            },
        });
        let cases = [
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type == 'Idle')].status",
                json!(["False"]),
            ),
            (".status.conditions[?(@.type!='Idle')].n", json!([2])),
            (".status.conditions[?(@.n==1)].type", json!(["Idle"])),
            (".status.conditions[*].type", json!(["Idle", "Ready"])),
            ("{.status.conditions[0].type}", json!(["Idle"])),
            (".status.conditions[-1].type", json!(["Ready"])),
            (".metadata.annotations.a\\.b/c", json!(["yes"])),
            (".metadata.annotations['a.b/c']", json!(["yes"])),
            (".status.nothing.here", json!([])),
            (".status.conditions[7].type", json!([])),
        ];
        for (path, expected) in cases {
            let found = JsonPath::parse(path).unwrap();
            assert_eq!(json!(found.find(&object)), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [".a[", ".a[?(@.b)]", ".a[x]", "..a", ".a[?(b==1)]"] {
            assert_eq!(JsonPath::parse(text), None, "{text}");
        }
    }
}
