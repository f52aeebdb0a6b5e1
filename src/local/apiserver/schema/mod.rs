//! Structural schemas of custom resources: what an object may hold, and how its parts merge.
//!
//! The order of a write is Kubernetes' own: [`CompiledCrdVersion::prune`], then
//! [`CompiledCrdVersion::default`], then [`CompiledCrdVersion::validate`].

mod builtin;
pub mod errors;
mod format;
mod kubernetes;
pub(crate) mod node;
mod prune;
mod rules;
pub mod shape;
mod validate;

#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;

use serde_json::Value;

use errors::Path;
use node::{Compiler, Node};

pub use errors::{FieldError, Reason, invalid_message, strict_message, unknown_field};
pub use kubernetes::{BuiltInSchema, built_in};
pub use shape::{Key, ListKind, PatchKind, Shape};

/// One version of a `CustomResourceDefinition`, compiled once and used for every write.
#[derive(Debug)]
pub struct CompiledCrdVersion {
    schema: Value,
    root: Node,
}

/// A schema that cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The definition has no such version, or the version has no schema.
    #[error("{crd} has no schema for version {version}")]
    NoSchema {
        /// Name of the definition.
        crd: String,
        /// Version asked for.
        version: String,
    },
    /// Something in the schema has no meaning.
    #[error("{path}: {what}")]
    Invalid {
        /// Path inside the schema.
        path: String,
        /// What is wrong there.
        what: String,
    },
}

impl CompiledCrdVersion {
    /// Compiles `version` of `crd`, a whole `CustomResourceDefinition` object.
    pub fn compile(crd: &Value, version: &str) -> Result<Self, CompileError> {
        let schema = crd
            .pointer("/spec/versions")
            .and_then(Value::as_array)
            .and_then(|versions| versions.iter().find(|v| v["name"] == version))
            .and_then(|v| v.pointer("/schema/openAPIV3Schema"))
            .ok_or_else(|| CompileError::NoSchema {
                crd: crd["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                version: version.to_owned(),
            })?;
        let root = Compiler::default().node(schema, "openAPIV3Schema", 0)?;
        Ok(Self {
            root,
            schema: schema.clone(),
        })
    }

    /// The `openAPIV3Schema` as it was written.
    pub fn openapi(&self) -> &Value {
        &self.schema
    }

    /// Drops every field the schema does not know; returns their paths, `spec.foo`, `spec.list[0].x`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut dropped = Vec::new();
        prune::prune_object(object, &self.root, &Path::ROOT, &mut dropped);
        dropped
    }

    /// Fills in the defaults of missing fields.
    pub fn default(&self, object: &mut Value) {
        prune::fill_in(object, &self.root);
    }

    /// Everything that is wrong with `object`; `old` is the stored object on an update.
    ///
    /// What was wrong before and has not changed is let through, as Kubernetes does.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::check(object, old, &self.root, &Path::ROOT, &mut errors);
        errors
    }

    /// How objects of this version merge.
    pub fn shape(&self) -> Shape<'_> {
        Shape::custom(&self.root)
    }
}
