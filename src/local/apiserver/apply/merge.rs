//! Reading, merging, comparing and pruning objects by their shape.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use super::fields::FieldSet;
use crate::local::apiserver::schema::{Key, ListKind, Shape};

/// What a place is made of, as far as ownership is concerned.
enum Parts<'a> {
    /// One value.
    One,
    /// A map of fields.
    Fields,
    /// A list whose items have a name: the values themselves, or some of their fields.
    Items(Naming<'a>),
}

enum Naming<'a> {
    ByValue,
    ByKeys(Vec<Key<'a>>),
}

/// What changed between two states.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Fields that are new or have another value.
    pub(super) changed: FieldSet,
    /// Fields that are gone, with all that was below them.
    pub(super) removed: FieldSet,
}

/// The fields that `value` sets. Maps are only members when they are empty.
pub(super) fn fields_of(value: &Value, shape: Shape<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    match (parts(value, shape), value) {
        (Parts::Fields, Value::Object(fields)) if !fields.is_empty() => {
            for (name, value) in fields {
                set.below
                    .insert(format!("f:{name}"), fields_of(value, shape.field(name)));
            }
        }
        (Parts::Items(naming), Value::Array(items)) if !items.is_empty() => {
            for item in items {
                let mut below = fields_of(item, shape.item());
                below.member = true;
                set.below.insert(naming.step(item), below);
            }
        }
        _ => set.member = true,
    }
    set
}

/// `live` with what `config` says put over it.
pub(super) fn merge(live: &Value, config: &Value, shape: Shape<'_>) -> Value {
    match (parts(config, shape), live, config) {
        (Parts::Fields, Value::Object(live), Value::Object(config)) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let value = match live.get(name) {
                    Some(live) => merge(live, value, shape.field(name)),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Parts::Items(naming), Value::Array(live), Value::Array(config)) => {
            Value::Array(merge_items(live, config, &naming, shape))
        }
        _ => config.clone(),
    }
}

/// The order is the configuration's; items it does not name come before the next one that it does.
fn merge_items(
    live: &[Value],
    config: &[Value],
    naming: &Naming<'_>,
    shape: Shape<'_>,
) -> Vec<Value> {
    let (named, there) = (naming.places(config), naming.places(live));
    let is_live_only = |item: &&Value| !named.contains_key(&naming.step(item));
    let mut rest = live.iter().peekable();
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    for item in config {
        while let Some(other) = rest.next_if(is_live_only) {
            merged.push(other.clone());
        }
        match there.get(&naming.step(item)).copied() {
            Some(at) => {
                merged.push(merge(&live[at], item, shape.item()));
                rest.next_if(|other| !is_live_only(other));
            }
            None => merged.push(item.clone()),
        }
    }
    merged.extend(rest.filter(is_live_only).cloned());
    merged
}

/// What changed from `old` to `new`.
pub(super) fn compare(old: &Value, new: &Value, shape: Shape<'_>) -> Changes {
    let mut changes = Changes::default();
    match (parts(old, shape), parts(new, shape), old, new) {
        (Parts::Fields, Parts::Fields, Value::Object(old), Value::Object(new)) => {
            let names = old
                .keys()
                .chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names {
                let step = format!("f:{name}");
                changes.below(step, old.get(name), new.get(name), shape.field(name));
            }
        }
        (Parts::Items(naming), Parts::Items(_), Value::Array(old), Value::Array(new)) => {
            let (before, after) = (naming.places(old), naming.places(new));
            let new_only = after.keys().filter(|step| !before.contains_key(*step));
            for step in before.keys().chain(new_only) {
                let old = before.get(step).map(|at| &old[*at]);
                let new = after.get(step).map(|at| &new[*at]);
                changes.below(step.clone(), old, new, shape.item());
            }
        }
        _ if old != new => {
            changes.changed = everything(new, shape);
            changes.removed = fields_of(old, shape);
            changes.removed.take(&changes.changed);
        }
        _ => {}
    }
    changes
}

/// Takes out of `value` the fields in `dropped` that are not in `kept`, and what they leave empty.
pub(super) fn prune(value: &mut Value, dropped: &FieldSet, kept: &FieldSet, shape: Shape<'_>) {
    match (parts(value, shape), value) {
        (Parts::Fields, Value::Object(fields)) => {
            fields.retain(|name, value| {
                let step = format!("f:{name}");
                stays(
                    value,
                    dropped.below.get(&step),
                    kept.below.get(&step),
                    shape.field(name),
                )
            });
        }
        (Parts::Items(naming), Value::Array(items)) => {
            items.retain_mut(|item| {
                let step = naming.step(item);
                let keys = naming.keys_in(item);
                let stays = stays(
                    item,
                    dropped.below.get(&step),
                    kept.below.get(&step),
                    shape.item(),
                );
                // What tells an item from others stays as long as the item does.
                if let (true, Value::Object(item)) = (stays, item) {
                    item.extend(keys);
                }
                stays
            });
        }
        _ => {}
    }
}

fn stays(
    value: &mut Value,
    dropped: Option<&FieldSet>,
    kept: Option<&FieldSet>,
    shape: Shape<'_>,
) -> bool {
    let Some(dropped) = dropped else { return true };
    if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
        prune(value, dropped, kept, shape);
        return true;
    }
    if dropped.member {
        return false;
    }
    prune(value, dropped, &FieldSet::default(), shape);
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// Nulls mean "not set", except where the schema allows them.
pub(super) fn without_nulls(value: &Value, shape: Shape<'_>) -> Value {
    match (parts(value, shape), value) {
        (Parts::Fields, Value::Object(fields)) => {
            let kept = fields
                .iter()
                .filter(|(name, value)| !value.is_null() || shape.field(name).allows_null())
                .map(|(name, value)| (name.clone(), without_nulls(value, shape.field(name))));
            Value::Object(kept.collect())
        }
        (Parts::Items(_), Value::Array(items)) => items
            .iter()
            .map(|item| without_nulls(item, shape.item()))
            .collect(),
        _ => value.clone(),
    }
}

/// Says what is wrong with the lists of a configuration: an item without its keys, or two alike.
pub(super) fn check_lists(value: &Value, shape: Shape<'_>, path: &str) -> Result<(), String> {
    match (parts(value, shape), value) {
        (Parts::Fields, Value::Object(fields)) => fields.iter().try_for_each(|(name, value)| {
            check_lists(value, shape.field(name), &format!("{path}.{name}"))
        }),
        (Parts::Items(naming), Value::Array(items)) => {
            let mut seen = HashSet::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                if let Some(key) = naming.missing_key(item) {
                    return Err(format!(
                        "{path}: element {i}: associative list with keys has an element that omits key field {key:?}"
                    ));
                }
                let step = naming.step(item);
                if seen.contains(&step) {
                    return Err(format!(
                        "{path}: duplicate entries for key [{}]",
                        &step[2..]
                    ));
                }
                seen.insert(step);
                check_lists(item, shape.item(), &format!("{path}[{i}]"))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

// === impl Changes ===

impl Changes {
    fn below(&mut self, step: String, old: Option<&Value>, new: Option<&Value>, shape: Shape<'_>) {
        let below = match (old, new) {
            (Some(old), Some(new)) => compare(old, new, shape),
            (Some(_), None) => Self {
                removed: FieldSet::here(),
                ..Self::default()
            },
            (None, Some(new)) => Self {
                changed: everything(new, shape),
                ..Self::default()
            },
            (None, None) => return,
        };
        if !below.changed.is_empty() {
            self.changed.below.insert(step.clone(), below.changed);
        }
        if !below.removed.is_empty() {
            self.removed.below.insert(step, below.removed);
        }
    }

    /// Whether the two states are the same.
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

// === impl Naming ===

impl Naming<'_> {
    /// The name of an item, as a step of a path.
    fn step(&self, item: &Value) -> String {
        match self {
            Self::ByValue => format!("v:{item}"),
            Self::ByKeys(keys) => {
                let value = |key: &Key<'_>| item.get(key.name).or(key.default.as_ref()).cloned();
                let named = keys
                    .iter()
                    .filter_map(|k| Some((k.name.to_owned(), value(k)?)));
                format!("k:{}", Value::Object(named.collect()))
            }
        }
    }

    /// Where each name stands first.
    fn places(&self, items: &[Value]) -> BTreeMap<String, usize> {
        let mut places = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            places.entry(self.step(item)).or_insert(at);
        }
        places
    }

    /// The keys an item has, with their values.
    fn keys_in(&self, item: &Value) -> Map<String, Value> {
        let Self::ByKeys(keys) = self else {
            return Map::new();
        };
        keys.iter()
            .filter_map(|k| Some((k.name.to_owned(), item.get(k.name)?.clone())))
            .collect()
    }

    /// A key that an item lacks.
    fn missing_key(&self, item: &Value) -> Option<&str> {
        let Self::ByKeys(keys) = self else {
            return None;
        };
        keys.iter()
            .find(|k| item.get(k.name).is_none() && k.default.is_none())
            .map(|k| k.name)
    }
}

fn parts<'a>(value: &Value, shape: Shape<'a>) -> Parts<'a> {
    match value {
        Value::Object(_) if !shape.map_is_atomic() => Parts::Fields,
        Value::Array(_) => match shape.list() {
            ListKind::Atomic => Parts::One,
            ListKind::Set => Parts::Items(Naming::ByValue),
            ListKind::Map(keys) => Parts::Items(Naming::ByKeys(keys)),
        },
        _ => Parts::One,
    }
}

/// All that `value` sets, with the maps and lists themselves.
fn everything(value: &Value, shape: Shape<'_>) -> FieldSet {
    fn mark(set: &mut FieldSet) {
        set.member = true;
        set.below.values_mut().for_each(mark);
    }
    let mut set = fields_of(value, shape);
    mark(&mut set);
    set
}
