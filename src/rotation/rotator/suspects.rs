//! What pods serve: handshakes with those of which there is reason to believe that it is something
//! else than is stored.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use time::OffsetDateTime;

use super::{PART, Rotator};
use crate::api::common::{Condition, find_condition};
use crate::api::holder::{controller, is_controlled_by};
use crate::api::{PetSet, PgBouncer};
use crate::blueprint::{labels, names, port, serves_tls};
use crate::cluster::{ClusterError, Namespaced, reference};
use crate::instants::Shift;
use crate::names::{Alias, Fingerprint, ObjectRef};
use crate::pgbouncer::probe;
use crate::rotation::drift::Drift;
use crate::rotation::facts::Standing;
use crate::rotation::index::{Known, Served};

/// The provisioner's condition that names pods with an earlier configuration or material.
const RECONCILED: &str = "Reconciled";
const RESTART_PENDING: &str = "RestartPending";
/// How often the pods of a suspect are looked at.
const SUSPECT_PERIOD: time::Duration = time::Duration::seconds(15);
/// Suspects that are looked at together.
const SUSPECTS_AT_ONCE: usize = 16;
/// Bound of one handshake.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

impl Rotator {
    /// Shakes hands with the pods of suspects.
    pub(super) async fn look_at_suspects(&self, now: OffsetDateTime) {
        let due: Vec<_> = {
            let mut state = self.lock();
            let due = next_suspects(&state.suspects, now);
            for at in &due {
                state.suspects.insert(at.clone(), now.plus(SUSPECT_PERIOD));
            }
            let known = due
                .iter()
                .filter_map(|at| Some((at.clone(), state.index.bouncer(at)?)));
            known.collect()
        };
        let looks = due.iter().map(|(at, bouncer)| async move {
            let look = self.errors.guarded(PART, self.served(bouncer));
            (at, look.await)
        });
        for (at, seen) in join_all(looks).await {
            match seen {
                // It is looked at again in its turn.
                Err(_) => {}
                Ok(Ok(pods)) => self.seen(at, pods, now),
                Ok(Err(error)) => {
                    let error = &error as &dyn Error;
                    tracing::debug!(pgbouncer = %at, error, "pods not looked at");
                }
            }
        }
    }

    /// Somebody has seen the pods of a PgBouncer serve something else than is stored: they are looked
    /// at here at the next [`Rotator::settle`], because that look may be old by now.
    pub fn suspect(&self, at: &ObjectRef, now: OffsetDateTime) {
        let mut state = self.lock();
        let is_calm = state.fleet.facts(at).is_some_and(|facts| {
            // While a request runs, pods differ because it rolls them.
            facts.live.is_none() && facts.standing != Standing::Absent
        });
        if is_calm {
            state.suspects.entry(at.clone()).or_insert(now);
        }
    }

    /// Takes notice of what the pods of a PgBouncer serve.
    fn seen(
        &self,
        at: &ObjectRef,
        pods: BTreeMap<String, Option<Fingerprint>>,
        now: OffsetDateTime,
    ) {
        let mut state = self.lock();
        let Some(bouncer) = state.index.bouncer(at) else {
            return;
        };
        let secret = names::certificate_secret(&bouncer, Alias::Server);
        let stored = state.index.secret(&ObjectRef::new(&at.namespace, secret));
        let stored = stored.and_then(|stored| stored.leaf);
        let is_astray = stored.is_some() && pods.values().any(|served| *served != stored);
        let former = state
            .index
            .served(at)
            .and_then(|served| served.astray_since);
        let astray_since = is_astray.then(|| former.unwrap_or(now));
        state.index.set_served(at, Served { pods, astray_since });
        state.dirty.insert(at.clone());
    }

    /// What each ready pod serves. One that does not answer is left out: that is another trouble.
    async fn served(
        &self,
        bouncer: &PgBouncer,
    ) -> Result<BTreeMap<String, Option<Fingerprint>>, ClusterError> {
        let selector = labels::to_selector_text(&labels::selector(&bouncer.name_any()));
        let namespace = bouncer.namespace().unwrap_or_default();
        let pods: Vec<Pod> = self.cluster.list(&namespace, &selector).await?;
        let port = u16::try_from(port(bouncer)).unwrap_or(0);
        let makers = self.workloads(bouncer, &pods).await?;
        let is_made = |pod: &&Pod| makers.iter().any(|uid| is_controlled_by(*pod, uid));
        let looks = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter(is_made)
            .map(|pod| async move {
                let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
                let at = SocketAddr::new(ip, port);
                let served = probe::probe(at, None, PROBE_TIMEOUT).await.ok()?;
                Some((pod.name_any(), served.fingerprint()))
            });
        Ok(join_all(looks).await.into_iter().flatten().collect())
    }
}

impl Rotator {
    /// UIDs of the workloads that the PgBouncer controls, of those kinds that pods say have made them.
    /// What a pod says of itself proves nothing.
    async fn workloads(
        &self,
        bouncer: &PgBouncer,
        pods: &[Pod],
    ) -> Result<Vec<String>, ClusterError> {
        let says = |kind: &str| {
            let mut holders = pods.iter().filter_map(controller);
            holders.any(|holder| holder.kind == kind && holder.name == bouncer.name_any())
        };
        let mut uids = Vec::new();
        if says("StatefulSet") {
            uids.extend(self.workload::<StatefulSet>(bouncer).await?);
        }
        if says("PetSet") {
            uids.extend(self.workload::<PetSet>(bouncer).await?);
        }
        Ok(uids)
    }

    async fn workload<K: Namespaced>(
        &self,
        bouncer: &PgBouncer,
    ) -> Result<Option<String>, ClusterError> {
        let owner = bouncer.uid().unwrap_or_default();
        let found = match self.cluster.get::<K>(&reference(bouncer)).await {
            // A kind that the cluster does not have.
            Err(error) if error.is_not_found() => None,
            found => found?,
        };
        let ours = found.filter(|found| is_controlled_by(found, &owner));
        Ok(ours.and_then(|found| found.uid()))
    }
}

/// The suspects that are looked at now. Each namespace is served before any is served twice, and what is
/// due for the longest time goes first: names say nothing about whose turn it is.
fn next_suspects(
    suspects: &BTreeMap<ObjectRef, OffsetDateTime>,
    now: OffsetDateTime,
) -> Vec<ObjectRef> {
    let due = suspects.iter().filter(|(_, since)| **since <= now);
    let mut due: Vec<_> = due.map(|(at, since)| (*since, at)).collect();
    due.sort_unstable();
    let mut before: HashMap<&str, usize> = HashMap::new();
    let mut turns: Vec<_> = due
        .into_iter()
        .map(|(since, at)| {
            let turn = before.entry(&at.namespace).or_default();
            *turn += 1;
            (*turn, since, at)
        })
        .collect();
    turns.sort_unstable();
    let first = turns.into_iter().take(SUSPECTS_AT_ONCE);
    first.map(|(_, _, at)| at.clone()).collect()
}

/// Whether there is reason to believe that pods serve something else than is stored.
pub(super) fn is_suspect(bouncer: &PgBouncer, known: &Known) -> bool {
    let conditions = bouncer
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice());
    let pending = find_condition(conditions.unwrap_or_default(), RECONCILED);
    let is_stale = pending.is_some_and(|open: &Condition| open.reason == RESTART_PENDING);
    let is_foreign = known.drift.iter().any(|drift| {
        matches!(
            drift,
            Drift::Adopted(Alias::Server) | Drift::Owned(Alias::Server, _) | Drift::Astray { .. }
        )
    });
    let can_tell = serves_tls(bouncer) && known.facts.live.is_none();
    can_tell && known.facts.standing != Standing::Absent && (is_stale || is_foreign)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::instants::Since;

    const NOW: OffsetDateTime = datetime!(2031-06-04 12:00 UTC);

    #[test]
    fn hundreds_of_suspects_of_one_namespace_keep_no_other_waiting() {
        let at = |namespace: &str, n: usize| ObjectRef::new(namespace, format!("pooler-{n:03}"));
        let mut suspects: BTreeMap<_, _> = (0..300)
            .map(|n| (at("a-greedy", n), NOW - time::Duration::HOUR))
            .collect();
        for namespace in ["quiet", "shop", "zoo"] {
            suspects.insert(at(namespace, 0), NOW);
        }
        let first = next_suspects(&suspects, NOW);
        assert_eq!(first.len(), SUSPECTS_AT_ONCE);
        for namespace in ["quiet", "shop", "zoo"] {
            assert!(first.contains(&at(namespace, 0)), "{namespace}");
        }
        // What is not due is not looked at.
        assert!(next_suspects(&suspects, NOW - time::Duration::DAY).is_empty());
    }

    #[test]
    fn everybody_is_looked_at_in_turn_however_many_there_are() {
        let mut suspects: BTreeMap<_, _> = (0..40)
            .flat_map(|n| [("a", n), ("b", n), ("c", n)])
            .chain((0..40).map(|n| (["d", "e"][n % 2], n)))
            .map(|(namespace, n)| (ObjectRef::new(namespace, format!("p{n}")), NOW))
            .collect();
        let (all, mut seen) = (suspects.len(), std::collections::BTreeSet::new());
        let mut now = NOW;
        // Passes come faster than suspects are due again.
        while seen.len() < all {
            for at in next_suspects(&suspects, now) {
                suspects.insert(at.clone(), now.plus(SUSPECT_PERIOD));
                seen.insert(at);
            }
            now += time::Duration::SECOND;
            assert!(
                now.since(NOW) < time::Duration::MINUTE,
                "{} of {all}",
                seen.len()
            );
        }
    }
}
