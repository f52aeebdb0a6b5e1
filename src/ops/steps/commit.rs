//! Commit: the change becomes the PgBouncer's specification; undone by writing
//! the former one.

use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::{Action, Doing};
use crate::api::PgBouncer;
use crate::ops::plan::Plan;
use crate::ops::request::{TlsState, with_state};
use crate::ops::view::Milestone;
use crate::ops::work::{Bench, Ground, Look, OFTEN, Side, StepError};

pub(super) struct Commit;

impl Action for Commit {
    fn label(&self) -> &'static str {
        "commit"
    }

    fn title(&self) -> String {
        "commit".to_owned()
    }

    fn outline(&self, _plan: &Plan) -> String {
        "write spec.tls, spec.sslMode and authType".to_owned()
    }

    fn milestone(&self) -> Option<Milestone> {
        Some(Milestone::Committed)
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(commit(bench, Side::Target))
    }

    fn undo<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(commit(bench, Side::Former))
    }
}

/// Writes the three fields of one side, if they say what the other side said. What was written by others
/// in the meantime is not overwritten.
async fn commit(bench: &Bench<'_>, side: Side) -> Result<(), StepError> {
    let wanted = bench.state(side);
    let expected = match side {
        Side::Former => &bench.plan.target,
        Side::Target => &bench.plan.former,
    };
    let look = || async {
        let live = bench.ground.live().await?;
        let present = TlsState::of(&live.spec);
        if present == *wanted {
            return Ok(Look::Found(()));
        }
        if present != *expected {
            return Err(StepError::SpecChanged(bench.plan.database_at()));
        }
        write_state(&bench.ground, &live, wanted).await
    };
    bench.ground.waiting.until(OFTEN, look).await
}

async fn write_state(
    ground: &Ground<'_>,
    live: &PgBouncer,
    wanted: &TlsState,
) -> Result<Look<()>, StepError> {
    let before = serde_json::to_value(&live.spec).unwrap_or_default();
    let after = serde_json::to_value(with_state(&live.spec, wanted)).unwrap_or_default();
    let patch = json!({
        "metadata": { "resourceVersion": live.resource_version() },
        "spec": merge_patch(&before, &after),
    });
    match ground
        .cluster
        .patch::<PgBouncer>(&ground.at(), &patch)
        .await
    {
        Ok(_) => Ok(Look::Found(())),
        Err(error) if error.is_conflict() => Ok(Look::Missing(
            "somebody else writes the PgBouncer".to_owned(),
        )),
        Err(error) => Err(error.into()),
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
mod model {
    use super::Commit;
    use crate::ops::decide::testing::model::{Run, Side, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for Commit {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            run.effect(|site| site.spec = Side::Target)
        }

        fn model_undo(&self, run: &mut Run) -> Result<(), Stop> {
            run.effect(|site| site.spec = Side::Former)
        }
    }
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
