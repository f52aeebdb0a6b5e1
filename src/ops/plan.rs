//! The plan of a request: a list of steps with everything filled in, so that carrying it out leaves
//! no choice.
//!
//! The plan is made once, when the request begins, and stored beside the journal. It holds names,
//! numbers and specs, and no key material. What was there before is in it too, because undoing
//! needs it.
//!
//! Order of the pods: highest ordinal first, as a StatefulSet would. The first pod is the canary: it
//! is proved, including a login through it, before the second is touched. A single replica first
//! gets a surge pod, which is then the canary.
//!
//! Order of the steps: trust is published before anything that needs it, and new client material
//! ([`Step::HandOut`]) only when every pod trusts its issuer. Where nobody holds client material yet
//! it goes out first, because the pods are about to ask for it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::request::{Change, Settings, TlsState};
use crate::api::IssuerRef;
use crate::names::{Alias, ObjectRef, Revision};

/// Form of the stored plan. A daemon refuses a plan of another form instead of misreading it.
pub const PLAN_FORM: u32 = 1;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// Take the Paused condition of the PgBouncer; undo: release it.
    Pause,
    /// Issue the planned revision of an alias; undo: delete it.
    Issue(Alias),
    /// Publish trust in old and new issuers; undo: the former bundle.
    Stage,
    /// Publish the new client and exporter material; undo: the former.
    HandOut,
    /// Publish the server's material, the configuration and the pod template; undo: publish what
    /// was there and bring every pod back to it.
    Switch,
    /// Start one pod more, prove it and let it serve; undone by [`Step::Switch`].
    Surge,
    /// Replace a pod: drain, restart, prove, back into service; undo: back into service.
    Roll(String),
    /// Take the surge pod away again.
    Unsurge,
    /// See every pod and the Service serve what was planned; log in and ask.
    Prove,
    /// Write the change into the PgBouncer's spec; undo: the former spec.
    Commit,
    /// Delete what nobody needs any more.
    Retire,
    /// Release the pause.
    Resume,
}

impl Step {
    /// Whether the step comes after the point of no return: everything is proved and written, and
    /// going back would undo a success.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Retire | Self::Resume)
    }

    /// Whether undoing the step is still owed after undoing `stuck` has failed. Pods that are out of
    /// service come back and the pause is released, always. A pod that could not be put back is
    /// replaced by undoing the switch; after any other failure every pod serves the new material,
    /// so what it needs (revision, trust, configuration) is better left alone.
    pub const fn is_owed_after(&self, stuck: &Self) -> bool {
        match self {
            Self::Pause | Self::Surge | Self::Roll(_) | Self::Unsurge => true,
            Self::Switch => matches!(stuck, Self::Roll(_)),
            Self::Issue(_)
            | Self::Stage
            | Self::HandOut
            | Self::Prove
            | Self::Commit
            | Self::Retire
            | Self::Resume => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause => f.write_str("pause"),
            Self::Issue(alias) => write!(f, "issue {alias}"),
            Self::Stage => f.write_str("stage trust"),
            Self::HandOut => f.write_str("hand out client material"),
            Self::Switch => f.write_str("switch"),
            Self::Surge => f.write_str("surge"),
            Self::Roll(pod) => write!(f, "roll {pod}"),
            Self::Unsurge => f.write_str("end surge"),
            Self::Prove => f.write_str("prove"),
            Self::Commit => f.write_str("commit"),
            Self::Retire => f.write_str("retire"),
            Self::Resume => f.write_str("resume"),
        }
    }
}

/// An object, and the very one of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Namespace and name.
    pub at: ObjectRef,
    /// UID.
    pub uid: String,
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

/// A pod that is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPod {
    /// Its name.
    pub name: String,
    /// UID when the plan was made; `None` if there was no such pod.
    pub uid: Option<String>,
}

/// What is known when the plan is made.
#[derive(Clone, Debug)]
pub struct Facts {
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
    /// Revision that each contract Secret holds.
    pub published: BTreeMap<Alias, Revision>,
    /// Highest revision that exists per alias, published or not.
    pub newest: BTreeMap<Alias, Revision>,
    /// Number of replicas.
    pub replicas: u32,
    /// UIDs of the pods that are there, by name.
    pub pods: BTreeMap<String, String>,
}

/// Everything that carrying out a request needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_FORM`].
    pub form: u32,
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
    /// Revision that each contract Secret held before.
    pub published: BTreeMap<Alias, Revision>,
    /// Number of replicas.
    pub replicas: u32,
    /// The pods, in the order in which they are replaced.
    pub pods: Vec<PlannedPod>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Bounds and strategy.
    pub settings: Settings,
}

impl Plan {
    /// Plans `change`.
    pub fn new(change: Change, settings: Settings, facts: Facts) -> Self {
        let issue = issuances(&change, &facts);
        let pods: Vec<PlannedPod> = (0..facts.replicas)
            .rev()
            .map(|ordinal| {
                let name = pod_name(&facts.database.at.name, ordinal);
                let uid = facts.pods.get(&name).cloned();
                PlannedPod { name, uid }
            })
            .collect();
        let mut plan = Self {
            form: PLAN_FORM,
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
        };
        plan.steps = steps(&plan);
        plan
    }

    /// The revision of `alias` that is to be published in the end.
    pub fn target_revision(&self, alias: Alias) -> Option<Revision> {
        let issued = self.issue.iter().find(|issuance| issuance.alias == alias);
        issued
            .map(|issuance| issuance.revision)
            .or_else(|| self.published.get(&alias).copied())
    }

    /// Name of the surge pod: the one after the last.
    pub fn surge_pod(&self) -> String {
        pod_name(&self.database.at.name, self.replicas)
    }

    /// The planned pod of that name.
    pub fn pod(&self, name: &str) -> Option<&PlannedPod> {
        self.pods.iter().find(|pod| pod.name == name)
    }

    /// Name of the ConfigMap that holds plan and journal.
    pub fn journal_name(&self) -> String {
        journal_name(&self.request.at.name)
    }

    /// Whether the pod is the first whose replacement is proved with a login.
    pub fn is_canary(&self, pod: &str) -> bool {
        if self.steps.contains(&Step::Surge) {
            return pod == self.surge_pod();
        }
        self.pods.first().is_some_and(|first| first.name == pod)
    }
}

/// Name of the ConfigMap that holds plan and journal of a request.
pub fn journal_name(request: &str) -> String {
    // An object name may have 253 characters, a suffix is needed, and requests are told apart by
    // the owner's UID; so the name is cut where necessary.
    let cut: String = request.chars().take(240).collect();
    format!("{cut}-journal")
}

/// Name of the pod with that ordinal.
pub fn pod_name(database: &str, ordinal: u32) -> String {
    format!("{database}-{ordinal}")
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
            let newest = facts.newest.get(&alias).copied();
            Some(Issuance {
                alias,
                revision: newest.map_or(Revision::FIRST, Revision::next),
                issuer: own.or(tls.issuer_ref.as_ref())?.clone(),
            })
        })
        .collect()
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
    if plan.replicas == 1 {
        steps.push(Step::Surge);
    }
    steps.extend(plan.pods.iter().map(|pod| Step::Roll(pod.name.clone())));
    if plan.replicas == 1 {
        steps.push(Step::Unsurge);
    }
    if hands_out && held_by_clients {
        steps.push(Step::HandOut);
    }
    steps.push(Step::Prove);
    if plan.former != plan.target {
        steps.push(Step::Commit);
    }
    if !restart && !plan.published.is_empty() {
        steps.push(Step::Retire);
    }
    steps.push(Step::Resume);
    steps
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::pgbouncer::PgBouncerSpec;
    use crate::ops::request::{parse, target_state};

    /// A plan for `database` with so many replicas, from present TLS fields and a `spec.tls` of a
    /// request (`null` for a restart).
    pub(in crate::ops) fn plan(
        present: &serde_json::Value,
        asked: &serde_json::Value,
        replicas: u32,
    ) -> Plan {
        let mut spec = json!({
            "version": "1.18.0",
            "database": { "databaseName": "l", "databaseRef": { "name": "p", "namespace": "shop" } },
        });
        json_patch::merge(&mut spec, present);
        let spec: PgBouncerSpec = serde_json::from_value(spec).unwrap();
        let mut request = json!({ "databaseRef": { "name": "billing" }, "type": "ReconfigureTLS" });
        if asked.is_null() {
            request["type"] = json!("Restart");
        } else {
            request["tls"] = asked.clone();
        }
        let request = serde_json::from_value(request).unwrap();
        let change = parse(&request, &spec).unwrap();
        let former = TlsState::of(&spec);
        let published: BTreeMap<_, _> = former
            .aliases()
            .into_iter()
            .map(|alias| (alias, Revision::FIRST))
            .collect();
        let subject = |name: &str| Subject {
            at: ObjectRef::new("shop", name),
            uid: format!("uid-{name}"),
        };
        let facts = Facts {
            request: subject("change-7"),
            generation: 1,
            request_type: request.type_.as_str().to_owned(),
            database: subject("billing"),
            target: target_state("billing", &spec, &change, true),
            former,
            newest: published.clone(),
            published,
            replicas,
            pods: (0..replicas)
                .map(|n| (format!("billing-{n}"), format!("old-{n}")))
                .collect(),
        };
        Plan::new(change, Settings::default(), facts)
    }

    pub(in crate::ops) fn present() -> serde_json::Value {
        json!({
            "sslMode": "verify-full",
            "tls": {
                "issuerRef": { "kind": "Issuer", "name": "old-ca" },
                "certificates": [
                    { "alias": "server" }, { "alias": "client" }, { "alias": "metrics-exporter" },
                ],
            },
        })
    }

    pub(in crate::ops) fn issuer() -> serde_json::Value {
        json!({ "issuerRef": { "kind": "Issuer", "name": "new-ca" } })
    }

    fn words(plan: &Plan) -> String {
        let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        steps.join(", ")
    }

    #[test]
    fn adding_tls_hands_out_client_material_before_any_pod_asks_for_it() {
        let plan = plan(&json!({ "sslMode": "disable" }), &issuer(), 3);
        assert_eq!(
            words(&plan),
            "pause, issue server, issue client, issue metrics-exporter, hand out client material, \
             switch, roll billing-2, roll billing-1, roll billing-0, prove, commit, resume"
        );
        assert!(plan.is_canary("billing-2"));
    }

    #[test]
    fn another_issuer_is_trusted_first_and_its_client_material_comes_last() {
        let plan = plan(&present(), &issuer(), 2);
        assert_eq!(
            words(&plan),
            "pause, issue server, issue client, issue metrics-exporter, stage trust, switch, \
             roll billing-1, roll billing-0, hand out client material, prove, commit, retire, \
             resume"
        );
        assert!(
            plan.issue
                .iter()
                .all(|i| i.revision.get() == 2 && i.issuer.name == "new-ca")
        );
    }

    #[test]
    fn a_rotation_commits_nothing_and_a_single_replica_gets_company() {
        let plan = plan(&present(), &json!({ "rotateCertificates": true }), 1);
        assert_eq!(
            words(&plan),
            "pause, issue server, issue client, issue metrics-exporter, stage trust, switch, \
             surge, roll billing-0, end surge, hand out client material, prove, retire, resume"
        );
        assert!(plan.is_canary("billing-1") && !plan.is_canary("billing-0"));
    }

    #[test]
    fn removal_deletes_material_only_after_the_commit() {
        let plan = plan(&present(), &json!({ "remove": true }), 2);
        assert_eq!(
            words(&plan),
            "pause, switch, roll billing-1, roll billing-0, prove, commit, retire, resume"
        );
    }

    #[test]
    fn a_restart_touches_pods_only() {
        let plan = plan(&present(), &serde_json::Value::Null, 2);
        assert_eq!(
            words(&plan),
            "pause, roll billing-1, roll billing-0, prove, resume"
        );
    }

    #[test]
    fn nothing_to_do_is_an_empty_plan() {
        let plan = plan(&json!({}), &json!({ "remove": true }), 2);
        assert_eq!(plan.steps, []);
    }

    #[test]
    fn a_plan_survives_its_file() {
        let plan = plan(&present(), &issuer(), 2);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
