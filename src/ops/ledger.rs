//! Where plan and journal are kept: one ConfigMap per request, owned by it, written by
//! compare-and-swap. It holds names, numbers and messages, and no key material.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use time::OffsetDateTime;

use super::error::{LedgerError, OpsError};
use super::journal::{Entry, Event, Journal};
use super::plan::{PLAN_FORM, Plan, journal_name};
use crate::api::PgBouncerOpsRequest;
use crate::api::annotations::REQUEST_LABEL;
use crate::cluster::{Cluster, reference};
use crate::names::{NAME_LABEL_MAX, ObjectRef};

const PLAN: &str = "plan.json";
const JOURNAL: &str = "journal.json";

/// Plan and journal of a request that has begun.
pub(super) struct Ledger {
    map: ConfigMap,
    plan: Plan,
    journal: Journal,
}

impl Ledger {
    /// Reads what is kept of `request`; `None` if nothing is.
    pub(super) async fn load(
        cluster: &Cluster,
        request: &PgBouncerOpsRequest,
    ) -> Result<Option<Self>, OpsError> {
        let at = at(request);
        let Some(map) = cluster.get::<ConfigMap>(&at).await? else {
            return Ok(None);
        };
        if !map
            .owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == request.uid().as_ref())
        {
            // Left by an earlier request of the same name, and about to be collected.
            cluster.delete_read(&map).await?;
            return Ok(None);
        }
        read(map)
            .map(Some)
            .map_err(|source| OpsError::ReadLedger { at, source })
    }

    /// Begins to keep `plan`, with an empty journal.
    pub(super) async fn open(
        cluster: &Cluster,
        request: &PgBouncerOpsRequest,
        plan: Plan,
    ) -> Result<Self, OpsError> {
        let at = at(request);
        let label: String = request.name_any().chars().take(NAME_LABEL_MAX).collect();
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(at.name.clone()),
                namespace: Some(at.namespace.clone()),
                labels: Some(BTreeMap::from([(REQUEST_LABEL.to_owned(), label)])),
                owner_references: request.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([
                (PLAN.to_owned(), json(&plan, PLAN, &at)?),
                (JOURNAL.to_owned(), "[]".to_owned()),
            ])),
            ..ConfigMap::default()
        };
        Ok(Self {
            map: cluster.create(&map).await?,
            plan,
            journal: Journal::default(),
        })
    }

    /// The plan.
    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The journal, as it is kept.
    pub(super) const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Adds a line. When this returns, the line survives us.
    pub(super) async fn record(
        &mut self,
        cluster: &Cluster,
        step: usize,
        event: Event,
        at: OffsetDateTime,
    ) -> Result<Entry, OpsError> {
        let place = reference(&self.map);
        let entry = Entry { at, step, event };
        let mut journal = self.journal.clone();
        journal
            .record(entry.clone())
            .map_err(|source| OpsError::Journal {
                at: place.clone(),
                source,
            })?;
        let mut map = self.map.clone();
        let text = json(&journal, JOURNAL, &place)?;
        map.data
            .get_or_insert_default()
            .insert(JOURNAL.to_owned(), text);
        self.map = cluster.replace(&map).await?;
        self.journal = journal;
        Ok(entry)
    }
}

fn at(request: &PgBouncerOpsRequest) -> ObjectRef {
    ObjectRef::new(
        request.namespace().unwrap_or_default(),
        journal_name(&request.name_any()),
    )
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

fn read(map: ConfigMap) -> Result<Ledger, LedgerError> {
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
    Ok(Ledger { map, plan, journal })
}

#[derive(serde::Deserialize)]
struct Form {
    form: u32,
}
