//! Reads what a plan needs to know, and makes it. Nothing is written here: the same plan can be
//! shown to somebody who only asks what would happen.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::error::PlanError;
use super::ledger;
use super::plan::{Choice, Facts, Holding, Plan, PodFact, Reach, Subject, choose, server_tls};
use super::request::{Change, Pools, Settings, TlsState, parse, target_state, with_state};
use super::steps::{Set, is_ready, workload};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::certificates::wanted;
use crate::blueprint::defaults::{IssuerKind, complete};
use crate::blueprint::{
    Inputs, InputsError, MaterialFacts, Surroundings, WorkloadKind, beyond_reload, bounds, labels,
    loaded,
};
use crate::causes::chain;
use crate::cluster::{Cluster, ClusterError, Owner, reference};
use crate::material::{MaterialError, Materials};
use crate::names::{Alias, Fingerprint, Revision};
use crate::pgbouncer::ini::Section;
use crate::surroundings::{self, SurroundingsError};

/// Makes the plan of `request` for `database`.
pub async fn plan(
    cluster: &Cluster,
    materials: &Materials,
    kind: WorkloadKind,
    request: &PgBouncerOpsRequest,
    database: &PgBouncer,
) -> Result<Plan, PlanError> {
    let (change, settings) = read(request, database)?;
    let signer = signer(cluster, database, &change).await?;
    let name = database.name_any();
    let target = target_state(&name, &database.spec, &change, signer);
    // What is around it may be incomplete now, and complete when it is needed.
    let around = match surroundings::read(cluster, database, kind).await {
        Ok(around) => Some(around),
        Err(SurroundingsError::Cluster(error)) => return Err(error.into()),
        Err(_) => None,
    };
    if let (Some(around), false) = (&around, target == TlsState::of(&database.spec)) {
        check(database, &target, around)?;
    }
    let running = pods(cluster, kind, database).await?;
    let reach = reach(database, &target, around.as_ref(), &running);
    let choice = choose(settings.strategy, &change, &reach)?;
    let facts = Facts {
        namespace: database.namespace().unwrap_or_default(),
        request: subject(request),
        generation: request.metadata.generation.unwrap_or_default(),
        request_type: request.spec.type_.as_str().to_owned(),
        database: subject(database),
        former: TlsState::of(&database.spec),
        published: published(materials, database).await?,
        next: next(materials, database, &target).await?,
        target,
        replicas: replicas(cluster, kind, database).await?,
        pods: running.iter().map(fact).collect(),
        pools: pools(database, around.as_ref()),
        choice,
    };
    let mut plan = Plan::new(change, settings, facts);
    plan.backend = Some(database.spec.database.clone());
    check_writable(materials, database, &plan).await?;
    ledger::check_room(&plan)?;
    Ok(plan)
}

/// Whether what will be issued could be published where it belongs.
async fn check_writable(
    materials: &Materials,
    database: &PgBouncer,
    plan: &Plan,
) -> Result<(), PlanError> {
    for issuance in &plan.issue {
        let secret = plan
            .target
            .secret_name(&database.name_any(), issuance.alias);
        let Some(secret) = secret else {
            continue;
        };
        match materials.check_writable(database, &secret).await {
            Ok(()) => {}
            Err(MaterialError::Cluster(error)) => return Err(error.into()),
            Err(error) => return Err(PlanError::Unworkable(chain(&error))),
        }
    }
    Ok(())
}

/// A plan that changes nothing, on behalf of a request that is gone: for whoever puts back what it
/// has left.
pub async fn nothing(
    cluster: &Cluster,
    kind: WorkloadKind,
    request: Subject,
    database: &PgBouncer,
) -> Result<Plan, PlanError> {
    let state = TlsState::of(&database.spec);
    let facts = Facts {
        namespace: database.namespace().unwrap_or_default(),
        request,
        generation: 0,
        request_type: String::new(),
        database: subject(database),
        former: state.clone(),
        target: state,
        published: BTreeMap::new(),
        next: BTreeMap::new(),
        replicas: replicas(cluster, kind, database).await?,
        pods: pods(cluster, kind, database)
            .await?
            .iter()
            .map(fact)
            .collect(),
        pools: Pools::Sessions,
        choice: Choice::default(),
    };
    Ok(Plan::new(Change::NoOp, Settings::default(), facts))
}

/// Reads the request against the PgBouncer: the part of planning that needs no cluster.
pub fn read(
    request: &PgBouncerOpsRequest,
    database: &PgBouncer,
) -> Result<(Change, Settings), PlanError> {
    bounds::check(&database.spec).map_err(|error| PlanError::Unworkable(error.to_string()))?;
    if let Some(tls) = &request.spec.tls {
        bounds::check_tls(tls.issuer_ref.as_ref(), &tls.certificates)
            .map_err(|error| PlanError::Unworkable(error.to_string()))?;
    }
    let change = parse(&request.spec, &database.spec)?;
    let own = request.annotations();
    let settings = Settings::parse(&request.spec, own, database.annotations())?;
    Ok((change, settings))
}

pub(super) fn subject<K: ResourceExt>(object: &K) -> Subject {
    Subject {
        name: object.name_any(),
        uid: object.meta().uid.clone().unwrap_or_default(),
    }
}

/// What is known of the issuer after the change. One that is not there yet signs, presumably.
pub(super) async fn signer(
    cluster: &Cluster,
    database: &PgBouncer,
    change: &Change,
) -> Result<IssuerKind, PlanError> {
    let present = database
        .spec
        .tls
        .as_ref()
        .and_then(|tls| tls.issuer_ref.as_ref());
    let issuer = match change {
        Change::Add { issuer, .. } | Change::ChangeIssuer { issuer, .. } => Some(issuer),
        Change::UpdateCertificates { .. }
        | Change::Rotate { .. }
        | Change::Remove { .. }
        | Change::Mode(_)
        | Change::Restart
        | Change::NoOp => present,
    };
    let Some(issuer) = issuer else {
        return Ok(IssuerKind::Private);
    };
    let namespace = database.namespace().unwrap_or_default();
    match surroundings::issuer_kind(cluster, &namespace, issuer).await {
        Ok(kind) => Ok(kind),
        Err(SurroundingsError::Cluster(error)) => Err(error.into()),
        Err(_) => Ok(IssuerKind::Private),
    }
}

/// Whether the changed PgBouncer could be built at all. Its material does not exist yet; what
/// depends on its contents is proved later.
fn check(database: &PgBouncer, target: &TlsState, around: &Surroundings) -> Result<(), PlanError> {
    let changed = with(database, target);
    let unworkable = |error: &dyn std::error::Error| PlanError::Unworkable(chain(error));
    wanted(&changed, &around.load_balancer).map_err(|error| unworkable(&error))?;
    shape(database, target, around)
        .map(drop)
        .map_err(|error| unworkable(&error))
}

/// The PgBouncer with the fields of `state`, completed.
pub(super) fn with(database: &PgBouncer, state: &TlsState) -> PgBouncer {
    let mut changed = database.clone();
    let spec = with_state(&database.spec, state);
    changed.spec = complete(&spec, &database.name_any(), IssuerKind::Acme);
    changed
}

/// What the objects are made from in `state`, with nobody's material where there is none yet.
fn shape(
    database: &PgBouncer,
    state: &TlsState,
    around: &Surroundings,
) -> Result<Inputs, InputsError> {
    let mut around = around.clone();
    around.material.get_or_insert_with(|| MaterialFacts {
        server: Fingerprint::from_sha256([0; 32]),
        ca_bundle: String::new(),
    });
    Inputs::new(&with(database, state), &around)
}

async fn published(
    materials: &Materials,
    database: &PgBouncer,
) -> Result<BTreeMap<Alias, Holding>, PlanError> {
    let state = TlsState::of(&database.spec);
    let mut held = BTreeMap::new();
    for alias in state.aliases() {
        let Some(secret) = state.secret_name(&database.name_any(), alias) else {
            continue;
        };
        let found = match materials.published(database, alias, &secret).await {
            Ok(found) => found,
            Err(MaterialError::Cluster(error)) => return Err(error.into()),
            Err(error) => {
                // What cannot be read cannot be put back either; it is issued anew.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(alias = %alias, error, "published material is unreadable");
                None
            }
        };
        if let Some(found) = found
            && let Some(revision) = found.revision
            && is_kept(materials, database, (alias, revision)).await?
        {
            let trust = found.bundle.to_pem();
            held.insert(alias, Holding { revision, trust });
        }
    }
    Ok(held)
}

/// Whether a revision is there and ours. One that is not cannot be put back, and is issued anew.
async fn is_kept(
    materials: &Materials,
    database: &PgBouncer,
    (alias, revision): (Alias, Revision),
) -> Result<bool, PlanError> {
    match materials.revision(database, alias, revision).await {
        Ok(found) => Ok(found.is_some()),
        Err(MaterialError::Cluster(error)) => Err(error.into()),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(alias = %alias, error, "published revision is not ours");
            Ok(false)
        }
    }
}

async fn next(
    materials: &Materials,
    database: &PgBouncer,
    target: &TlsState,
) -> Result<BTreeMap<Alias, Revision>, PlanError> {
    let mut numbers = BTreeMap::new();
    for alias in target.aliases() {
        let number = match materials.next_revision(database, alias).await {
            Ok(number) => number,
            Err(MaterialError::Cluster(error)) => return Err(error.into()),
            Err(error) => return Err(PlanError::Unworkable(chain(&error))),
        };
        numbers.insert(alias, number);
    }
    Ok(numbers)
}

/// How many pods there should be: none before there is a workload, and none of a halted one.
pub(super) async fn replicas(
    cluster: &Cluster,
    kind: WorkloadKind,
    database: &PgBouncer,
) -> Result<u32, PlanError> {
    let set = set(cluster, kind, database).await?;
    if set.is_none_or(|set| set.replicas == 0) {
        return Ok(0);
    }
    Ok(u32::try_from(database.spec.replicas.unwrap_or(1)).unwrap_or(1))
}

/// The workload of the PgBouncer.
async fn set(
    cluster: &Cluster,
    kind: WorkloadKind,
    database: &PgBouncer,
) -> Result<Option<Set>, PlanError> {
    let (owner, at) = (Owner::of(database), reference(database));
    match workload(cluster, kind, (&owner, &at)).await {
        Err(ClusterError::Foreign(foreign)) => Err(PlanError::Unworkable(foreign.to_string())),
        found => Ok(found?),
    }
}

/// The pods that the workload has made.
async fn pods(
    cluster: &Cluster,
    kind: WorkloadKind,
    database: &PgBouncer,
) -> Result<Vec<Pod>, PlanError> {
    let Some(set) = set(cluster, kind, database).await? else {
        return Ok(Vec::new());
    };
    let selector = labels::to_selector_text(&labels::selector(&database.name_any()));
    let namespace = database.namespace().unwrap_or_default();
    let mut pods: Vec<Pod> = cluster.list(&namespace, &selector).await?;
    pods.retain(|pod| set.has_made(pod));
    Ok(pods)
}

fn fact(pod: &Pod) -> (String, PodFact) {
    let fact = PodFact {
        uid: pod.uid().unwrap_or_default(),
        ready: is_ready(pod),
        container: loaded::container_of(pod).map(str::to_owned),
    };
    (pod.name_any(), fact)
}

/// What of the change the running pods cannot take up from their files.
fn reach(
    database: &PgBouncer,
    target: &TlsState,
    around: Option<&Surroundings>,
    running: &[Pod],
) -> Result<Reach, String> {
    let around = around.ok_or("its surroundings are incomplete")?;
    let inputs = |state| shape(database, state, around).map_err(|error| chain(&error));
    let present = TlsState::of(&database.spec);
    let former = inputs(&present)?;
    let target = inputs(target)?;
    let beyond = beyond_reload(&former, &target, running).map_err(|error| chain(&error))?;
    let version = around.program.version;
    let said = target.ini().get(Section::Pgbouncer, "server_tls_sslmode");
    Ok(Reach {
        beyond,
        version,
        server_tls: server_tls(version, said),
        pools: pools(database, Some(around)),
    })
}

/// What the pooler pools, from the configuration it has where that can be rendered.
fn pools(database: &PgBouncer, around: Option<&Surroundings>) -> Pools {
    let rendered = around.and_then(|around| Inputs::new(database, around).ok());
    let rendered = rendered
        .as_ref()
        .and_then(|inputs| inputs.ini().get(Section::Pgbouncer, "pool_mode"));
    let spec = database
        .spec
        .connection_pool
        .as_ref()
        .and_then(|pool| pool.pool_mode.as_deref());
    match rendered.or(spec) {
        Some("transaction" | "statement") => Pools::Transactions,
        _ => Pools::Sessions,
    }
}
