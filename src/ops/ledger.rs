//! Where plan and journal are kept: one ConfigMap per request, in the daemon's own namespace, written
//! by compare-and-swap. It holds names, numbers and messages, and no key material.
//!
//! The namespace of a request belongs to its tenant, so nothing that the daemon believes is kept
//! there. The ConfigMap is named by the UID of its request. It has no owner reference, because an
//! owner in another namespace counts as gone. The daemon deletes it when the request is gone:
//! [`forget`] after the deletion of one request, [`sweep`] for those that went while no daemon ran.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::error::{LedgerError, OpsError};
use super::journal::Journal;
use super::plan::{PLAN_FORM, Plan};
use crate::api::PgBouncerOpsRequest;
use crate::api::annotations::{REQUEST_LABEL, REQUEST_NAMESPACE_LABEL};
use crate::cluster::{Cluster, ClusterError, reference};
use crate::names::{Area, ObjectRef, label_value};

pub(super) const PLAN: &str = "plan.json";
pub(super) const JOURNAL: &str = "journal.json";
/// What the name of a journal begins with; the UID of its request follows.
const PREFIX: &str = "journal-";

/// Plan and journal of a request that has begun.
pub(super) struct Ledger {
    /// Where they are kept.
    pub(super) kept: Kept,
    /// The plan.
    pub(super) plan: Plan,
    /// The journal, as it is kept.
    pub(super) journal: Journal,
}

/// The ConfigMap of plan and journal, as it was read or written last.
pub(super) struct Kept(ConfigMap);

impl Ledger {
    /// Reads what is kept of `request` in the namespace `home`; `None` if nothing is. Fails if it was
    /// made for anything else than the request as it is now.
    pub(super) async fn load(
        cluster: &Cluster,
        home: &str,
        request: &PgBouncerOpsRequest,
    ) -> Result<Option<Self>, OpsError> {
        let at = at(home, request);
        let Some(map) = cluster.get::<ConfigMap>(&at).await? else {
            return Ok(None);
        };
        read(map)
            .and_then(|ledger| check(&ledger.plan, request).map(|()| Some(ledger)))
            .map_err(|source| OpsError::ReadLedger { at, source })
    }

    /// Begins to keep `plan`, with that journal.
    pub(super) async fn open(
        cluster: &Cluster,
        home: &str,
        request: &PgBouncerOpsRequest,
        plan: Plan,
        journal: Journal,
    ) -> Result<Self, OpsError> {
        let at = at(home, request);
        let name = request.name_any();
        let namespace = request.namespace().unwrap_or_default();
        let labels = [
            (REQUEST_LABEL.to_owned(), label_value(&name)),
            (REQUEST_NAMESPACE_LABEL.to_owned(), label_value(&namespace)),
        ];
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(at.name.clone()),
                namespace: Some(at.namespace.clone()),
                labels: Some(BTreeMap::from(labels)),
                annotations: Some(BTreeMap::from([(REQUEST_LABEL.to_owned(), name)])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([
                (PLAN.to_owned(), json(&plan, PLAN, &at)?),
                (JOURNAL.to_owned(), json(&journal, JOURNAL, &at)?),
            ])),
            ..ConfigMap::default()
        };
        Ok(Self {
            kept: Kept(cluster.create(&map).await?),
            plan,
            journal,
        })
    }
}

impl Kept {
    /// Writes the journal, unless another daemon has written since. When this returns, the journal
    /// survives us.
    pub(super) async fn replace(
        &mut self,
        cluster: &Cluster,
        journal: &Journal,
    ) -> Result<(), OpsError> {
        let mut map = self.0.clone();
        let text = json(journal, JOURNAL, &reference(&self.0))?;
        map.data
            .get_or_insert_default()
            .insert(JOURNAL.to_owned(), text);
        self.0 = cluster.replace(&map).await?;
        Ok(())
    }
}

/// Deletes the journal of the request that had that UID: it is gone. Another request of its name has a
/// journal of its own.
pub(super) async fn forget(cluster: &Cluster, home: &str, uid: &str) -> Result<(), ClusterError> {
    let at = ObjectRef::new(home, journal_name(uid));
    match cluster.get::<ConfigMap>(&at).await? {
        Some(map) => cluster.delete_read(&map).await,
        None => Ok(()),
    }
}

/// Deletes the journals of requests that are gone from `namespaces`, or from all if there are none,
/// and that are not among those `running`; returns their number.
pub(super) async fn sweep(
    cluster: &Cluster,
    home: &str,
    namespaces: &[String],
    running: impl Fn() -> HashSet<String>,
) -> Result<usize, ClusterError> {
    // Journals first: each of these is of a request that the later list has, unless it is gone.
    let journals = cluster
        .list_metadata::<ConfigMap>(&Area::Namespace(home.to_owned()), REQUEST_LABEL)
        .await?;
    let areas = Area::covering(namespaces);
    let mut live = HashSet::new();
    if !journals.is_empty() {
        for area in &areas {
            let requests = cluster.list_metadata::<PgBouncerOpsRequest>(area, "");
            live.extend(requests.await?.into_iter().map(|request| request.uid));
        }
    }
    let mut deleted = 0;
    for journal in journals {
        let labels = &journal.labels;
        let is_covered = labels
            .get(REQUEST_NAMESPACE_LABEL)
            .is_some_and(|namespace| areas.iter().any(|area| area.covers(namespace)));
        let of = journal.at.name.strip_prefix(PREFIX);
        if is_covered && of.is_some_and(|uid| !live.contains(uid) && !running().contains(uid)) {
            cluster
                .delete_uid::<ConfigMap>(&journal.at, &journal.uid)
                .await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

fn at(home: &str, request: &PgBouncerOpsRequest) -> ObjectRef {
    ObjectRef::new(home, journal_name(&request.uid().unwrap_or_default()))
}

/// Name of the ConfigMap that holds plan and journal of the request with that UID.
pub fn journal_name(uid: &str) -> String {
    format!("{PREFIX}{uid}")
}

/// Whether `plan` was made for `request`, and for the PgBouncer that it names now.
pub(super) fn check(plan: &Plan, request: &PgBouncerOpsRequest) -> Result<(), LedgerError> {
    let namespace = request.namespace().unwrap_or_default();
    let uid = request.uid().unwrap_or_default();
    let pairs = [
        ("namespace", &plan.namespace, &namespace),
        ("request", &plan.request.name, &request.name_any()),
        ("request UID", &plan.request.uid, &uid),
        (
            "spec.databaseRef.name",
            &plan.database.name,
            &request.spec.database_ref.name,
        ),
    ];
    for (what, kept, live) in pairs {
        if kept != live {
            return Err(LedgerError::Mismatch {
                what,
                kept: kept.clone(),
                live: live.clone(),
            });
        }
    }
    // The specification of a request cannot be changed; a deletion counts as a generation.
    let generation = request.metadata.generation.unwrap_or_default();
    if generation != plan.generation && request.metadata.deletion_timestamp.is_none() {
        return Err(LedgerError::Mismatch {
            what: "generation",
            kept: plan.generation.to_string(),
            live: generation.to_string(),
        });
    }
    Ok(())
}

fn json<T: serde::Serialize>(
    value: &T,
    key: &'static str,
    at: &ObjectRef,
) -> Result<String, OpsError> {
    serde_json::to_string(value).map_err(|source| OpsError::ReadLedger {
        at: at.clone(),
        source: LedgerError::Json { key, source },
    })
}

pub(super) fn read(map: ConfigMap) -> Result<Ledger, LedgerError> {
    let data = map.data.clone().unwrap_or_default();
    let text = |key| data.get(key).ok_or(LedgerError::NoKey(key));
    let plan_text = text(PLAN)?;
    let unreadable = |key| move |source| LedgerError::Json { key, source };
    // The form is read first: a plan of another form need not fit our type at all.
    let form: Form = serde_json::from_str(plan_text).map_err(unreadable(PLAN))?;
    match form.form.cmp(&PLAN_FORM) {
        Ordering::Equal => {}
        Ordering::Less => return Err(LedgerError::Older(form.form)),
        Ordering::Greater => return Err(LedgerError::Newer(form.form)),
    }
    let plan: Plan = serde_json::from_str(plan_text).map_err(unreadable(PLAN))?;
    let entries = serde_json::from_str(text(JOURNAL)?).map_err(unreadable(JOURNAL))?;
    let journal = Journal::from_entries(entries)?;
    let entries = journal.entries().iter();
    if let Some(step) = entries
        .map(|entry| entry.step)
        .find(|step| *step >= plan.steps.len())
    {
        return Err(LedgerError::NoStep(step));
    }
    let kept = Kept(map);
    Ok(Ledger {
        kept,
        plan,
        journal,
    })
}

#[derive(serde::Deserialize)]
struct Form {
    form: u32,
}
