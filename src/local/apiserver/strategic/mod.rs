//! Strategic merge patch, which `kubectl` sends for the kinds Kubernetes brings itself.
//!
//! A map merges field by field and null deletes, as in a JSON merge patch. Lists with a merge key
//! (see [`Shape::patch_list`]) merge item by item. Directives inside of the patch say more:
//! `$patch: replace|delete|merge`, `$deleteFromPrimitiveList/f`, `$setElementOrder/f`, `$retainKeys`.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::schema::{PatchKind, Shape};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// A patch that has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid strategic merge patch at {path}: {what}")]
pub struct PatchError {
    /// Where in the patch.
    pub path: String,
    /// What is wrong there.
    pub what: String,
}

/// Applies `patch` to `object`, which is of the given shape.
///
/// On an error `object` may be half patched: patch a copy.
pub fn patch(object: &mut Value, patch: &Value, shape: Shape<'_>) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(wrong("", "the patch is no object"));
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(object) = object else {
        return Ok(());
    };
    if merge_fields(object, patch, shape, "")? == Fate::Deleted {
        object.clear();
    }
    Ok(())
}

/// What a directive says about the map it stands in.
#[derive(PartialEq, Eq)]
enum Fate {
    Kept,
    Deleted,
}

fn merge_fields(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    shape: Shape<'_>,
    place: &str,
) -> Result<Fate, PatchError> {
    match patch.get(PATCH).map(|d| d.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("delete") => return Ok(Fate::Deleted),
        Some("replace") => {
            object.clear();
            object.extend(without_directives(patch));
            return Ok(Fate::Kept);
        }
        Some(other) => {
            return Err(wrong(
                place,
                &format!("unknown directive $patch: {other:?}"),
            ));
        }
    }
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        let Value::Array(retained) = retained else {
            return Err(wrong(place, "$retainKeys is no list"));
        };
        let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
        object.retain(|name, _| retained.contains(name.as_str()));
    }
    for (directive, values) in patch {
        if let Some(name) = directive.strip_prefix(DELETE_FROM)
            && let (Some(Value::Array(items)), Value::Array(values)) =
                (object.get_mut(name), values)
        {
            let gone: HashSet<String> = values.iter().map(Value::to_string).collect();
            items.retain(|item| !gone.contains(&item.to_string()));
        }
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let place = format!("{place}.{name}");
        merge_field(object, name, value, shape.field(name), &place)?;
    }
    for (directive, order) in patch {
        if let Some(name) = directive.strip_prefix(SET_ORDER)
            && let (Some(Value::Array(items)), Value::Array(order)) = (object.get_mut(name), order)
        {
            sort_by(items, order, shape.field(name));
        }
    }
    Ok(Fate::Kept)
}

fn merge_field(
    object: &mut Map<String, Value>,
    name: &str,
    patch: &Value,
    shape: Shape<'_>,
    place: &str,
) -> Result<(), PatchError> {
    match (patch, shape.patch_list()) {
        (Value::Null, _) => {
            object.remove(name);
        }
        (Value::Object(patch), _) => {
            let mut merged = match object.remove(name) {
                Some(Value::Object(fields)) => fields,
                _ => Map::new(),
            };
            if merge_fields(&mut merged, patch, shape, place)? == Fate::Kept {
                object.insert(name.to_owned(), Value::Object(merged));
            }
        }
        (Value::Array(patch), PatchKind::MergeBy(key)) => {
            let mut items = take_list(object, name);
            merge_items(&mut items, patch, key, shape.item(), place)?;
            object.insert(name.to_owned(), Value::Array(items));
        }
        (Value::Array(patch), PatchKind::MergeValues) => {
            let mut items = take_list(object, name);
            let mut there: HashSet<String> = items.iter().map(Value::to_string).collect();
            let new = patch.iter().filter(|value| there.insert(value.to_string()));
            items.extend(new.cloned());
            object.insert(name.to_owned(), Value::Array(items));
        }
        (other, _) => {
            object.insert(name.to_owned(), other.clone());
        }
    }
    Ok(())
}

fn merge_items(
    items: &mut Vec<Value>,
    patch: &[Value],
    key: &str,
    shape: Shape<'_>,
    place: &str,
) -> Result<(), PatchError> {
    let replaces = |item: &Value| item.get(PATCH).is_some_and(|d| d == "replace");
    if patch
        .iter()
        .any(|item| replaces(item) && item.get(key).is_none())
    {
        *items = patch
            .iter()
            .filter(|item| item.get(PATCH).is_none())
            .cloned()
            .collect();
        return Ok(());
    }
    let mut places = Places::of(items, key);
    for item in patch {
        let Value::Object(fields) = item else {
            return Err(wrong(place, "an item is no object"));
        };
        let Some(name) = fields.get(key) else {
            return Err(wrong(
                place,
                &format!("an item has no {key:?}, the merge key"),
            ));
        };
        let at = places.first(name);
        let mut merged = match at.map(|at| items[at].take()) {
            Some(Value::Object(existing)) => existing,
            _ => Map::new(),
        };
        let fate = merge_fields(&mut merged, fields, shape, place)?;
        match (fate, at) {
            (Fate::Kept, Some(at)) => items[at] = Value::Object(merged),
            (Fate::Kept, None) => {
                places.add(name, items.len());
                items.push(Value::Object(merged));
            }
            // Others with the same key go too. A null marks what has gone, so that no place moves.
            (Fate::Deleted, _) => {
                for at in places.take(name) {
                    items[at] = Value::Null;
                }
            }
        }
    }
    items.retain(|item| !item.is_null());
    Ok(())
}

/// Where the items of a list are, by their merge key.
struct Places(HashMap<String, Vec<usize>>);

impl Places {
    fn of(items: &[Value], key: &str) -> Self {
        let mut places = Self(HashMap::new());
        for (at, item) in items.iter().enumerate() {
            if let Some(name) = item.get(key) {
                places.add(name, at);
            }
        }
        places
    }

    fn add(&mut self, name: &Value, at: usize) {
        self.0.entry(name.to_string()).or_default().push(at);
    }

    fn first(&self, name: &Value) -> Option<usize> {
        self.0.get(&name.to_string())?.first().copied()
    }

    fn take(&mut self, name: &Value) -> Vec<usize> {
        self.0.remove(&name.to_string()).unwrap_or_default()
    }
}

/// Puts the items that `order` names into its order; the others keep their place before the next
/// one that it names.
fn sort_by(items: &mut Vec<Value>, order: &[Value], shape: Shape<'_>) {
    let name = |item: &Value| match shape.patch_list() {
        PatchKind::MergeBy(key) => item.get(key).map(Value::to_string),
        PatchKind::MergeValues | PatchKind::Replace => Some(item.to_string()),
    };
    let mut places: HashMap<Option<String>, usize> = HashMap::new();
    for (at, wanted) in order.iter().enumerate() {
        places.entry(name(wanted)).or_insert(at);
    }
    let place = |item: &Value| places.get(&name(item)).copied();
    let mut named: Vec<(usize, Value)> = Vec::new();
    let mut slots: Vec<Option<Value>> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        match place(&item) {
            Some(at) => {
                named.push((at, item));
                slots.push(None);
            }
            None => slots.push(Some(item)),
        }
    }
    named.sort_by_key(|(at, _)| *at);
    let mut named = named.into_iter().map(|(_, item)| item);
    items.extend(
        slots
            .into_iter()
            .filter_map(|slot| slot.or_else(|| named.next())),
    );
}

/// Takes the list out of the object: empty where there is none.
fn take_list(object: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match object.remove(name) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    let plain = patch.iter().filter(|(name, _)| !name.starts_with('$'));
    plain
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn wrong(place: &str, what: &str) -> PatchError {
    let path = if place.is_empty() {
        ".".to_owned()
    } else {
        place.to_owned()
    };
    PatchError {
        path,
        what: what.to_owned(),
    }
}
