//! The plan of a request: a list of steps with everything filled in, so that carrying it out leaves
//! no choice.
//!
//! The plan is made once, when the request begins, and stored beside the journal. It holds names,
//! numbers and specs, and no key material. What was there before is in it too, because undoing
//! needs it.
//!
//! Order of the pods: those that do not serve, then the highest ordinal first, as a StatefulSet
//! would. The first pod is the canary: it
//! is proved, including a login through it, before the second is touched. The others follow in
//! batches of as many as may be out of service (`bouncert.dev/max-unavailable`). A single replica
//! first gets a surge pod, which is then the canary; where a reload suffices it needs none.
//!
//! Order of the steps: trust is published before anything that needs it, and new client material
//! ([`Step::HandOut`]) only when every pod trusts its issuer. Where nobody holds client material yet
//! it goes out first, because the pods are about to ask for it.

pub mod judge;
mod step;
mod strategy;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde::{Deserialize, Serialize};

pub use self::step::Step;
pub use self::strategy::{Choice, Reach, Way, choose, server_tls};
use super::request::{Change, Drain, Pools, Settings, TlsState};
use crate::api::IssuerRef;
use crate::api::pgbouncer::Database;
use crate::blueprint::bounds::REPLICAS_MAX;
use crate::names::{Alias, ObjectRef, Revision};

/// Form of the stored plan. A daemon refuses a plan of another form instead of misreading it.
pub const PLAN_FORM: u32 = 2;

/// An object of the plan's namespace, and the very one of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name. The namespace is the plan's, so a plan cannot name an object of another one.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl Subject {
    /// An object that was read.
    pub fn of<K: ResourceExt>(object: &K) -> Self {
        Self {
            name: object.name_any(),
            uid: object.meta().uid.clone().unwrap_or_default(),
        }
    }
}

/// A revision that is to be issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuance {
    /// Whose.
    pub alias: Alias,
    /// Its number.
    pub revision: Revision,
    /// Who signs.
    pub issuer: IssuerRef,
}

/// What a contract Secret holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Which revision.
    pub revision: Revision,
    /// The bundle beside it, PEM.
    pub trust: String,
}

/// A pod that is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPod {
    /// Its name.
    pub name: String,
    /// UID when the plan was made; `None` if there was no such pod.
    pub uid: Option<String>,
    /// Whether it was ready then. One that was not is not waited for when the change is undone.
    pub ready: bool,
    /// Its pooler's container then: another one has loaded what was mounted when it started.
    #[serde(default)]
    pub container: Option<String>,
}

/// What is known of a pod when the plan is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFact {
    /// Its UID.
    pub uid: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Its pooler's container.
    pub container: Option<String>,
}

/// What is known when the plan is made.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Namespace of the request, the PgBouncer, and everything else that the plan names.
    pub namespace: String,
    /// The request.
    pub request: Subject,
    /// Its generation.
    pub generation: i64,
    /// Its type, as written.
    pub request_type: String,
    /// The PgBouncer.
    pub database: Subject,
    /// What its spec says.
    pub former: TlsState,
    /// What its spec is to say.
    pub target: TlsState,
    /// What each contract Secret holds.
    pub published: BTreeMap<Alias, Holding>,
    /// Number that the next issuance of an alias takes; the first where absent.
    pub next: BTreeMap<Alias, Revision>,
    /// Number of replicas.
    pub replicas: u32,
    /// The pods that are there, by name.
    pub pods: BTreeMap<String, PodFact>,
    /// What the pooler pools.
    pub pools: Pools,
    /// How the change is to reach the pods.
    pub choice: Choice,
}

/// Everything that carrying out a request needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_FORM`].
    pub form: u32,
    /// The only namespace that the plan can name objects in.
    pub namespace: String,
    /// The request.
    pub request: Subject,
    /// Its generation.
    pub generation: i64,
    /// Its type, as written.
    pub request_type: String,
    /// The PgBouncer.
    pub database: Subject,
    /// What is to be different.
    pub change: Change,
    /// What the spec said before.
    pub former: TlsState,
    /// What it will say.
    pub target: TlsState,
    /// What will be issued.
    pub issue: Vec<Issuance>,
    /// What each contract Secret held before.
    pub published: BTreeMap<Alias, Holding>,
    /// Number of replicas.
    pub replicas: u32,
    /// The pods, in the order in which they are replaced.
    pub pods: Vec<PlannedPod>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Bounds and strategy.
    pub settings: Settings,
    /// How long the parts of a drain may take.
    pub drain: Drain,
    /// How the change reaches the pods, and why so.
    #[serde(default)]
    pub choice: Choice,
    /// The database of the PgBouncer when the request began. Its namespace has allowed the reference to
    /// that one; a reference that is written later is not followed before the request has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Database>,
}

impl Plan {
    /// Plans `change`.
    pub fn new(change: Change, settings: Settings, facts: Facts) -> Self {
        let issue = issuances(&change, &facts);
        let pods = ordered(&facts);
        let mut plan = Self {
            form: PLAN_FORM,
            namespace: facts.namespace,
            request: facts.request,
            generation: facts.generation,
            request_type: facts.request_type,
            database: facts.database,
            change,
            former: facts.former,
            target: facts.target,
            issue,
            published: facts.published,
            replicas: facts.replicas,
            pods,
            steps: Vec::new(),
            settings,
            drain: settings.drain(facts.pools),
            choice: facts.choice,
            backend: None,
        };
        plan.steps = steps(&plan);
        plan
    }

    /// Names an object of the plan's namespace.
    pub fn beside(&self, name: impl Into<String>) -> ObjectRef {
        ObjectRef::new(&self.namespace, name)
    }

    /// Namespace and name of the request.
    pub fn request_at(&self) -> ObjectRef {
        self.beside(&self.request.name)
    }

    /// Namespace and name of the PgBouncer.
    pub fn database_at(&self) -> ObjectRef {
        self.beside(&self.database.name)
    }

    /// The revision of `alias` that is to be published in the end.
    pub fn target_revision(&self, alias: Alias) -> Option<Revision> {
        let issued = self.issue.iter().find(|issuance| issuance.alias == alias);
        issued
            .map(|issuance| issuance.revision)
            .or_else(|| self.published.get(&alias).map(|held| held.revision))
    }

    /// Name of the surge pod: the one after the last.
    pub fn surge_pod(&self) -> String {
        pod_name(&self.database.name, self.replicas)
    }

    /// The planned pod of that name.
    pub fn pod(&self, name: &str) -> Option<&PlannedPod> {
        self.pods.iter().find(|pod| pod.name == name)
    }

    /// The pods that are out of service at the same time as that one: itself, and those that are
    /// replaced along with it.
    pub fn together(&self, pod: &str) -> Vec<String> {
        let mut batches = self.steps.iter().map(Step::rolls);
        let found = batches.find(|batch| batch.iter().any(|name| name == pod));
        found.unwrap_or_default()
    }

    /// Whether the pod is the first whose replacement is proved with a login.
    pub fn is_canary(&self, pod: &str) -> bool {
        if self.steps.contains(&Step::Surge) {
            return pod == self.surge_pod();
        }
        self.pods.first().is_some_and(|first| first.name == pod)
    }
}

/// Name of the pod with that ordinal.
pub fn pod_name(database: &str, ordinal: u32) -> String {
    format!("{database}-{ordinal}")
}

/// Pods that do not serve anyway come first: replacing them costs nobody anything, and until they
/// serve no other may go.
fn ordered(facts: &Facts) -> Vec<PlannedPod> {
    let name = &facts.database.name;
    // The planner refuses more; this bounds a plan wherever its facts come from.
    let most = u32::try_from(REPLICAS_MAX).unwrap_or_default();
    let mut pods: Vec<PlannedPod> = (0..facts.replicas.min(most))
        .rev()
        .map(|ordinal| pod_name(name, ordinal))
        .map(|name| PlannedPod {
            uid: facts.pods.get(&name).map(|pod| pod.uid.clone()),
            ready: facts.pods.get(&name).is_some_and(|pod| pod.ready),
            container: facts.pods.get(&name).and_then(|pod| pod.container.clone()),
            name,
        })
        .collect();
    pods.sort_by_key(|pod| pod.ready);
    pods
}

fn issuances(change: &Change, facts: &Facts) -> Vec<Issuance> {
    if matches!(change, Change::Restart | Change::NoOp) {
        return Vec::new();
    }
    let obsolete = change.aliases_to_issue();
    let Some(tls) = facts.target.tls.as_ref() else {
        return Vec::new();
    };
    facts
        .target
        .aliases()
        .into_iter()
        // What should be there and is not is issued along with the change.
        .filter(|alias| obsolete.contains(alias) || !facts.published.contains_key(alias))
        .filter_map(|alias| {
            let own = tls.certificate(alias.as_str())?.issuer_ref.as_ref();
            let next = facts.next.get(&alias).copied();
            Some(Issuance {
                alias,
                revision: next.unwrap_or(Revision::FIRST),
                issuer: own.or(tls.issuer_ref.as_ref())?.clone(),
            })
        })
        .collect()
}

/// The canary alone, then as many at the same time as may be out of service.
fn rolls(plan: &Plan) -> impl Iterator<Item = Step> {
    let together = usize::try_from(plan.settings.max_unavailable.of(plan.replicas)).unwrap_or(1);
    let (canary, others) = plan.pods.split_at(plan.pods.len().min(1));
    let batches = canary.chunks(1).chain(others.chunks(together));
    batches.map(|batch| match batch {
        [pod] => Step::Roll(pod.name.clone()),
        pods => Step::RollTogether(pods.iter().map(|pod| pod.name.clone()).collect()),
    })
}

fn steps(plan: &Plan) -> Vec<Step> {
    if plan.change == Change::NoOp {
        return Vec::new();
    }
    let restart = plan.change == Change::Restart;
    let issues = |alias| plan.issue.iter().any(|i| i.alias == alias);
    let hands_out = issues(Alias::Client) || issues(Alias::MetricsExporter);
    let held_by_clients = plan.published.contains_key(&Alias::Client);
    let mut steps = vec![Step::Pause];
    steps.extend(
        plan.issue
            .iter()
            .map(|issuance| Step::Issue(issuance.alias)),
    );
    if !plan.issue.is_empty() && !plan.published.is_empty() {
        steps.push(Step::Stage);
    }
    if hands_out && !held_by_clients {
        steps.push(Step::HandOut);
    }
    if !restart {
        steps.push(Step::Switch);
    }
    match plan.choice.way {
        // Nobody leaves, so nobody has to take over.
        Way::Reload => {
            let names = plan.pods.iter().map(|pod| pod.name.clone());
            steps.extend(names.map(Step::Reload));
        }
        Way::Restart => {
            let single = plan.replicas == 1;
            steps.extend(single.then_some(Step::Surge));
            steps.extend(rolls(plan));
            steps.extend(single.then_some(Step::Unsurge));
        }
    }
    if hands_out && held_by_clients {
        steps.push(Step::HandOut);
    }
    steps.push(Step::Prove);
    if !restart {
        // Where the spec stays as it is, it is checked that nobody else has changed it.
        steps.push(Step::Commit);
    }
    if !restart && !plan.published.is_empty() {
        steps.push(Step::Retire);
    }
    steps.push(Step::Resume);
    steps
}
