//! Judges what was seen: the plan of a request, or why there is none. Everything has been read by then.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{Facts, Holding, Plan, PodFact, Reach, Subject, choose, server_tls};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::certificates::wanted;
use crate::blueprint::defaults::{IssuerKind, complete};
use crate::blueprint::{
    Inputs, InputsError, MaterialFacts, Surroundings, beyond_reload, bounds, loaded,
};
use crate::causes::chain;
use crate::names::{Alias, Fingerprint, Revision};
use crate::ops::error::PlanError;
use crate::ops::request::{Change, Pools, Settings, TlsState, parse, with_state};
use crate::pgbouncer::ini::Section;

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is to be different.
    pub change: Change,
    /// How it is to be carried out.
    pub settings: Settings,
}

/// What was seen of a PgBouncer for a plan.
pub struct Seen {
    /// What its specification is to say; the kind of its issuer decides about that.
    pub target: TlsState,
    /// What is around it. It may be incomplete now, and complete when it is needed.
    pub around: Option<Surroundings>,
    /// The pods that its workload has made.
    pub running: Vec<RunningPod>,
    /// How many pods there should be.
    pub replicas: u32,
    /// What each contract Secret holds.
    pub published: BTreeMap<Alias, Holding>,
    /// Number that the next issuance of an alias takes.
    pub next: BTreeMap<Alias, Revision>,
    /// Why material of an alias could not be published where it belongs.
    pub unwritable: BTreeMap<Alias, String>,
}

/// A pod that runs, and whether it is ready.
pub struct RunningPod {
    /// The pod.
    pub pod: Pod,
    /// Whether it is ready, and means to stay.
    pub is_ready: bool,
}

/// Reads a request against its PgBouncer.
pub fn read(request: &PgBouncerOpsRequest, database: &PgBouncer) -> Result<Asked, PlanError> {
    bounds::check(&database.spec).map_err(|error| PlanError::Unworkable(error.to_string()))?;
    if let Some(tls) = &request.spec.tls {
        bounds::check_tls(tls.issuer_ref.as_ref(), &tls.certificates)
            .map_err(|error| PlanError::Unworkable(error.to_string()))?;
    }
    let change = parse(&request.spec, &database.spec)?;
    let own = request.annotations();
    let settings = Settings::parse(&request.spec, own, database.annotations())?;
    Ok(Asked { change, settings })
}

/// Makes the plan of `request` for `database` from what was seen.
pub fn judge(
    request: &PgBouncerOpsRequest,
    database: &PgBouncer,
    asked: Asked,
    seen: Seen,
) -> Result<Plan, PlanError> {
    let Asked { change, settings } = asked;
    let (former, target) = (TlsState::of(&database.spec), seen.target);
    let around = seen.around.as_ref();
    if let Some(around) = around.filter(|_| target != former) {
        check(database, &target, around)?;
    }
    let reach = reach(database, &target, around, &seen.running);
    let choice = choose(settings.strategy, &change, &reach)?;
    let facts = Facts {
        namespace: database.namespace().unwrap_or_default(),
        request: Subject::of(request),
        generation: request.metadata.generation.unwrap_or_default(),
        request_type: request.spec.type_.as_str().to_owned(),
        database: Subject::of(database),
        former,
        published: seen.published,
        next: seen.next,
        target,
        replicas: seen.replicas,
        pods: seen.running.iter().map(fact).collect(),
        pools: pools(database, around),
        choice,
    };
    let mut plan = Plan::new(change, settings, facts);
    plan.backend = Some(database.spec.database.clone());
    let mut issued = plan.issue.iter();
    match issued.find_map(|issuance| seen.unwritable.get(&issuance.alias)) {
        Some(why) => Err(PlanError::Unworkable(why.clone())),
        None => Ok(plan),
    }
}

/// The PgBouncer with the fields of `state`, completed.
pub fn with(database: &PgBouncer, state: &TlsState) -> PgBouncer {
    let mut changed = database.clone();
    let spec = with_state(&database.spec, state);
    changed.spec = complete(&spec, &database.name_any(), IssuerKind::Acme);
    changed
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

/// What the objects are made from in `state`, with material that says nothing where there is none yet.
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

fn fact(running: &RunningPod) -> (String, PodFact) {
    let RunningPod { pod, is_ready } = running;
    let fact = PodFact {
        uid: pod.uid().unwrap_or_default(),
        ready: *is_ready,
        container: loaded::container_of(pod).map(str::to_owned),
    };
    (pod.name_any(), fact)
}

/// What of the change the running pods cannot take up from their files.
fn reach(
    database: &PgBouncer,
    target: &TlsState,
    around: Option<&Surroundings>,
    running: &[RunningPod],
) -> Result<Reach, String> {
    let around = around.ok_or("its surroundings are incomplete")?;
    let inputs = |state| shape(database, state, around).map_err(|error| chain(&error));
    let present = TlsState::of(&database.spec);
    let former = inputs(&present)?;
    let target = inputs(target)?;
    let running: Vec<Pod> = running.iter().map(|running| running.pod.clone()).collect();
    let beyond = beyond_reload(&former, &target, &running).map_err(|error| chain(&error))?;
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
