//! A structural schema as a tree that is quick to walk.

use std::collections::{BTreeMap, HashMap};

use regex::Regex;
use serde_json::Value;

use super::CompileError;
use super::rules::Rules;

/// Deepest nesting that is compiled; Kubernetes' own schemas stay below 30.
const DEPTH_MAX: usize = 64;

/// What may stand at one place.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the schema language"
)]
pub(crate) struct Node {
    pub(crate) value_type: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded_resource: bool,
    pub(crate) default: Option<Value>,
    pub(crate) allowed: Vec<Value>,
    pub(crate) limits: Limits,
    pub(crate) required: Vec<String>,
    pub(crate) properties: BTreeMap<String, Self>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Self>>,
    pub(crate) list: ListType,
    pub(crate) map_is_atomic: bool,
    pub(crate) all_of: Vec<Self>,
    pub(crate) any_of: Vec<Self>,
    pub(crate) one_of: Vec<Self>,
    pub(crate) not: Option<Box<Self>>,
    pub(crate) rules: Option<Rules>,
}

/// The six types of JSON that a schema can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// What a map may hold beside its named properties.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// Nothing.
    #[default]
    Closed,
    /// Anything.
    Any,
    /// Values of this kind.
    Of(Box<Node>),
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Default)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    /// The keys, each with its default.
    Map(Vec<String>),
}

/// Bounds on values.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) minimum: Option<Bound>,
    pub(crate) maximum: Option<Bound>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: Option<String>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
}

/// A bound on a number.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) at: f64,
    pub(crate) exclusive: bool,
}

/// Compiles schemas; equal patterns are compiled once.
#[derive(Default)]
pub(crate) struct Compiler {
    patterns: HashMap<String, Regex>,
}

// === impl Type ===

impl Type {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }
}

// === impl Node ===

impl Node {
    /// The schema of the field `name`, named or not.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Of(node) => Some(&**node),
            Additional::Closed | Additional::Any => None,
        })
    }

    /// The value of a key of an associative list, its default where the item does not say.
    pub(crate) fn key_of<'v>(&'v self, item: &'v Value, key: &str) -> Option<&'v Value> {
        item.get(key)
            .or_else(|| self.properties.get(key).and_then(|p| p.default.as_ref()))
    }
}

// === impl Compiler ===

impl Compiler {
    /// Compiles the schema that stands at `path`.
    pub(crate) fn node(
        &mut self,
        schema: &Value,
        path: &str,
        depth: usize,
    ) -> Result<Node, CompileError> {
        if depth > DEPTH_MAX {
            return Err(invalid(path, format!("nested deeper than {DEPTH_MAX}")));
        }
        let flag = |name: &str| {
            schema
                .get(name)
                .and_then(Value::as_bool)
                .unwrap_or_default()
        };
        Ok(Node {
            value_type: value_type(schema, path)?,
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            default: schema.get("default").filter(|d| !d.is_null()).cloned(),
            allowed: array(schema, "enum").to_vec(),
            limits: self.limits(schema, path)?,
            required: strings(schema, "required"),
            properties: self.properties(schema, path, depth)?,
            additional: self.additional(schema, path, depth)?,
            items: self.child(schema, "items", path, depth)?,
            list: match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map(strings(schema, "x-kubernetes-list-map-keys")),
                _ => ListType::Atomic,
            },
            map_is_atomic: schema
                .get("x-kubernetes-map-type")
                .is_some_and(|t| t == "atomic"),
            all_of: self.branches(schema, "allOf", path, depth)?,
            any_of: self.branches(schema, "anyOf", path, depth)?,
            one_of: self.branches(schema, "oneOf", path, depth)?,
            not: self.child(schema, "not", path, depth)?,
            rules: Rules::compile(schema, path)?,
        })
    }

    fn properties(
        &mut self,
        schema: &Value,
        path: &str,
        depth: usize,
    ) -> Result<BTreeMap<String, Node>, CompileError> {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return Ok(BTreeMap::new());
        };
        properties
            .iter()
            .map(|(name, sub)| {
                let path = format!("{path}.properties[{name}]");
                Ok((name.clone(), self.node(sub, &path, depth + 1)?))
            })
            .collect()
    }

    fn additional(
        &mut self,
        schema: &Value,
        path: &str,
        depth: usize,
    ) -> Result<Additional, CompileError> {
        Ok(match schema.get("additionalProperties") {
            None | Some(Value::Bool(false)) => Additional::Closed,
            Some(Value::Bool(true)) => Additional::Any,
            Some(sub) => {
                let path = format!("{path}.additionalProperties");
                Additional::Of(Box::new(self.node(sub, &path, depth + 1)?))
            }
        })
    }

    fn child(
        &mut self,
        schema: &Value,
        name: &str,
        path: &str,
        depth: usize,
    ) -> Result<Option<Box<Node>>, CompileError> {
        let Some(sub) = schema.get(name) else {
            return Ok(None);
        };
        Ok(Some(Box::new(self.node(
            sub,
            &format!("{path}.{name}"),
            depth + 1,
        )?)))
    }

    fn branches(
        &mut self,
        schema: &Value,
        name: &str,
        path: &str,
        depth: usize,
    ) -> Result<Vec<Node>, CompileError> {
        let branch = |(i, sub)| self.node(sub, &format!("{path}.{name}[{i}]"), depth + 1);
        array(schema, name).iter().enumerate().map(branch).collect()
    }

    fn limits(&mut self, schema: &Value, path: &str) -> Result<Limits, CompileError> {
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        let bound = |name: &str, exclusive: &str| {
            schema.get(name).and_then(Value::as_f64).map(|at| Bound {
                at,
                exclusive: schema
                    .get(exclusive)
                    .and_then(Value::as_bool)
                    .unwrap_or_default(),
            })
        };
        let pattern = schema
            .get("pattern")
            .and_then(Value::as_str)
            .filter(|p| !p.is_empty());
        Ok(Limits {
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema.get("multipleOf").and_then(Value::as_f64),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern: pattern.map(|p| self.pattern(p, path)).transpose()?,
            format: schema
                .get("format")
                .and_then(Value::as_str)
                .map(str::to_owned),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: schema
                .get("uniqueItems")
                .and_then(Value::as_bool)
                .unwrap_or_default(),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
        })
    }

    fn pattern(&mut self, pattern: &str, path: &str) -> Result<Regex, CompileError> {
        if let Some(known) = self.patterns.get(pattern) {
            return Ok(known.clone());
        }
        let compiled = Regex::new(pattern)
            .map_err(|err| invalid(&format!("{path}.pattern"), err.to_string()))?;
        self.patterns.insert(pattern.to_owned(), compiled.clone());
        Ok(compiled)
    }
}

fn value_type(schema: &Value, path: &str) -> Result<Option<Type>, CompileError> {
    match schema.get("type").and_then(Value::as_str) {
        None | Some("") => Ok(None),
        Some(name) => Type::parse(name)
            .map(Some)
            .ok_or_else(|| invalid(&format!("{path}.type"), format!("unknown type {name:?}"))),
    }
}

fn array<'a>(schema: &'a Value, name: &str) -> &'a [Value] {
    schema
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn strings(schema: &Value, name: &str) -> Vec<String> {
    array(schema, name)
        .iter()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

pub(super) fn invalid(path: &str, what: String) -> CompileError {
    CompileError::Invalid {
        path: path.to_owned(),
        what,
    }
}
