//! What is wrong with an object, by its schema.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::errors::{FieldError, Path, Reason, go_syntax};
use super::format;
use super::node::{Bound, ListType, Node, Type};

/// Adds to `errors` what is wrong with `value`. Where `old` is equal, nothing is: what was stored
/// before may stay, so that an object outlives a schema that became stricter.
pub(super) fn check(
    value: &Value,
    old: Option<&Value>,
    schema: &Node,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    if old != Some(value) {
        let before = errors.len();
        check_here(value, schema, path, errors);
        if errors.len() > before && !type_fits(value, schema) {
            return;
        }
    }
    if value.is_null() {
        return;
    }
    if let Some(rules) = &schema.rules {
        rules.check(value, old, path, errors);
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(sub) = schema.field(name) {
                    let old = old.and_then(|old| old.get(name));
                    check(value, old, sub, &path.field(name), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(sub) = &schema.items else { return };
            let former = Former::of(old, schema, sub);
            for (i, item) in items.iter().enumerate() {
                let old = former.of_item(item, sub);
                check(item, old, sub, &path.index(i), errors);
            }
        }
        _ => {}
    }
}

/// The old items of a list by their keys; only associative lists have such.
struct Former<'a> {
    keys: &'a [String],
    items: HashMap<String, &'a Value>,
}

impl<'a> Former<'a> {
    fn of(old: Option<&'a Value>, list: &'a Node, sub: &Node) -> Self {
        let ListType::Map(keys) = &list.list else {
            return Self {
                keys: &[],
                items: HashMap::new(),
            };
        };
        let mut items = HashMap::new();
        for item in old.and_then(Value::as_array).into_iter().flatten() {
            items.entry(identity(item, keys, sub)).or_insert(item);
        }
        Self { keys, items }
    }

    /// The old item that `item` was.
    fn of_item(&self, item: &Value, sub: &Node) -> Option<&'a Value> {
        if self.items.is_empty() {
            return None;
        }
        self.items.get(&identity(item, self.keys, sub)).copied()
    }
}

/// The keys of an item as one text.
fn identity(item: &Value, keys: &[String], sub: &Node) -> String {
    let values = keys.iter().map(|key| match sub.key_of(item, key) {
        Some(value) => value.to_string(),
        None => String::new(),
    });
    values.collect::<Vec<_>>().join("\n")
}

fn check_here(value: &Value, schema: &Node, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if !type_fits(value, schema) {
        return errors.push(type_error(value, schema, path));
    }
    if !schema.allowed.is_empty() && !schema.allowed.contains(value) {
        errors.push(not_supported(value, &schema.allowed, path));
    }
    match value {
        Value::Object(_) => check_object(value, schema, path, errors),
        Value::Array(items) => check_array(items, schema, path, errors),
        Value::String(text) => check_string(text, value, schema, path, errors),
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                check_number(number, value, schema, path, errors);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    check_branches(value, schema, path, errors);
}

fn check_object(value: &Value, schema: &Node, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for name in &schema.required {
        if value.get(name).is_none() {
            errors.push(required(&path.field(name), ""));
        }
    }
    if schema.embedded_resource {
        for name in ["apiVersion", "kind"] {
            if value
                .get(name)
                .and_then(Value::as_str)
                .is_none_or(str::is_empty)
            {
                errors.push(required(&path.field(name), "must not be empty"));
            }
        }
    }
    let n = value.as_object().map_or(0, serde_json::Map::len) as u64;
    if schema.limits.min_properties.is_some_and(|min| n < min) {
        let min = schema.limits.min_properties.unwrap_or_default();
        errors.push(in_body(
            value,
            path,
            &format!("should have at least {min} properties"),
        ));
    }
    if let Some(max) = schema.limits.max_properties.filter(|max| n > *max) {
        errors.push(too_many(n, max, path));
    }
}

fn check_array(items: &[Value], schema: &Node, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let n = items.len() as u64;
    if let Some(min) = schema.limits.min_items.filter(|min| n < *min) {
        let words = format!("should have at least {min} items");
        errors.push(in_body(&Value::from(n), path, &words));
    }
    if let Some(max) = schema.limits.max_items.filter(|max| n > *max) {
        errors.push(too_many(n, max, path));
    }
    let identity = |item: &Value| match (&schema.list, &schema.items) {
        (ListType::Map(keys), Some(sub)) => {
            let key = |k: &String| Some((k.clone(), sub.key_of(item, k)?.clone()));
            Some(Value::Object(keys.iter().filter_map(key).collect()))
        }
        (ListType::Set, _) => Some(item.clone()),
        _ => schema.limits.unique_items.then(|| item.clone()),
    };
    let mut seen: HashSet<String> = HashSet::new();
    for (i, item) in items.iter().enumerate() {
        let Some(identity) = identity(item) else {
            return;
        };
        if !seen.insert(identity.to_string()) {
            let message = format!("Duplicate value: {}", go_syntax(&identity));
            errors.push(error(&path.index(i), Reason::Duplicate, message));
        }
    }
}

fn check_string(
    text: &str,
    value: &Value,
    schema: &Node,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let limits = &schema.limits;
    let chars = text.chars().count() as u64;
    if let Some(max) = limits.max_length.filter(|max| chars > *max) {
        let message = format!("Too long: may not be more than {max} bytes");
        errors.push(error(path, Reason::TooLong, message));
    }
    if let Some(min) = limits.min_length.filter(|min| chars < *min) {
        errors.push(in_body(
            value,
            path,
            &format!("should be at least {min} chars long"),
        ));
    }
    if let Some(pattern) = limits.pattern.as_ref().filter(|p| !p.is_match(text)) {
        errors.push(in_body(
            value,
            path,
            &format!("should match '{}'", pattern.as_str()),
        ));
    }
    if let Some(name) = limits
        .format
        .as_deref()
        .filter(|name| !format::fits(name, text))
    {
        errors.push(in_body(
            value,
            path,
            &format!("must be of type {name}: {text:?}"),
        ));
    }
}

fn check_number(
    number: f64,
    value: &Value,
    schema: &Node,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let limits = &schema.limits;
    let outside = |bound: &Bound, past: f64| past < 0.0 || (bound.exclusive && past == 0.0);
    if let Some(min) = limits
        .minimum
        .as_ref()
        .filter(|min| outside(min, number - min.at))
    {
        let or_equal = if min.exclusive { "" } else { " or equal to" };
        let words = format!("should be greater than{or_equal} {}", min.at);
        errors.push(in_body(value, path, &words));
    }
    if let Some(max) = limits
        .maximum
        .as_ref()
        .filter(|max| outside(max, max.at - number))
    {
        let or_equal = if max.exclusive { "" } else { " or equal to" };
        errors.push(in_body(
            value,
            path,
            &format!("should be less than{or_equal} {}", max.at),
        ));
    }
    if let Some(of) = limits.multiple_of.filter(|of| (number / of).fract() != 0.0) {
        errors.push(in_body(
            value,
            path,
            &format!("should be a multiple of {of}"),
        ));
    }
    let int32 = f64::from(i32::MIN)..=f64::from(i32::MAX);
    if limits.format.as_deref() == Some("int32") && !int32.contains(&number) {
        errors.push(in_body(value, path, "must be of type int32: \"int64\""));
    }
}

fn check_branches(value: &Value, schema: &Node, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let errors_of = |branch: &Node| {
        let mut errors = Vec::new();
        check(value, None, branch, path, &mut errors);
        errors
    };
    for branch in &schema.all_of {
        errors.extend(errors_of(branch));
    }
    let text = path.to_string();
    let mut whole = |what: &str| {
        let message = format!("Invalid value: \"\": {text:?} {what}");
        errors.push(FieldError {
            field: "<nil>".to_owned(),
            reason: Reason::Invalid,
            message,
        });
    };
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(|b| errors_of(b).is_empty()) {
        whole("must validate at least one schema (anyOf)");
    }
    if !schema.one_of.is_empty() {
        match schema
            .one_of
            .iter()
            .filter(|b| errors_of(b).is_empty())
            .count()
        {
            1 => {}
            0 => whole("must validate one and only one schema (oneOf). Found none valid"),
            n => whole(&format!(
                "must validate one and only one schema (oneOf). Found {n} valid alternatives"
            )),
        }
    }
    if schema
        .not
        .as_ref()
        .is_some_and(|not| errors_of(not).is_empty())
    {
        whole("must not validate the schema (not)");
    }
}

/// Whether a value has the type that is asked for.
pub(super) fn type_fits(value: &Value, schema: &Node) -> bool {
    if schema.int_or_string {
        return value.is_string() || is_integer(value);
    }
    match (schema.value_type, value) {
        (None, _)
        | (Some(Type::Object), Value::Object(_))
        | (Some(Type::Array), Value::Array(_))
        | (Some(Type::String), Value::String(_))
        | (Some(Type::Boolean), Value::Bool(_))
        | (Some(Type::Number), Value::Number(_)) => true,
        (Some(Type::Integer), value) => is_integer(value),
        (Some(_), Value::Null) => schema.nullable,
        _ => false,
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

/// The type of a value, as JSON schemas call it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn type_error(value: &Value, schema: &Node, path: &Path<'_>) -> FieldError {
    let is = type_name(value);
    let wanted = match schema.value_type {
        Some(wanted) => wanted.as_str(),
        None => "integer,string",
    };
    let message = format!("Invalid value: {is:?}: {path} in body must be of type {wanted}: {is:?}");
    error(path, Reason::TypeInvalid, message)
}

fn not_supported(value: &Value, allowed: &[Value], path: &Path<'_>) -> FieldError {
    let quoted: Vec<String> = allowed
        .iter()
        .map(|a| {
            a.as_str()
                .map_or_else(|| format!("{:?}", a.to_string()), |s| format!("{s:?}"))
        })
        .collect();
    let message = format!(
        "Unsupported value: {}: supported values: {}",
        go_syntax(value),
        quoted.join(", ")
    );
    error(path, Reason::NotSupported, message)
}

fn required(path: &Path<'_>, detail: &str) -> FieldError {
    let colon = if detail.is_empty() { "" } else { ": " };
    error(
        path,
        Reason::Required,
        format!("Required value{colon}{detail}"),
    )
}

fn too_many(n: u64, max: u64, path: &Path<'_>) -> FieldError {
    let plural = if max == 1 { "" } else { "s" };
    let message = format!("Too many: {n}: must have at most {max} item{plural}");
    error(path, Reason::TooMany, message)
}

fn in_body(value: &Value, path: &Path<'_>, words: &str) -> FieldError {
    let message = format!(
        "Invalid value: {}: {path} in body {words}",
        go_syntax(value)
    );
    error(path, Reason::Invalid, message)
}

fn error(path: &Path<'_>, reason: Reason, message: String) -> FieldError {
    FieldError {
        field: path.name(),
        reason,
        message,
    }
}
