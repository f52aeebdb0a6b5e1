//! A PgBouncer object in, the objects it stands for out (docs/kubedb-compatibility.md).
//!
//! ```text
//! observe ──▶ admit ──▶ validate ──▶ build ──▶ apply ──▶ health ──▶ report
//! (reads)     (bounds,  (pure)       (auth     (objects) (probes)   (conditions,
//!             defaults)              Secret,                        phase)
//!                                    material,
//!                                    blueprint)
//! ```
//!
//! One file each. `observe` writes nothing; it ends a look at an object that has gone, is being deleted,
//! is held by a request, or is settled and only its pods are to be looked at.
//!
//! Whatever keeps the objects from being made is a `Blocked` value, not an error: it becomes a
//! condition that says what to change, and health is looked at all the same, because pods that run
//! are not worse for an AppBinding that has gone. Errors are only what trying again may cure.
//!
//! While the condition `Paused` stands, the object belongs to a request and nothing is written. The
//! request commits the specification it has carried out before it resumes, so that what is built
//! afterwards is what is there already.

mod observe;

mod admit;
mod validate;

mod auth;
mod build;
mod certificates;

mod apply;

mod conditions;
mod health;
mod report;

mod around;
mod blocked;
mod build_id;
mod copies;
mod finalize;
mod keep;
mod memory;
mod settled;

use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

pub use self::around::Kind;
use self::blocked::Blocked;
use self::build::{Applied, Resources};
use self::conditions::Seen;
pub use self::copies::Copies;
use self::health::PodState;
pub use self::keep::keep;
use self::memory::{Ask, Memory};
use self::observe::{Due, Observed};
use self::validate::validate;
use crate::api::PgBouncer;
use crate::api::common::find_condition;
use crate::blueprint::WorkloadKind;
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, EventKind, Foreign, Reporter, reference};
use crate::instants::{Shift, Since};
use crate::material::Materials;
use crate::names::ObjectRef;
use crate::retry::{Next, Retry, backoff};
use crate::surroundings::References;

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
        match self.observe(at, copies).await? {
            Observed::NotOurs => {
                self.memory.forget(at);
                Ok(Next::Wait)
            }
            Observed::Leaving(bouncer) => {
                self.memory.forget(at);
                self.finalize(&bouncer).await
            }
            Observed::Settled(bouncer, digest) => self.look_again(&bouncer, &digest, copies).await,
            Observed::Due(due) => self.look_in_full(due, copies).await,
        }
    }

    /// Makes the objects, looks at the pods and reports.
    async fn look_in_full(&self, due: Due, copies: &Copies) -> Result<Next, ProvisionError> {
        let at = &reference(&*due.bouncer);
        let mut bouncer = self.begin(*due.bouncer).await?;
        let (digest, mut open) = match Box::pin(self.converge(&mut bouncer, copies)).await {
            Ok(applied) => (Some(applied.digest), Open::spared(applied.stage.spared)),
            Err(Blocked::Passing(error)) => return Err(error.into()),
            Err(Blocked::TakenOver) => return Ok(Next::Again(TAKEN_OVER_PAUSE)),
            Err(blocked) => (None, Open::blocked(blocked)),
        };
        let pods = health::pods(&bouncer, digest.as_deref(), copies);
        if open.is_none() {
            let squatters = self.squatters(&bouncer, &pods, copies).await?;
            open = Open::in_the_way(squatters);
        }
        let settled = digest.clone().filter(|_| open.is_none());
        if let Some(digest) = settled.clone() {
            let ask = Ask::of(&bouncer);
            self.memory.settle(at, ask, due.changes, digest);
        }
        let pause = self.pause(at, &open);
        let next = self.look(&bouncer, digest.as_deref(), pods, open).await?;
        if let Some(digest) = &settled {
            self.leave_word(&bouncer, digest, due.around, copies).await;
        }
        Ok(pause.map_or(next, Next::Again))
    }

    /// Everything between the object and its objects. `bouncer` is always as it was last written,
    /// also when this fails.
    async fn converge(
        &self,
        bouncer: &mut PgBouncer,
        copies: &Copies,
    ) -> Result<Resources<Applied>, Blocked> {
        self.complete(bouncer).await?;
        let found = self.find(bouncer).await?;
        validate(bouncer, &found)?;
        let prepared = self.build(bouncer, found).await?;
        Box::pin(self.apply(bouncer, prepared, copies)).await
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
        self.look(bouncer, Some(digest), pods, Open::default())
            .await
    }

    /// Looks at the pods and reports.
    async fn look(
        &self,
        bouncer: &PgBouncer,
        digest: Option<&str>,
        pods: Vec<PodState>,
        open: Open,
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

    async fn event(&self, bouncer: &PgBouncer, kind: EventKind, reason: &str, message: &str) {
        self.reporter
            .report(bouncer, kind, reason, message, self.clock.now())
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
