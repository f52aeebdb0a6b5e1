//! Putting back: a Secret that holds something unsound gets its revision again.

use std::error::Error;

use kube::ResourceExt;

use super::{Rotator, Work};
use crate::api::PgBouncer;
use crate::causes::chain;
use crate::cluster::EventKind;
use crate::material::MaterialError;
use crate::names::{Alias, Revision};
use crate::pki::bundle::TrustBundle;
use crate::rotation::drift::Drift;
use crate::rotation::index::Known;

impl Rotator {
    /// Publishes the revision of an alias again.
    pub(super) async fn put_back(&self, work: &Work, alias: Alias) {
        let message = match self.republish(work, alias).await {
            Ok(Some(revision)) => {
                self.lock().counts.put_back += 1;
                tracing::info!(pgbouncer = %work.at, alias = %alias, %revision, "published again");
                format!("Published the {alias} certificate of revision {revision} again")
            }
            Ok(None) => return,
            Err(MaterialError::Cluster(error)) => {
                let error = &error as &dyn Error;
                tracing::debug!(pgbouncer = %work.at, error, "not published again yet");
                return;
            }
            Err(error) => {
                let error = chain(&error);
                let message = format!("The {alias} certificate cannot be put back: {error}");
                let reason = "PutBackFailed";
                self.event(&work.bouncer, EventKind::Warning, reason, &message)
                    .await;
                return;
            }
        };
        self.event(&work.bouncer, EventKind::Normal, "SecretPutBack", &message)
            .await;
    }

    /// Publishes the newest revision of an alias, with trust in the anchors of all.
    async fn republish(
        &self,
        work: &Work,
        alias: Alias,
    ) -> Result<Option<Revision>, MaterialError> {
        // Its labels go along to the Secret, and the copy has none.
        let live = self.cluster.get::<PgBouncer>(&work.at).await?;
        let Some(bouncer) = live.filter(|live| live.uid() == work.bouncer.uid()) else {
            return Ok(None);
        };
        let bouncer = &bouncer;
        let Some(wanted) = work
            .known
            .wanted
            .iter()
            .find(|wanted| wanted.alias == alias)
        else {
            return Ok(None);
        };
        let mut anchors = TrustBundle::default();
        let mut newest = None;
        for other in &work.known.wanted {
            let Some(found) = self.materials.newest(bouncer, other.alias).await? else {
                continue;
            };
            anchors = anchors.union(&found.anchors);
            if other.alias == alias {
                newest = Some(found.revision);
            }
        }
        let Some(revision) = newest else {
            return Ok(None);
        };
        let mut former = TrustBundle::default();
        for other in work
            .known
            .wanted
            .iter()
            .filter(|other| other.alias != alias)
        {
            let found = self
                .materials
                .published(bouncer, other.alias, &other.secret_name)
                .await;
            if let Ok(Some(found)) = found {
                former = former.union(&found.bundle);
            }
        }
        let trust = self.materials.trust(bouncer, &anchors, &former).await?;
        self.materials
            .publish(bouncer, wanted, revision, &trust)
            .await?;
        Ok(Some(revision))
    }
}

/// Whether the Secret of an alias is somebody else's to write.
pub(super) fn is_owned(known: &Known, alias: Alias) -> bool {
    let mut all = known.drift.iter();
    all.any(|drift| matches!(drift, Drift::Owned(owned, _) if *owned == alias))
}
