//! What an admission webhook would do (docs/kubedb-compatibility.md, "Defaults"): the bounds of a specification are checked, what it
//! leaves open is written back, and the object gets its finalizer and its first condition.

use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::Provisioner;
use super::blocked::Blocked;
use super::validate::compare_and_swap;
use crate::api::PgBouncer;
use crate::api::annotations::FINALIZER;
use crate::api::pgbouncer::PgBouncerSpec;
use crate::blueprint::bounds;
use crate::blueprint::defaults;
use crate::cluster::{ClusterError, reference};

impl Provisioner {
    /// Puts our finalizer on the object and says that work has begun.
    pub(super) async fn begin(&self, bouncer: PgBouncer) -> Result<PgBouncer, ClusterError> {
        let at = reference(&bouncer);
        let bouncer = match finalizer(&bouncer) {
            Some(patch) => self.cluster.patch(&at, &patch).await?,
            None => bouncer,
        };
        self.report_started(bouncer).await
    }

    /// Writes back what the specification leaves open, if it keeps the bounds.
    pub(super) async fn complete(&self, bouncer: &mut PgBouncer) -> Result<(), Blocked> {
        bounds::check(&bouncer.spec)?;
        let issuer = self.issuer_kind(bouncer).await?;
        let completed = defaults::complete(&bouncer.spec, &bouncer.name_any(), issuer);
        if let Some(patch) = completion(bouncer, &completed) {
            *bouncer = self.cluster.patch(&reference(bouncer), &patch).await?;
        }
        Ok(())
    }
}

/// The merge patch that turns the specification into the completed one; `None` if it is complete.
/// Only the fields that change stand in it, so that fields we do not know survive.
fn completion(bouncer: &PgBouncer, completed: &PgBouncerSpec) -> Option<Value> {
    let fields = |spec: &PgBouncerSpec| match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (before, after) = (fields(&bouncer.spec), fields(completed));
    let mut changed: Map<String, Value> = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for gone in before.keys().filter(|key| !after.contains_key(*key)) {
        changed.insert(gone.clone(), Value::Null);
    }
    (!changed.is_empty()).then(|| compare_and_swap(bouncer, json!({ "spec": changed })))
}

/// The merge patch that puts our finalizer on the object; `None` if it is there.
fn finalizer(bouncer: &PgBouncer) -> Option<Value> {
    let mut finalizers = bouncer.finalizers().to_vec();
    if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return None;
    }
    finalizers.push(FINALIZER.to_owned());
    Some(compare_and_swap(
        bouncer,
        json!({ "metadata": { "finalizers": finalizers } }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::defaults::{IssuerKind, complete};
    use crate::blueprint::testing;

    #[test]
    fn only_what_changes_is_written_back_and_only_on_the_version_that_was_read() {
        let mut bouncer = testing::bouncer("billing");
        bouncer.metadata.resource_version = Some("41".into());
        let completed = complete(&bouncer.spec, "billing", IssuerKind::Private);
        let patch = completion(&bouncer, &completed).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "41");
        assert_eq!(patch["spec"]["sslMode"], "disable");
        assert!(patch["spec"].get("database").is_none());
        bouncer.spec = completed.clone();
        assert_eq!(completion(&bouncer, &completed), None);
    }

    #[test]
    fn a_folded_field_is_removed() {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.config_secret = Some(crate::api::common::LocalRef {
            name: "tuned".into(),
        });
        let completed = complete(&bouncer.spec, "billing", IssuerKind::Private);
        let patch = completion(&bouncer, &completed).unwrap();
        assert_eq!(patch["spec"]["configSecret"], Value::Null);
        assert_eq!(patch["spec"]["configuration"]["secretName"], "tuned");
    }
}
