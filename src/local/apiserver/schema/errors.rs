//! What is wrong with a field, in Kubernetes' words.

use std::collections::HashSet;

use serde_json::{Value, json};

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field, `spec.tls.certificates[0].alias`; `<nil>` for the object itself.
    pub field: String,
    /// Class of the error.
    pub reason: Reason,
    /// The words after the path, `Unsupported value: "x": supported values: "a", "b"`.
    pub message: String,
}

/// Classes of field errors, as in the `reason` of a `Status` cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A value of the right type that may not stand there.
    Invalid,
    /// A value is missing.
    Required,
    /// Not one of the values an enumeration allows.
    NotSupported,
    /// A value that may stand there once only.
    Duplicate,
    /// A reference to something that is not declared.
    NotFound,
    /// A value that may never stand there.
    Forbidden,
    /// Text that is too long.
    TooLong,
    /// A list with too many items.
    TooMany,
    /// A value of another type.
    TypeInvalid,
}

impl Reason {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

impl FieldError {
    /// The cause that stands for this error in `Status.details.causes`.
    pub fn cause(&self) -> Value {
        json!({ "reason": self.reason.as_str(), "message": self.message, "field": self.field })
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The message of a 422: `PgBouncer.kubedb.com "billing" is invalid: spec.x: Required value`.
pub fn invalid_message(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> String {
    let kind = if group.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}.{group}")
    };
    let mut seen = HashSet::new();
    let lines = errors.iter().map(ToString::to_string);
    let lines: Vec<String> = lines.filter(|line| seen.insert(line.clone())).collect();
    match lines.as_slice() {
        [one] => format!("{kind} {name:?} is invalid: {one}"),
        many => format!("{kind} {name:?} is invalid: [{}]", many.join(", ")),
    }
}

/// The message of the 400 that `fieldValidation=Strict` gives for fields nobody knows.
pub fn strict_message(kind: &str, version: &str, unknown: &[String]) -> String {
    let fields: Vec<String> = unknown.iter().map(|path| unknown_field(path)).collect();
    format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}",
        fields.join(", ")
    )
}

/// The warning that `fieldValidation=Warn` gives for one field nobody knows.
pub fn unknown_field(path: &str) -> String {
    format!("unknown field {path:?}")
}

/// Where in the object we are; written out only when something is wrong there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
}

// === impl Path ===

impl<'a> Path<'a> {
    /// The object itself.
    pub(crate) const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    /// A field of what stands here.
    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        Path {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// An item of the list that stands here.
    pub(crate) fn index(&'a self, index: usize) -> Self {
        Path {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// The path as the `field` of an error: the object itself is called `<nil>`.
    pub(crate) fn name(&self) -> String {
        let path = self.to_string();
        if path.is_empty() {
            "<nil>".to_owned()
        } else {
            path
        }
    }

    /// The path with a rule's `fieldPath` (`.spec.x`) behind it.
    pub(crate) fn join_text(&self, below: &str) -> String {
        let path = format!("{self}{below}");
        match path.trim_start_matches('.') {
            "" => "<nil>".to_owned(),
            path => path.to_owned(),
        }
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let above_root = self.parent.is_none_or(|p| matches!(p.step, Step::Root));
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if above_root => f.write_str(name),
            Step::Field(name) if name.contains('.') => write!(f, "[{name}]"),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(i) => write!(f, "[{i}]"),
        }
    }
}

/// A value as Go prints it in error messages.
pub(crate) fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".to_owned(),
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(k, v)| format!("{k:?}:{}", go_syntax(v)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
