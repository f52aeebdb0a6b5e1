//! Journals of the version before the daemon had a namespace of its own: carried over once.
//!
//! They are kept in `<request>-journal` beside their requests, where a tenant may have written what
//! he likes. So nothing of one is believed that is not proved: the plan must be the one that is made
//! from the request and the PgBouncer as they are now, the PgBouncer must still say what it said when
//! the plan was made, and what was published must still be. Whatever the journal says was proved on
//! the wire is proved again. A revision that was staged and not sealed is sealed if it holds the wanted
//! leaf of an issuer that is published. A journal that does not pass ends its request.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::context::Context;
use super::error::{LedgerError, OpsError, PlanError};
use super::journal::{Entry, Journal, State};
use super::ledger::{JOURNAL, Ledger, PLAN, check};
use super::plan::judge::{Asked, read as ask, with};
use super::plan::{Facts, PLAN_FORM, Plan, PodFact, Step, Subject, Way};
use super::planner::replicas;
use super::request::{Pools, Strategy, TlsState, target_state};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::certificates::wanted;
use crate::material::MaterialError;
use crate::names::ObjectRef;
use crate::pki::bundle::TrustBundle;
use crate::surroundings;

/// The form of plans that were kept beside their requests.
const FORMER_FORM: u64 = 1;

/// What a daemon does with journals of the former place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FormerJournals {
    /// They are not read, which needs no rights.
    #[default]
    Left,
    /// They are carried over, if they are proved.
    CarriedOver,
}

/// Carries the journal of `request` over from the former place; `None` if there is none that is
/// proved.
pub(super) async fn carry_over(
    context: &Context,
    request: &PgBouncerOpsRequest,
    database: &PgBouncer,
) -> Result<Option<Ledger>, OpsError> {
    let at = former_at(request);
    let Some(map) = context.cluster.get::<ConfigMap>(&at).await? else {
        return Ok(None);
    };
    // What is published now is sealed, so that the plan's revisions can be taken up.
    if let Err(MaterialError::Cluster(error)) = context.materials.take_stock(database).await {
        return Err(error.into());
    }
    let Some((plan, journal)) = proved(context, request, database, &map).await? else {
        tracing::warn!(ops.request = %at, "former journal is not proved");
        return Ok(None);
    };
    let ledger = Ledger::open(&context.cluster, &context.home, request, plan, journal).await?;
    context.cluster.delete_read(&map).await?;
    tracing::info!(ops.request = %at, "former journal carried over");
    Ok(Some(ledger))
}

async fn proved(
    context: &Context,
    request: &PgBouncerOpsRequest,
    database: &PgBouncer,
    map: &ConfigMap,
) -> Result<Option<(Plan, Journal)>, OpsError> {
    let owners = map.owner_references();
    let is_owned = owners
        .iter()
        .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == request.uid().as_ref());
    let read = read(map).filter(|_| is_owned);
    let Some((claimed, journal)) = read else {
        return Ok(None);
    };
    if check(&claimed, request).is_err() || database.uid().as_ref() != Some(&claimed.database.uid) {
        return Ok(None);
    }
    match made_again(context, request, database, &claimed).await {
        Ok(Some(plan)) => {
            seal_staged(context, database, &plan).await?;
            Ok(believed(&plan, &journal).map(|journal| (plan, journal)))
        }
        Err(PlanError::Cluster(error)) => Err(error.into()),
        Ok(None) | Err(PlanError::Refused(_) | PlanError::Unworkable(_)) => Ok(None),
    }
}

/// The plan that is made from the request and the PgBouncer, if it is the claimed one.
async fn made_again(
    context: &Context,
    request: &PgBouncerOpsRequest,
    database: &PgBouncer,
    claimed: &Plan,
) -> Result<Option<Plan>, PlanError> {
    context.check_references(database).await?;
    let Asked { change, settings } = ask(request, database)?;
    let former = TlsState::of(&database.spec);
    let fits = settings.strategy != Strategy::RollingRestart || claimed.choice.way == Way::Restart;
    if former != claimed.former || !fits || !is_published(context, database, claimed).await? {
        return Ok(None);
    }
    let planner = context.planner();
    let signer = planner.signer(database, &change).await?;
    let set = planner.workload(database).await?;
    let replicas = replicas(database, set.as_ref());
    let made = |pools| {
        let facts = Facts {
            namespace: database.namespace().unwrap_or_default(),
            request: Subject::of(request),
            generation: request.metadata.generation.unwrap_or_default(),
            request_type: request.spec.type_.as_str().to_owned(),
            database: Subject::of(database),
            former: former.clone(),
            target: target_state(&database.name_any(), &database.spec, &change, signer),
            published: claimed.published.clone(),
            next: numbers(claimed),
            replicas,
            pods: pods(claimed),
            pools,
            choice: claimed.choice.clone(),
        };
        Plan::new(change.clone(), settings, facts)
    };
    let made = [Pools::Transactions, Pools::Sessions].map(made);
    let mut same = made.into_iter().find(|plan| plan == claimed);
    if let Some(plan) = &mut same {
        plan.backend = Some(database.spec.database.clone());
    }
    Ok(same)
}

/// Seals the revisions that the plan names, before and after, as far as each can be proved. A step
/// that needs another one fails.
async fn seal_staged(context: &Context, database: &PgBouncer, plan: &Plan) -> Result<(), OpsError> {
    let service: Option<Service> = context.cluster.get(&plan.database_at()).await?;
    let outside = service.as_ref().map(surroundings::load_balancer);
    let outside = outside.unwrap_or_default();
    let issued = plan.issue.iter();
    let issued = issued.map(|issued| (issued.alias, issued.revision, &plan.target));
    let held = plan.published.iter();
    let held = held.map(|(alias, held)| (*alias, held.revision, &plan.former));
    for (alias, revision, state) in issued.chain(held) {
        let bouncer = with(database, state);
        let all = wanted(&bouncer, &outside).unwrap_or_default();
        let Some(wanted) = all.iter().find(|wanted| wanted.alias == alias) else {
            continue;
        };
        let sealed = context
            .materials
            .seal_proved(database, wanted, revision)
            .await;
        match sealed {
            Err(MaterialError::Cluster(error)) => return Err(error.into()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(alias = %alias, %revision, error, "staged revision is not proved");
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Whether everything that undoing would publish again, trust above all, is published now.
async fn is_published(
    context: &Context,
    database: &PgBouncer,
    claimed: &Plan,
) -> Result<bool, PlanError> {
    for (alias, held) in &claimed.published {
        let name = claimed.former.secret_name(&database.name_any(), *alias);
        let Some(name) = name else {
            return Ok(false);
        };
        let found = match context.materials.published(database, *alias, &name).await {
            Ok(found) => found,
            Err(MaterialError::Cluster(error)) => return Err(error.into()),
            Err(_) => None,
        };
        let trust = TrustBundle::from_pem(&held.trust);
        let (Some(found), Ok(trust)) = (found, trust) else {
            return Ok(false);
        };
        if found.bundle.union(&trust) != found.bundle {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where a journal was kept.
fn former_at(request: &PgBouncerOpsRequest) -> ObjectRef {
    let cut: String = request.name_any().chars().take(240).collect();
    ObjectRef::new(
        request.namespace().unwrap_or_default(),
        format!("{cut}-journal"),
    )
}

fn read(map: &ConfigMap) -> Option<(Plan, Journal)> {
    let data = map.data.as_ref()?;
    let mut plan = translated(serde_json::from_str(data.get(PLAN)?).ok()?)?;
    // Words for people, which nothing can prove.
    plan.choice.why = None;
    // Former versions kept none; that of the PgBouncer takes its place.
    plan.backend = None;
    let entries: Vec<Entry> = serde_json::from_str(data.get(JOURNAL)?).ok()?;
    let is_bounded = entries.iter().all(|entry| entry.step < plan.steps.len());
    let journal = Journal::from_entries(entries)
        .map_err(LedgerError::from)
        .ok()?;
    is_bounded.then_some((plan, journal))
}

/// The plan in the present form, if it names one namespace only.
fn translated(mut plan: Value) -> Option<Plan> {
    if plan["form"].as_u64() != Some(FORMER_FORM) {
        return None;
    }
    let namespace = plan["request"]["at"]["namespace"].as_str()?.to_owned();
    for part in ["request", "database"] {
        let Value::Object(at) = plan[part]["at"].take() else {
            return None;
        };
        if at.get("namespace")?.as_str()? != namespace {
            return None;
        }
        let uid = plan[part]["uid"].take();
        plan[part] = json!({ "name": at.get("name")?, "uid": uid });
    }
    plan["namespace"] = json!(namespace);
    plan["form"] = json!(PLAN_FORM);
    serde_json::from_value(plan).ok()
}

fn numbers(claimed: &Plan) -> BTreeMap<crate::names::Alias, crate::names::Revision> {
    let issued = claimed.issue.iter();
    issued
        .map(|issued| (issued.alias, issued.revision))
        .collect()
}

fn pods(claimed: &Plan) -> BTreeMap<String, PodFact> {
    let pods = claimed.pods.iter();
    pods.filter_map(|pod| {
        let fact = PodFact {
            uid: pod.uid.clone()?,
            ready: pod.ready,
            container: pod.container.clone(),
        };
        Some((pod.name.clone(), fact))
    })
    .collect()
}

/// What is believed of a journal: that steps were begun and undone, and not that pods were proved.
/// Once the specification was about to be written, what was there before cannot be proved.
fn believed(plan: &Plan, journal: &Journal) -> Option<Journal> {
    let commit = journal.of_step(plan, &Step::Commit);
    if commit.is_some_and(|commit| commit.state != State::Pending) {
        return None;
    }
    if journal.is_unwinding(plan) {
        return Some(journal.clone());
    }
    let proof = plan.steps.iter().position(|step| *step == Step::Prove);
    let entries = journal.entries().iter();
    let entries = entries.filter(|entry| proof.is_none_or(|proof| entry.step < proof));
    Journal::from_entries(entries.cloned().collect()).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::ops::journal::{Event, Note};
    use crate::ops::plan::tests::plan;

    fn rotation() -> Plan {
        let tls = json!({
            "sslMode": "require", "tls": {"issuerRef": {"kind": "Issuer", "name": "notary"}},
        });
        plan(&tls, &json!({"rotateCertificates": true}), 2)
    }

    /// The plan as the former version has kept it.
    fn former(plan: &Plan) -> Value {
        let mut former = serde_json::to_value(plan).unwrap();
        for part in ["request", "database"] {
            let named = former[part].take();
            former[part] = json!({
                "at": {"namespace": plan.namespace, "name": named["name"]}, "uid": named["uid"],
            });
        }
        former["form"] = json!(1);
        former.as_object_mut().unwrap().remove("namespace");
        former
    }

    #[test]
    fn a_former_plan_is_read_and_one_that_names_another_namespace_is_not() {
        let plan = rotation();
        assert_eq!(translated(former(&plan)), Some(plan.clone()));
        for part in ["request", "database"] {
            let mut forged = former(&plan);
            forged[part]["at"]["namespace"] = json!("team-b");
            assert_eq!(translated(forged), None);
        }
        let mut newer = former(&plan);
        newer["form"] = json!(3);
        assert_eq!(translated(newer), None);
        assert_eq!(translated(json!({"form": 1})), None);
    }

    #[test]
    fn what_was_proved_is_proved_again_and_nothing_is_carried_over_after_the_commit() {
        let plan = rotation();
        let step = |wanted: &Step| plan.steps.iter().position(|step| step == wanted).unwrap();
        let entry = |step, event| Entry {
            at: datetime!(2031-02-03 04:05 UTC),
            step,
            event,
        };
        let done = |step| {
            [
                entry(step, Event::Started),
                entry(step, Event::Succeeded(Note::default())),
            ]
        };
        let prove = step(&Step::Prove);
        let entries: Vec<Entry> = (0..=prove).flat_map(done).collect();
        let journal = Journal::from_entries(entries.clone()).unwrap();
        let kept = believed(&plan, &journal).unwrap();
        assert_eq!(kept.entries(), &entries[..2 * prove]);
        let begun = [entries, vec![entry(step(&Step::Commit), Event::Started)]].concat();
        let journal = Journal::from_entries(begun).unwrap();
        assert_eq!(believed(&plan, &journal), None);
    }
}
