//! A PgBouncer object in, the objects it stands for out (docs/kubedb-compatibility.md).
//!
//! ```text
//! observe ──▶ validate ──▶ build ──▶ apply ──▶ health ──▶ report
//! (object)    (defaults,   (blueprint)          (probes)   (conditions, phase)
//!              auth, TLS)
//! ```
//!
//! Whatever keeps the objects from being made is a [`Blocked`] value, not an error: it becomes a
//! condition that says what to change, and health is looked at all the same, because pods that run
//! are not worse for an AppBinding that has gone. Errors are only what trying again may cure.
//!
//! While the condition `Paused` stands, the object belongs to a request and nothing is written. The
//! request commits the specification it has carried out before it resumes, so that what is built
//! afterwards is what is there already.

mod apply;
mod around;
mod auth;
mod backend;
mod certificates;
mod conditions;
mod copies;
mod finalize;
mod health;
mod memory;
mod observe;
mod report;
mod settled;
pub mod validate;

use std::time::Duration;

use kube::ResourceExt;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::api::PgBouncer;
use crate::api::annotations::class_of;
use crate::api::common::find_condition;
use crate::blueprint::{self, Inputs, InputsError, WorkloadKind, bounds};
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, EventKind, Foreign, Reporter, reference};
use crate::instants::{Shift, Since};
use crate::material::Materials;
use crate::names::ObjectRef;
use crate::retry::{Retry, backoff};
use crate::surroundings::{self, References};

pub use self::around::Kind;
use self::conditions::Seen;
pub use self::copies::Copies;
use self::health::PodState;
use self::memory::{Ask, Memory};
use self::validate::Blocked;

/// Source of the provisioner's events.
pub const COMPONENT: &str = "KubeDB Operator";
/// The condition that keeps us off.
pub const PAUSED: &str = "Paused";
/// How soon an object that is not ready yet is looked at again; changes of its pods wake us sooner.
const UNREADY_PERIOD: Duration = Duration::from_secs(2);
/// How soon an object is read afresh that changed while its objects were made.
const TAKEN_OVER_PAUSE: Duration = Duration::from_millis(100);
/// Longest time between two looks at pods that are well.
const HEALTH_PERIOD_MAX: Duration = Duration::from_secs(20);

/// When to look at an object again, if nothing wakes us sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// After that time.
    Again(Duration),
    /// Not before it changes.
    Wait,
}

/// Trouble that passes.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The API server did not answer as it should.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl ProvisionError {
    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self {
            // What is missing or refused now may be there or allowed at the next look.
            Self::Cluster(_) => Retry::Backoff,
        }
    }
}

/// Makes the objects of PgBouncers.
pub struct Provisioner {
    cluster: Cluster,
    materials: Materials,
    clock: Clock,
    reporter: Reporter,
    memory: Memory,
    workload: OnceCell<WorkloadKind>,
    references: References,
    /// The class of objects that are looked after.
    class: String,
}

/// What a full look has left for others to do.
#[derive(Debug, Default)]
struct Open {
    /// What keeps the objects from being made.
    blocked: Option<Blocked>,
    /// Foreign objects that the pooler works without.
    spared: Vec<Foreign>,
}

// === impl Open ===

impl Open {
    fn blocked(blocked: Blocked) -> Self {
        Self {
            blocked: Some(blocked),
            ..Self::default()
        }
    }

    fn spared(spared: Vec<Foreign>) -> Self {
        Self {
            spared,
            ..Self::default()
        }
    }

    fn in_the_way(foreign: Vec<Foreign>) -> Self {
        let blocked = (!foreign.is_empty()).then_some(Blocked::Foreign(foreign));
        Self {
            blocked,
            ..Self::default()
        }
    }

    const fn is_none(&self) -> bool {
        self.blocked.is_none() && self.spared.is_empty()
    }
}

// === impl Provisioner ===

impl Provisioner {
    /// A provisioner on that cluster.
    pub fn new(cluster: Cluster, materials: Materials, clock: Clock) -> Self {
        Self {
            reporter: Reporter::new(cluster.clone(), COMPONENT),
            memory: Memory::default(),
            workload: OnceCell::new(),
            references: References::default(),
            class: String::new(),
            cluster,
            materials,
            clock,
        }
    }

    /// Leaves objects of other classes alone.
    #[must_use]
    pub fn of_class(self, class: &str) -> Self {
        Self {
            class: class.to_owned(),
            ..self
        }
    }

    /// Follows those references into other namespaces.
    #[must_use]
    pub fn with_references(self, references: References) -> Self {
        Self { references, ..self }
    }

    /// Something that objects of the PgBouncer at `at` are made from, or one of these objects, has
    /// changed: the next look is a full one.
    pub fn changed(&self, at: &ObjectRef) {
        self.memory.changed(at);
    }

    /// Brings the cluster one look closer to what the object at `at` says.
    pub async fn reconcile(&self, at: &ObjectRef, copies: &Copies) -> Result<Next, ProvisionError> {
        if !copies.are_listed().await {
            return Ok(Next::Again(UNREADY_PERIOD));
        }
        if let Some(bouncer) = copies.bouncer(at)
            && self.is_ours_to_change(&bouncer)
        {
            let ask = Ask::of(&bouncer);
            let settled = self.memory.settled(at, &ask, Instant::now());
            let settled = settled.or_else(|| self.was_settled(&bouncer, &ask, copies));
            if let Some(digest) = settled {
                return self.look_again(&bouncer, &digest, copies).await;
            }
        }
        let Some(bouncer) = self.cluster.get::<PgBouncer>(at).await? else {
            self.memory.forget(at);
            return Ok(Next::Wait);
        };
        if class_of(&bouncer) != self.class {
            self.memory.forget(at);
            return Ok(Next::Wait);
        }
        if bouncer.metadata.deletion_timestamp.is_some() {
            self.memory.forget(at);
            return self.finalize(&bouncer).await;
        }
        if is_paused(&bouncer) {
            self.memory.forget(at);
            return Ok(Next::Wait);
        }
        let (changes, around) = (self.memory.changes(at), copies.mark(&bouncer));
        let mut bouncer = self.begin(bouncer).await?;
        let (digest, mut open) = match Box::pin(self.converge(&mut bouncer, copies)).await {
            Ok((digest, spared)) => (Some(digest), Open::spared(spared)),
            Err(Blocked::Passing(error)) => return Err(error.into()),
            Err(Blocked::TakenOver) => return Ok(Next::Again(TAKEN_OVER_PAUSE)),
            Err(blocked) => (None, Open::blocked(blocked)),
        };
        let pods = health::pods(&bouncer, digest.as_deref(), copies);
        if open.is_none() {
            let squatters = self.squatters(&bouncer, &pods, copies).await?;
            open = Open::in_the_way(squatters);
        }
        let settled = digest.as_ref().filter(|_| open.is_none());
        if let Some(digest) = settled {
            let ask = Ask::of(&bouncer);
            self.memory.settle(at, ask, changes, digest.clone());
        }
        let settled = settled.cloned();
        let pause = self.pause(at, &open);
        let next = self.look(&bouncer, digest.as_deref(), (pods, open)).await?;
        if let Some(digest) = &settled {
            self.leave_word(&bouncer, digest, (around, copies)).await;
        }
        Ok(pause.map_or(next, Next::Again))
    }

    /// How long to wait for what blocks an object, growing from look to look: what it needs in the
    /// cluster wakes us when it comes. An issuer does not.
    fn pause(&self, at: &ObjectRef, open: &Open) -> Option<Duration> {
        let looks = self.memory.blocked(at, !open.is_none());
        match &open.blocked {
            Some(Blocked::CertificatePending { .. }) => Some(UNREADY_PERIOD),
            _ => (!open.is_none()).then(|| backoff(looks)),
        }
    }

    /// Whether the object, as a watch has told of it, may be looked after now.
    fn is_ours_to_change(&self, bouncer: &PgBouncer) -> bool {
        let is_going = bouncer.metadata.deletion_timestamp.is_some();
        class_of(bouncer) == self.class && !is_going && !is_paused(bouncer)
    }

    /// Looks at the pods of a settled object, unless they were well a moment ago.
    async fn look_again(
        &self,
        bouncer: &PgBouncer,
        digest: &str,
        copies: &Copies,
    ) -> Result<Next, ProvisionError> {
        let pods = health::pods(bouncer, Some(digest), copies);
        let now = Instant::now();
        if let Some(until) = self.memory.is_well(&reference(bouncer), &pods, now) {
            return Ok(Next::Again(until.since(now)));
        }
        self.look(bouncer, Some(digest), (pods, Open::default()))
            .await
    }

    /// Looks at the pods and reports.
    async fn look(
        &self,
        bouncer: &PgBouncer,
        digest: Option<&str>,
        (pods, open): (Vec<PodState>, Open),
    ) -> Result<Next, ProvisionError> {
        let seen = Seen {
            pods: health::look_at(bouncer, &pods, digest).await,
            blocked: open.blocked,
            spared: open.spared,
        };
        if !self.report(bouncer, &seen).await? {
            return Ok(Next::Again(UNREADY_PERIOD));
        }
        let seconds = bouncer.spec.health_checker.period_seconds.max(1);
        let period = Duration::from_secs(u64::from(seconds.unsigned_abs())).min(HEALTH_PERIOD_MAX);
        let until = Instant::now().plus(period);
        self.memory.well(&reference(bouncer), pods, until);
        Ok(Next::Again(period))
    }

    /// Everything between the object and its objects. `bouncer` is always as it was last written,
    /// also when this fails; the digest that its pods are to carry is returned, and the foreign
    /// objects that the pooler works without.
    async fn converge(
        &self,
        bouncer: &mut PgBouncer,
        copies: &Copies,
    ) -> Result<(String, Vec<Foreign>), Blocked> {
        bounds::check(&bouncer.spec)?;
        self.complete(bouncer).await?;
        self.check_tls_is_as_before(bouncer).await?;
        self.ensure_auth(bouncer).await?;
        let namespace = bouncer.namespace().unwrap_or_default();
        let kind = self.workload_kind(&namespace).await?;
        surroundings::check_references(&self.cluster, bouncer, self.references).await?;
        let mut around = surroundings::read(&self.cluster, bouncer, kind).await?;
        // Text that cannot be written is refused before a certificate or an object is made for it.
        blueprint::examine(bouncer, &around).map_err(InputsError::from)?;
        if self
            .ensure_certificates(bouncer, &around.load_balancer)
            .await?
        {
            around = surroundings::read(&self.cluster, bouncer, kind).await?;
        }
        let proven = self.prove_backend(&mut around).await?;
        let inputs = Inputs::new(bouncer, &around)?;
        let digest = inputs.digest();
        let inputs = self.without_needless_files(bouncer, inputs, copies);
        let resources = blueprint::build(&inputs)?;
        let spared = Box::pin(self.apply(bouncer, &inputs, (resources, copies))).await?;
        // All else has been carried out with what was in force before.
        proven?;
        Ok((digest, spared))
    }

    async fn workload_kind(&self, namespace: &str) -> Result<WorkloadKind, ClusterError> {
        self.workload
            .get_or_try_init(|| surroundings::workload_kind(&self.cluster, namespace))
            .await
            .copied()
    }

    async fn event(&self, bouncer: &PgBouncer, kind: EventKind, reason: &str, message: &str) {
        self.reporter
            .report(bouncer, kind, (reason, message), self.clock.now())
            .await;
    }
}

/// Whether a request (or a person) holds the object.
pub fn is_paused(bouncer: &PgBouncer) -> bool {
    bouncer
        .status
        .as_ref()
        .and_then(|status| find_condition(&status.conditions, PAUSED))
        .is_some_and(crate::api::Condition::is_true)
}
