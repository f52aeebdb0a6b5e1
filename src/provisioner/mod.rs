//! A PgBouncer object in, the objects it stands for out (CONTRACT sections 2 and 4.1–4.2).
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
mod auth;
mod certificates;
mod conditions;
mod finalize;
mod health;
mod memory;
mod observe;
mod report;
pub mod validate;

use std::time::Duration;

use kube::ResourceExt;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::api::PgBouncer;
use crate::api::annotations::class_of;
use crate::api::common::find_condition;
use crate::blueprint::{self, Inputs, WorkloadKind};
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, EventKind, Reporter};
use crate::material::Materials;
use crate::names::ObjectRef;
use crate::retry::Retry;
use crate::surroundings;

use self::conditions::Seen;
use self::memory::Memory;
use self::validate::Blocked;

/// Source of the provisioner's events (CONTRACT 4.6).
pub const COMPONENT: &str = "KubeDB Operator";
/// The condition that keeps us off (CONTRACT 4.4).
pub const PAUSED: &str = "Paused";
/// How soon an object that is not ready yet is looked at again; changes of its pods wake us sooner.
const UNREADY_PERIOD: Duration = Duration::from_secs(2);
/// How soon an object is read afresh that changed while its objects were made.
const TAKEN_OVER_PAUSE: Duration = Duration::from_millis(100);
/// Longest time until users are synced (CONTRACT 2.6).
const SYNC_PERIOD: Duration = Duration::from_secs(20);

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
    /// The class of objects that are looked after.
    class: String,
}

// === impl Provisioner ===

impl Provisioner {
    /// A provisioner on that cluster.
    pub fn new(cluster: Cluster, materials: Materials, clock: Clock) -> Self {
        Self {
            reporter: Reporter::new(cluster.clone(), COMPONENT),
            memory: Memory::default(),
            workload: OnceCell::new(),
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

    /// Something that objects of the PgBouncer at `at` are made from, or one of these objects, has
    /// changed: the next look is a full one.
    pub fn changed(&self, at: &ObjectRef) {
        self.memory.changed(at);
    }

    /// Brings the cluster one look closer to what the object at `at` says.
    pub async fn reconcile(&self, at: &ObjectRef) -> Result<Next, ProvisionError> {
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
        let version = bouncer.resource_version();
        if let Some(digest) = self.memory.settled(at, version.as_deref(), Instant::now()) {
            return self.look(&bouncer, Some(&digest), None).await;
        }
        let changes = self.memory.changes(at);
        let mut bouncer = self.begin(bouncer).await?;
        let (digest, blocked) = match Box::pin(self.converge(&mut bouncer)).await {
            Ok(digest) => (Some(digest), None),
            Err(Blocked::Passing(error)) => return Err(error.into()),
            Err(Blocked::TakenOver) => return Ok(Next::Again(TAKEN_OVER_PAUSE)),
            Err(blocked) => (None, Some(blocked)),
        };
        if let Some(digest) = &digest {
            let version = bouncer.resource_version();
            self.memory.settle(at, version, changes, digest.clone());
        }
        self.look(&bouncer, digest.as_deref(), blocked).await
    }

    /// Looks at the pods and reports.
    async fn look(
        &self,
        bouncer: &PgBouncer,
        digest: Option<&str>,
        blocked: Option<Blocked>,
    ) -> Result<Next, ProvisionError> {
        let pods = self.health(bouncer, digest).await?;
        let is_ready = self.report(bouncer, &Seen { pods, blocked }).await?;
        let seconds = bouncer.spec.health_checker.period_seconds.max(1);
        let health = Duration::from_secs(u64::from(seconds.unsigned_abs()));
        let period = if is_ready {
            health.min(SYNC_PERIOD)
        } else {
            UNREADY_PERIOD
        };
        Ok(Next::Again(period))
    }

    /// Everything between the object and its objects. `bouncer` is always as it was last written,
    /// also when this fails; the digest that its pods are to carry is returned.
    async fn converge(&self, bouncer: &mut PgBouncer) -> Result<String, Blocked> {
        self.complete(bouncer).await?;
        self.check_tls_is_as_before(bouncer).await?;
        self.ensure_auth(bouncer).await?;
        let namespace = bouncer.namespace().unwrap_or_default();
        let kind = self.workload_kind(&namespace).await?;
        let mut around = surroundings::read(&self.cluster, bouncer, kind).await?;
        if self
            .ensure_certificates(bouncer, &around.load_balancer)
            .await?
        {
            around = surroundings::read(&self.cluster, bouncer, kind).await?;
        }
        let inputs = Inputs::new(bouncer, &around)?;
        let digest = inputs.digest();
        let resources = blueprint::build(&inputs)?;
        Box::pin(self.apply(bouncer, &inputs, resources)).await?;
        Ok(digest)
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
