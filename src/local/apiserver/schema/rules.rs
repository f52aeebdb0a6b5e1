//! `x-kubernetes-validations`: rules in CEL, at the place where they were written.
//!
//! The walk over the object is ours (it knows which old item a new item came from); `kube-cel`
//! evaluates the rules of one place at a time.

use serde_json::{Map, Value};

use super::CompileError;
use super::errors::{FieldError, Path, Reason};
use super::node::invalid;
use crate::cel::{self, Limits};

/// How large a rule may be: above all that operators' definitions have, and far below what Kubernetes'
/// cost budget would let through.
const LIMITS: Limits = Limits {
    chars: 16 << 10,
    nesting: 32,
    operators: 512,
    walks: 16,
};

/// The rules of one place.
#[derive(Debug)]
pub(crate) struct Rules {
    compiled: kube_cel::CompiledSchema,
    type_name: String,
}

impl Rules {
    /// Compiles the rules of `schema` itself, not those of its parts.
    pub(crate) fn compile(schema: &Value, path: &str) -> Result<Option<Self>, CompileError> {
        let Some(rules) = schema.get("x-kubernetes-validations") else {
            return Ok(None);
        };
        let mut own = without_rules(schema);
        if let Value::Object(own) = &mut own {
            own.insert("x-kubernetes-validations".to_owned(), rules.clone());
        }
        let refused = |detail: String| {
            let path = format!("{path}.x-kubernetes-validations");
            invalid(&path, detail)
        };
        for expression in expressions(rules) {
            cel::check_form(expression, &LIMITS).map_err(refused)?;
        }
        let compile = || kube_cel::compile_schema(&own);
        let compiled = cel::with_stack(&LIMITS, compile).map_err(refused)?;
        if let Some(error) = compiled.compilation_errors().first() {
            return Err(refused(error.to_string()));
        }
        let type_name = schema
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Ok(Some(Self {
            compiled,
            type_name,
        }))
    }

    /// Evaluates the rules on `value`, which stands at `path` and stood as `old` before.
    pub(crate) fn check(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &Path<'_>,
        errors: &mut Vec<FieldError>,
    ) {
        let judge = || kube_cel::validate_compiled(&self.compiled, value, old);
        let broken = match cel::with_stack(&LIMITS, judge) {
            Ok(Ok(())) => return,
            Ok(Err(broken)) => broken,
            Err(detail) => {
                let (reason, message) = self.words(None, &detail);
                let field = path.join_text("");
                return errors.push(FieldError {
                    field,
                    reason,
                    message,
                });
            }
        };
        for error in broken {
            let (reason, message) = self.words(error.reason.as_deref(), &error.message);
            let field = path.join_text(&error.field_path);
            errors.push(FieldError {
                field,
                reason,
                message,
            });
        }
    }

    fn words(&self, reason: Option<&str>, detail: &str) -> (Reason, String) {
        match reason {
            Some("FieldValueForbidden") => (Reason::Forbidden, format!("Forbidden: {detail}")),
            Some("FieldValueRequired") => (Reason::Required, format!("Required value: {detail}")),
            Some("FieldValueDuplicate") => (
                Reason::Duplicate,
                format!("Duplicate value: {:?}", self.type_name),
            ),
            _ => (
                Reason::Invalid,
                format!("Invalid value: {:?}: {detail}", self.type_name),
            ),
        }
    }
}

/// Every expression in a list of rules.
fn expressions(rules: &Value) -> impl Iterator<Item = &str> {
    let rules = rules.as_array().into_iter().flatten();
    rules.flat_map(|rule| {
        let parts = ["rule", "messageExpression"].map(|part| rule.get(part));
        parts.into_iter().flatten().filter_map(Value::as_str)
    })
}

/// The schema without rules and without what rules do not look at.
fn without_rules(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    let mut kept = Map::new();
    for (name, sub) in fields {
        match (name.as_str(), sub) {
            ("properties", Value::Object(properties)) => {
                let stripped = properties
                    .iter()
                    .map(|(k, v)| (k.clone(), without_rules(v)));
                kept.insert(name.clone(), Value::Object(stripped.collect()));
            }
            ("items" | "additionalProperties", _) => {
                kept.insert(name.clone(), without_rules(sub));
            }
            ("type" | "format" | "maxLength" | "maxItems" | "maxProperties", _) => {
                kept.insert(name.clone(), sub.clone());
            }
            ("x-kubernetes-validations", _) => {}
            (extension, _) if extension.starts_with("x-kubernetes-") => {
                kept.insert(name.clone(), sub.clone());
            }
            _ => {}
        }
    }
    Value::Object(kept)
}
