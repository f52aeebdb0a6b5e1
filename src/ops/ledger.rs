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

use super::error::{LedgerError, OpsError, PlanError};
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

/// Most bytes of all values of a ConfigMap: Kubernetes' own bound, less a bit for keys and labels.
const ROOM: usize = 1_024 * 1_024 - 4_096;
/// Bytes that the lines of one step take: four, one of which tells what became of clients.
const LINES_OF_A_STEP: usize = 512;
/// Bytes for failures: what does not fit loses its causes, but for the last.
const FAILURES: usize = 64 * 1_024;

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
    /// Writes the journal, unless another daemon has written since. One without room beside its plan
    /// forgets causes. When this returns, the journal survives us.
    pub(super) async fn replace(
        &mut self,
        cluster: &Cluster,
        journal: &mut Journal,
    ) -> Result<(), OpsError> {
        let place = reference(&self.0);
        let mut map = self.0.clone();
        let data = map.data.get_or_insert_default();
        let mut text = json(journal, JOURNAL, &place)?;
        if data.get(PLAN).map_or(0, String::len) + text.len() > ROOM {
            journal.forget_causes();
            text = json(journal, JOURNAL, &place)?;
        }
        data.insert(JOURNAL.to_owned(), text);
        self.0 = cluster.replace(&map).await?;
        Ok(())
    }
}

/// Drops from the journal of a request that has ended what it needed only while it ran: the trust that
/// its PgBouncer had before. What cannot be read, or is gone, is left as it is.
pub(super) async fn finish(
    cluster: &Cluster,
    home: &str,
    request: &PgBouncerOpsRequest,
) -> Result<(), ClusterError> {
    let Some(map) = cluster.get::<ConfigMap>(&at(home, request)).await? else {
        return Ok(());
    };
    let Some(map) = read(map).ok().and_then(finished) else {
        return Ok(());
    };
    match cluster.replace(&map).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        replaced => replaced.map(drop),
    }
}

/// The ConfigMap of a ledger without what a request that has ended does not need; `None` if it has
/// none of that.
fn finished(ledger: Ledger) -> Option<ConfigMap> {
    let Ledger {
        kept: Kept(mut map),
        mut plan,
        ..
    } = ledger;
    if plan.published.values().all(|held| held.trust.is_empty()) {
        return None;
    }
    for held in plan.published.values_mut() {
        held.trust = String::new();
    }
    let text = serde_json::to_string(&plan).ok()?;
    let data = map.data.get_or_insert_default();
    data.insert(PLAN.to_owned(), text);
    Some(map)
}

/// Refuses a plan that does not fit into a ConfigMap together with the journal that it will have. To be
/// asked before anything is touched.
pub(super) fn check_room(plan: &Plan) -> Result<(), PlanError> {
    // A plan that cannot be written is an error where it is.
    let size = serde_json::to_string(plan).map_or(0, |text| text.len());
    let lines = plan.steps.len().saturating_mul(LINES_OF_A_STEP);
    let room = ROOM.saturating_sub(lines).saturating_sub(FAILURES);
    if size <= room {
        return Ok(());
    }
    let mut held: Vec<_> = plan.published.iter().collect();
    held.sort_by_key(|(_, held)| std::cmp::Reverse(held.trust.len()));
    let held = held.iter().filter_map(|(alias, held)| {
        let secret = plan.former.secret_name(&plan.database.name, **alias)?;
        Some(format!("{secret} ({} bytes)", held.trust.len()))
    });
    let held: Vec<_> = held.collect();
    Err(PlanError::Unworkable(format!(
        "the plan of the request is {size} bytes long, and {room} bytes are left for it beside its \
         journal: remove certificates that no client needs from ca.crt of {}",
        held.join(", ")
    )))
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
    let (mut areas, mut live) = (Vec::new(), HashSet::new());
    if !journals.is_empty() {
        for area in Area::covering(namespaces) {
            match cluster
                .list_metadata::<PgBouncerOpsRequest>(&area, "")
                .await
            {
                Ok(requests) => live.extend(requests.into_iter().map(|request| request.uid)),
                // Nothing is known there, and the others are swept all the same.
                Err(error) if namespaces.len() > 1 => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(?area, error, "journals of requests there are left");
                    continue;
                }
                Err(error) => return Err(error),
            }
            areas.push(area);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::ops::journal::{CAUSE_MAX, Closed, Entry, Event, Failure, FailureKind, Note};
    use crate::ops::plan::tests::{plan, present};

    fn rotation(replicas: u32, trust: usize) -> Plan {
        let mut plan = plan(&present(), &json!({ "rotateCertificates": true }), replicas);
        for held in plan.published.values_mut() {
            held.trust = "x".repeat(trust);
        }
        plan
    }

    fn entry(step: usize, event: Event) -> Entry {
        let at = datetime!(2031-06-04 12:00:00.123456789 UTC);
        Entry { at, step, event }
    }

    fn failed(cause: String) -> Event {
        let kind = FailureKind::Transient;
        Event::Failed(Failure { kind, cause }).shortened()
    }

    /// The longest journal of a plan: all is done, and all is undone.
    fn longest(plan: &Plan) -> Journal {
        let mut journal = Journal::default();
        let mut write = |step, event| journal.record(entry(step, event)).unwrap();
        let closed = BTreeMap::from([(
            "x".repeat(63),
            Closed {
                between_transactions: u32::MAX,
                in_transactions: u32::MAX,
                asked_to_leave: u32::MAX,
                drained_ms: u32::MAX,
            },
        )]);
        let restarted = None;
        for step in 0..plan.steps.len() {
            let closed = closed.clone();
            write(step, Event::Started);
            write(step, Event::Succeeded(Note { closed, restarted }));
        }
        for step in 0..plan.steps.len() {
            write(step, Event::UndoStarted);
            write(step, Event::Undone);
        }
        journal
    }

    #[test]
    fn what_passes_has_room_for_its_whole_journal() {
        for (replicas, trust) in [(1, 300_000), (1_000, 60_000)] {
            let plan = rotation(replicas, trust);
            check_room(&plan).unwrap();
            let journal = serde_json::to_string(&longest(&plan)).unwrap().len();
            let plan = serde_json::to_string(&plan).unwrap().len();
            assert!(plan + journal <= ROOM, "{plan} and {journal}");
        }
    }

    #[test]
    fn a_plan_without_room_is_refused_with_what_takes_it() {
        let refused = check_room(&rotation(3, 400_000)).unwrap_err().to_string();
        for part in [
            "400000 bytes",
            "billing-server-cert",
            "ca.crt",
            "remove certificates",
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        assert!(refused.len() < 600, "{refused}");
    }

    #[test]
    fn failures_without_end_leave_room_and_the_last_of_them_is_kept() {
        let mut journal = Journal::default();
        for n in 0..5_000 {
            journal.record(entry(0, Event::Started)).unwrap();
            let cause = format!("{n} {}", "y".repeat(100_000));
            journal.record(entry(0, failed(cause))).unwrap();
        }
        let long = serde_json::to_string(&journal).unwrap().len();
        assert!(long > ROOM && long < 5_000 * (CAUSE_MAX + 300), "{long}");
        journal.forget_causes();
        let short = serde_json::to_string(&journal).unwrap().len();
        assert!(short < ROOM, "{short}");
        assert!(
            journal
                .last_failure()
                .unwrap()
                .1
                .cause
                .starts_with("4999 y")
        );
        assert_eq!(journal.of(0).failures, 5_000);
    }

    #[test]
    fn a_finished_journal_holds_no_trust_and_can_still_be_read() {
        let plan = rotation(2, 1_000);
        let data = BTreeMap::from([
            (PLAN.to_owned(), serde_json::to_string(&plan).unwrap()),
            (
                JOURNAL.to_owned(),
                serde_json::to_string(&longest(&plan)).unwrap(),
            ),
        ]);
        let map = ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        };
        let map = finished(read(map).unwrap()).unwrap();
        assert!(!map.data.as_ref().unwrap()[PLAN].contains("xxx"));
        let again = read(map).unwrap();
        assert_eq!(again.plan.steps, plan.steps);
        assert_eq!(again.journal, longest(&plan));
        assert!(finished(again).is_none(), "once");
    }
}
