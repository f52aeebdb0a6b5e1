//! Server-side apply, and who owns which field.
//!
//! Every write leaves a note in `metadata.managedFields`: an apply owns exactly the fields of its
//! configuration, an ordinary write owns what it changed. From that follows all the rest: an apply
//! that would change another's field is a conflict, and a field that an applier no longer mentions
//! goes when nobody else owns it.

mod fields;
mod managed;
mod merge;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use fields::FieldSet;
use managed::{Entry, Operation};

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
    /// The other manager as it is printed, `"kubectl-edit" using v1`.
    pub manager: String,
    /// Path as Kubernetes writes it, `.spec.replicas`.
    pub field: String,
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
                    let message = format!("conflict with {}", c.manager);
                    json!({ "reason": "FieldManagerConflict", "message": message, "field": c.field })
                })
                .collect(),
            Self::Malformed(_) => Vec::new(),
        }
    }
}

/// `live` (if there is one) with `config` applied to it by the writer; `managedFields` are up to date.
///
/// On `/status` only the status of `config` counts. On the main resource the caller has taken the
/// status out of `config` where the kind has a status subresource. When nothing changes, the answer
/// equals `live`.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    write: &Write<'_>,
    on_conflict: OnConflict,
) -> Result<Value, ApplyError> {
    let malformed = |what: &str| ApplyError::Malformed(what.to_owned());
    if write.manager.is_empty() {
        return Err(malformed("fieldManager is required for apply patch"));
    }
    if config
        .pointer("/metadata/managedFields")
        .is_some_and(|m| *m != json!([]) && !m.is_null())
    {
        return Err(malformed("metadata.managedFields must be nil"));
    }
    let shape = write.shape;
    let config = merge::without_nulls(&written_by(config, write.subresource), shape);
    merge::check_lists(&config, shape, "").map_err(ApplyError::Malformed)?;
    let wanted = merge::fields_of(&owned_part(&config), shape);
    let before = live.cloned().unwrap_or_else(|| json!({}));
    let mut entries = managed::read(live);

    let (mine, others): (Vec<Entry>, Vec<Entry>) = entries
        .drain(..)
        .partition(|entry| entry.is_of(write, Operation::Apply));
    let mut after = merge::merge(&before, &config, shape);
    if let Some(mine) = mine.first() {
        let mut kept = wanted.clone();
        for other in &others {
            kept.add(&other.fields);
        }
        merge::prune(&mut after, &mine.fields, &kept, shape);
    }

    let changes = merge::compare(&comparable(&before), &comparable(&after), shape);
    let conflicts = conflicts(&others, &changes.changed);
    if on_conflict == OnConflict::Refuse && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    let same_fields = mine.first().is_some_and(|mine| mine.fields == wanted);
    if changes.is_empty() && (same_fields || (mine.is_empty() && wanted.is_empty())) {
        return Ok(before);
    }
    entries = others;
    disown(&mut entries, &changes);
    entries.push(Entry::new(write, Operation::Apply, &after, wanted));
    managed::write(&mut after, entries);
    Ok(after)
}

/// Records in `after.metadata.managedFields` what an ordinary create, update or patch changed.
///
/// `before` is the stored object (`None` on create). Call it last, on the object that will be
/// stored, with everything the server itself changed already in it. As in Kubernetes, entries that
/// the client sent replace the stored ones (`kubectl` so turns its updates into applies), `[{}]`
/// forgets all, and nothing, or a write to a subresource, leaves the stored ones.
pub fn record_update(before: Option<&Value>, after: &mut Value, write: &Write<'_>) {
    let mut entries = known_entries(before, after, write);
    let nothing = json!({});
    let changes = merge::compare(
        &comparable(before.unwrap_or(&nothing)),
        &comparable(after),
        write.shape,
    );
    if !changes.is_empty() {
        let mine = entries
            .iter()
            .position(|entry| entry.is_of(write, Operation::Update));
        let mut fields = mine.map_or_else(FieldSet::default, |at| entries.remove(at).fields);
        fields.take_trees(&changes.removed);
        fields.add(&changes.changed);
        disown(&mut entries, &changes);
        entries.push(Entry::new(write, Operation::Update, after, fields));
    }
    managed::write(after, entries);
}

/// The entries that an update starts from.
fn known_entries(before: Option<&Value>, after: &Value, write: &Write<'_>) -> Vec<Entry> {
    let stored = || managed::read(before);
    if write.subresource.is_some() {
        return stored();
    }
    match after
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
    {
        Some(sent) if *sent == [json!({})] => Vec::new(),
        Some(sent) if !sent.is_empty() => managed::read(Some(after)),
        _ => stored(),
    }
}

/// Takes from all entries what somebody else changed or removed.
fn disown(entries: &mut [Entry], changes: &merge::Changes) {
    for entry in entries {
        entry.fields.take_trees(&changes.removed);
        entry.fields.take(&changes.changed);
    }
}

fn conflicts(others: &[Entry], changed: &FieldSet) -> Vec<Conflict> {
    let of = |entry: &Entry| {
        let conflict = |field| Conflict {
            manager: entry.printed(),
            field,
        };
        entry
            .fields
            .common(changed)
            .into_iter()
            .map(conflict)
            .collect::<Vec<_>>()
    };
    others.iter().flat_map(of).collect()
}

/// The part of a configuration that an endpoint writes.
fn written_by(config: &Value, subresource: Option<&str>) -> Value {
    let (Some("status"), Value::Object(config)) = (subresource, config) else {
        return config.clone();
    };
    let mut part = Map::new();
    for name in ["apiVersion", "kind", "status"] {
        if let Some(value) = config.get(name) {
            part.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(part)
}

/// The object without what nobody owns: its identity and what the server alone writes.
fn owned_part(object: &Value) -> Value {
    const OF_THE_SERVER: [&str; 8] = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "selfLink",
        "managedFields",
    ];
    let Value::Object(fields) = object else {
        return object.clone();
    };
    let mut fields = fields.clone();
    fields.remove("apiVersion");
    fields.remove("kind");
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        metadata.retain(|name, _| !OF_THE_SERVER.contains(&name.as_str()));
        if metadata.is_empty() {
            fields.remove("metadata");
        }
    }
    Value::Object(fields)
}

/// The owned part with its metadata, if empty: that map itself is nobody's.
fn comparable(object: &Value) -> Value {
    let mut part = owned_part(object);
    if let Value::Object(fields) = &mut part {
        fields.entry("metadata").or_insert_with(|| json!({}));
    }
    part
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.manager, one.field
        );
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|c| c.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        let theirs = conflicts.iter().filter(|c| c.manager == manager);
        lines.extend(theirs.map(|c| format!("- {}", c.field)));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}
