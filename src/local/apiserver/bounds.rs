//! Sizes of objects and patches, as etcd and kube-apiserver bound them. Pure.

use json_patch::jsonptr::Pointer;
use json_patch::{PatchOperation, patch_unsafe};
use serde_json::Value;

use super::error::ApiError;
use crate::local::store::octets_of as size_of;

/// Largest stored object, as JSON. etcd's default limit for a request is the same.
pub const OBJECT_MAX_BYTES: usize = 3 * 512 * 1024;
/// Deepest stored object. A parser of JSON refuses 128 levels, and a list or a watch adds some.
pub const DEPTH_MAX: usize = 100;
/// Operations of one JSON patch, as in kube-apiserver.
pub const PATCH_OPERATIONS_MAX: usize = 10_000;
/// Bytes that the operations of one JSON patch copy, and places in lists that they move: about a
/// second of work.
const PATCH_WORK_MAX: usize = 256 * 1024 * 1024;
/// What moving one place of a list counts as, in bytes.
const MOVED_BYTES: usize = 2;

/// A patch that is not applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchRefused {
    /// The object would be larger than objects may be, or the patch is too much work.
    #[error("{0}")]
    TooLarge(String),
    /// An operation has no meaning.
    #[error(transparent)]
    Broken(#[from] json_patch::PatchError),
}

/// The levels of maps and lists in `value`; counting stops at one above [`DEPTH_MAX`].
pub fn depth_of(value: &Value) -> usize {
    let mut level: Vec<&Value> = vec![value];
    for depth in 0..=DEPTH_MAX {
        let mut next = Vec::new();
        for value in level {
            match value {
                Value::Object(fields) => next.extend(fields.values()),
                Value::Array(items) => next.extend(items),
                _ => {}
            }
        }
        if next.is_empty() {
            return depth;
        }
        level = next;
    }
    DEPTH_MAX + 1
}

/// Refuses an object that is too deep to be stored and read again.
pub fn check_depth(object: &Value) -> Result<(), ApiError> {
    if depth_of(object) > DEPTH_MAX {
        return Err(ApiError::BadRequest(format!(
            "the object has more than {DEPTH_MAX} levels of maps and lists; make it flatter"
        )));
    }
    Ok(())
}

/// Refuses an object that is too large to be stored. One that shrinks is let through.
pub fn check_size(before: Option<&Value>, object: &Value) -> Result<(), ApiError> {
    let size = size_of(object);
    if size > OBJECT_MAX_BYTES && before.is_none_or(|before| size > size_of(before)) {
        return Err(ApiError::TooLarge(OBJECT_MAX_BYTES));
    }
    Ok(())
}

/// Applies the operations one by one, and stops where the result grows past [`OBJECT_MAX_BYTES`].
/// After an error `object` is half patched: patch a copy.
pub fn json_patch(object: &mut Value, patch: &[PatchOperation]) -> Result<(), PatchRefused> {
    if patch.len() > PATCH_OPERATIONS_MAX {
        return Err(PatchRefused::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {PATCH_OPERATIONS_MAX}, got {}",
            patch.len()
        )));
    }
    let mut size = size_of(object);
    let mut work = 0_usize;
    for operation in patch {
        let (added, deeper) = added(object, operation);
        let removed = removed(object, operation);
        work = work
            .saturating_add(added)
            .saturating_add(removed)
            .saturating_add(moved(object, operation).saturating_mul(MOVED_BYTES));
        size = size.saturating_add(added).saturating_sub(removed);
        if size > OBJECT_MAX_BYTES && added > removed {
            return Err(PatchRefused::TooLarge(format!(
                "the patched object would be larger than {OBJECT_MAX_BYTES} bytes"
            )));
        }
        if deeper > DEPTH_MAX {
            return Err(PatchRefused::TooLarge(format!(
                "the patched object would have more than {DEPTH_MAX} levels"
            )));
        }
        if work > PATCH_WORK_MAX {
            return Err(PatchRefused::TooLarge(
                "the operations of the patch copy and move too much; send several patches"
                    .to_owned(),
            ));
        }
        patch_unsafe(object, std::slice::from_ref(operation))?;
    }
    Ok(())
}

/// Bytes that an operation adds, and the levels at which it does.
fn added(object: &Value, operation: &PatchOperation) -> (usize, usize) {
    let at = |path: &Pointer, value: Option<&Value>| {
        let steps = path.count();
        let name = path.last().map_or(0, |step| {
            size_of(&Value::String(step.decoded().into_owned())) + 2
        });
        let (size, depth) = value.map_or((0, 0), |value| (size_of(value), depth_of(value)));
        (size + name, steps + depth)
    };
    match operation {
        PatchOperation::Add(add) => at(&add.path, Some(&add.value)),
        PatchOperation::Replace(replace) => at(&replace.path, Some(&replace.value)),
        PatchOperation::Copy(copy) => at(&copy.path, copy.from.resolve(object).ok()),
        PatchOperation::Move(moved) => at(&moved.path, moved.from.resolve(object).ok()),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => (0, 0),
    }
}

/// Bytes that an operation takes away. Names of fields are left out, so that the size never counts
/// as less than it is.
fn removed(object: &Value, operation: &PatchOperation) -> usize {
    let there = |path: &Pointer| path.resolve(object).map_or(0, size_of);
    let in_map = |path: &Pointer| {
        path.parent()
            .and_then(|parent| parent.resolve(object).ok())
            .is_none_or(Value::is_object)
    };
    match operation {
        PatchOperation::Remove(remove) => there(&remove.path),
        PatchOperation::Replace(replace) => there(&replace.path),
        PatchOperation::Move(moved) => there(&moved.from),
        PatchOperation::Add(add) if in_map(&add.path) => there(&add.path),
        PatchOperation::Copy(copy) if in_map(&copy.path) => there(&copy.path),
        PatchOperation::Add(_) | PatchOperation::Copy(_) | PatchOperation::Test(_) => 0,
    }
}

/// Places of lists that an operation moves.
fn moved(object: &Value, operation: &PatchOperation) -> usize {
    let list = |path: &Pointer| {
        let parent = path.parent().and_then(|parent| parent.resolve(object).ok());
        parent.and_then(Value::as_array).map_or(0, Vec::len)
    };
    match operation {
        PatchOperation::Add(add) => list(&add.path),
        PatchOperation::Copy(copy) => list(&copy.path),
        PatchOperation::Remove(remove) => list(&remove.path),
        PatchOperation::Move(moved) => list(&moved.from).saturating_add(list(&moved.path)),
        PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(object: &Value, patch: Value) -> Result<Value, PatchRefused> {
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let mut object = object.clone();
        json_patch(&mut object, &patch).map(|()| object)
    }

    #[test]
    fn sizes_and_depths_are_those_of_the_text() {
        let value = json!({"a": [1, {"b": "text"}], "c": null});
        assert_eq!(size_of(&value), value.to_string().len());
        assert_eq!((depth_of(&value), depth_of(&json!(7))), (3, 0));
        let deep = (0..5_000).fold(json!(1), |inner, _| Value::Array(vec![inner]));
        assert_eq!(depth_of(&deep), DEPTH_MAX + 1);
        assert!(check_depth(&deep).is_err());
        // Dropping it one level at a time keeps the test's stack.
        let mut left = deep;
        while let Value::Array(mut items) = left {
            left = items.pop().unwrap_or_default();
        }
    }

    #[test]
    fn a_patch_that_copies_itself_stops_at_the_bound_of_the_result() {
        let object = json!({"data": {"a": "x".repeat(1024)}});
        let copies: Vec<Value> = (0..40)
            .map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/n{n}")}))
            .collect();
        let refused = patched(&object, json!(copies)).unwrap_err();
        assert!(matches!(refused, PatchRefused::TooLarge(_)), "{refused}");
        let some = patched(&object, json!(copies[..5])).unwrap();
        assert!(size_of(&some) < OBJECT_MAX_BYTES);
    }

    #[test]
    fn operations_levels_and_work_are_bounded() {
        let test = json!({"op": "test", "path": "/a", "value": 1});
        let object = json!({"a": 1});
        patched(&object, json!(vec![test.clone(); PATCH_OPERATIONS_MAX])).unwrap();
        let refused = patched(&object, json!(vec![test; PATCH_OPERATIONS_MAX + 1])).unwrap_err();
        assert!(
            refused.to_string().contains("10000, got 10001"),
            "{refused}"
        );

        let deeper: Vec<Value> = (1..200)
            .map(|n| json!({"op": "add", "path": "/a".repeat(n), "value": {}}))
            .collect();
        let refused = patched(&json!({}), json!(deeper)).unwrap_err();
        assert!(refused.to_string().contains("levels"), "{refused}");

        let list = json!({"a": vec![0; 600_000], "b": 0});
        let shift = json!({"op": "add", "path": "/a/0", "value": 0});
        let refused = patched(&list, json!(vec![shift; 10_000])).unwrap_err();
        assert!(refused.to_string().contains("copy and move"), "{refused}");
        let large = json!({"a": "x".repeat(1024 * 1024)});
        let again = [
            json!({"op": "copy", "from": "/a", "path": "/b"}),
            json!({"op": "remove", "path": "/b"}),
        ];
        let refused = patched(&large, json!(vec![&again[..]; 4_000].concat())).unwrap_err();
        assert!(matches!(refused, PatchRefused::TooLarge(_)), "{refused}");
    }

    #[test]
    fn the_counted_size_is_never_below_the_real_one() {
        let object = json!({"a": {"b": [1, 2, 3]}, "list": ["x", "y"], "text": "z"});
        let steps = [
            json!({"op": "add", "path": "/a/c", "value": {"d": "eeee"}}),
            json!({"op": "add", "path": "/list/1", "value": "between"}),
            json!({"op": "add", "path": "/list/-", "value": ["end"]}),
            json!({"op": "copy", "from": "/a", "path": "/copy"}),
            json!({"op": "move", "from": "/copy/b", "path": "/moved"}),
            json!({"op": "replace", "path": "/text", "value": "longer text"}),
            json!({"op": "add", "path": "/text", "value": "s"}),
            json!({"op": "remove", "path": "/list/0"}),
        ];
        let mut now = object;
        let mut counted = size_of(&now);
        for step in steps {
            let patch: json_patch::Patch = serde_json::from_value(json!([step])).unwrap();
            counted = counted + added(&now, &patch[0]).0 - removed(&now, &patch[0]);
            json_patch(&mut now, &patch).unwrap();
            assert!(counted >= size_of(&now), "{step}: {counted} {now}");
        }
    }
}
