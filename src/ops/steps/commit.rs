//! Commit: the change becomes the PgBouncer's specification.

use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::look::{Look, OFTEN};
use super::{Bench, Side, StepError};
use crate::api::PgBouncer;
use crate::ops::request::{TlsState, with_state};

impl Bench<'_> {
    /// Writes the three fields of one side, if they say what the other side said. What somebody else
    /// has written in the meantime is not overwritten.
    pub(super) async fn commit(&self, side: Side) -> Result<(), StepError> {
        let wanted = self.state(side);
        let expected = match side {
            Side::Former => &self.plan.target,
            Side::Target => &self.plan.former,
        };
        self.waiting
            .until(OFTEN, || async {
                let live = self.live().await?;
                let present = TlsState::of(&live.spec);
                if present == *wanted {
                    return Ok(Look::Found(()));
                }
                if present != *expected {
                    return Err(StepError::SpecChanged(self.plan.database_at()));
                }
                self.write_state(&live, wanted).await
            })
            .await
    }

    async fn write_state(
        &self,
        live: &PgBouncer,
        wanted: &TlsState,
    ) -> Result<Look<()>, StepError> {
        let before = serde_json::to_value(&live.spec).unwrap_or_default();
        let after = serde_json::to_value(with_state(&live.spec, wanted)).unwrap_or_default();
        let patch = json!({
            "metadata": { "resourceVersion": live.resource_version() },
            "spec": merge_patch(&before, &after),
        });
        match self
            .cluster
            .patch::<PgBouncer>(&self.plan.database_at(), &patch)
            .await
        {
            Ok(_) => Ok(Look::Found(())),
            Err(error) if error.is_conflict() => Ok(Look::Missing(
                "somebody else writes the PgBouncer".to_owned(),
            )),
            Err(error) => Err(error.into()),
        }
    }
}

/// The merge patch (RFC 7396) that makes `after` of `before`: what is gone is `null`.
fn merge_patch(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return after.clone();
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match before.get(key) {
            Some(former) if former == value => {}
            Some(former) => drop(patch.insert(key.clone(), merge_patch(former, value))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_takes_away_what_is_gone_and_leaves_the_rest_out() {
        let before = json!({
            "tls": { "issuerRef": { "apiGroup": "cert-manager.io", "name": "old" } },
            "pool": { "port": 1, "auth": "md5" }, "kept": true,
        });
        let after = json!({
            "tls": { "issuerRef": { "name": "new" } }, "pool": { "port": 1 }, "kept": true,
        });
        let patch = merge_patch(&before, &after);
        assert_eq!(
            patch,
            json!({
                "tls": { "issuerRef": { "apiGroup": null, "name": "new" } },
                "pool": { "auth": null },
            })
        );
        let mut patched = before;
        json_patch::merge(&mut patched, &patch);
        assert_eq!(patched, after);
    }
}
