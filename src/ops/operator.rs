//! The ops manager: brings a request from its creation to its end.
//!
//! [`Operator::reconcile`] takes nothing but a name. What there is to do is read from the request
//! and from its journal, so it makes no difference whether an event, a timer or a restart woke it.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::admit::{Admission, Hold, admit, held_by_another, phase, skipped};
use super::error::{OpsError, PlanError};
use super::executor::{Execution, Left};
use super::former::FormerJournals;
use super::hands::{Hands, Identity};
use super::ledger::{self, Ledger};
use super::live::Live;
use super::locks::Locks;
use super::metrics::{OpsMetrics, RequestOutcome};
use super::planner;
use super::view::{self, News};
use super::{plan::Plan, status};
use crate::api::annotations::{REQUEST_FINALIZER, class_of};
use crate::api::common::Condition;
use crate::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase};
use crate::blueprint::WorkloadKind;
use crate::causes::chain;
use crate::clock::Clock;
use crate::cluster::{Cluster, EventKind, Reporter};
use crate::material::{MaterialError, Materials};
use crate::names::ObjectRef;
use crate::panics::InternalErrors;
use crate::surroundings::{self, References, SurroundingsError};

/// How often a request that waits for others, or for its PgBouncer, looks again by itself. What it waits
/// for wakes it; this is the net under a lost event.
const WAKES_ITSELF: Duration = Duration::from_secs(30);
/// How often a request looks whose PgBouncer is in another hand: that of a request which ends just now,
/// or which is gone and is being undone.
const IN_HAND: Duration = Duration::from_millis(200);

/// When to look at a request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// After that time.
    Again(Duration),
    /// When it changes.
    Wait,
}

/// How an operator works.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// What makes pods here.
    pub kind: WorkloadKind,
    /// The daemon's own namespace, where plans and journals are kept.
    pub namespace: String,
    /// What becomes of journals that an earlier version has left beside their requests.
    pub former: FormerJournals,
    /// Cancelled when the daemon stops: requests are left where they are, for the next one.
    pub cancel: CancellationToken,
    /// Where it counts.
    pub metrics: OpsMetrics,
    /// Which references into other namespaces are followed.
    pub references: References,
}

/// The ops manager.
pub struct Operator {
    pub(super) cluster: Cluster,
    pub(super) materials: Materials,
    pub(super) clock: Clock,
    pub(super) kind: WorkloadKind,
    /// The namespace of plans and journals.
    pub(super) home: String,
    pub(super) former: FormerJournals,
    pub(super) metrics: OpsMetrics,
    cancel: CancellationToken,
    pub(super) reporter: Reporter,
    references: References,
    /// Held from listing the requests of a namespace until one has begun.
    pub(super) admission: Locks,
    pub(super) hands: Hands,
    pub(super) errors: InternalErrors,
    /// The class of PgBouncers whose requests are carried out.
    class: String,
}

impl Operator {
    /// An operator over `cluster`.
    pub fn new(
        cluster: Cluster,
        materials: Materials,
        clock: Clock,
        options: OperatorOptions,
    ) -> Self {
        let OperatorOptions {
            kind,
            namespace: home,
            former,
            cancel,
            metrics,
            references,
        } = options;
        let reporter = Reporter::new(cluster.clone(), view::COMPONENT);
        Self {
            cluster,
            materials,
            clock,
            kind,
            home,
            former,
            metrics,
            cancel,
            reporter,
            references,
            admission: Locks::default(),
            hands: Hands::default(),
            errors: InternalErrors::default(),
            class: String::new(),
        }
    }

    /// Leaves requests for PgBouncers of other classes alone.
    #[must_use]
    pub fn of_class(self, class: &str) -> Self {
        Self {
            class: class.to_owned(),
            ..self
        }
    }

    /// Counts panics in `errors`.
    #[must_use]
    pub fn counting(self, errors: InternalErrors) -> Self {
        Self { errors, ..self }
    }

    /// Carries a request on as far as it goes. `known` are the requests of its namespace, as a copy has
    /// them: while they say that another goes first, the API server is not asked.
    pub async fn reconcile(
        &self,
        at: &ObjectRef,
        known: &[Arc<PgBouncerOpsRequest>],
    ) -> Result<Next, OpsError> {
        let own = known.iter().find(|request| request.name_any() == at.name);
        let waits = own.filter(|own| {
            let is_gone = own.metadata.deletion_timestamp.is_some();
            phase(own) == Some(RequestPhase::Pending) && !is_gone
        });
        if waits.is_some_and(|own| held_by_another(own, known).is_some()) {
            return Ok(Next::Again(WAKES_ITSELF));
        }
        let Some(request) = self.cluster.get::<PgBouncerOpsRequest>(at).await? else {
            return Ok(Next::Wait);
        };
        let database = self.database(&request).await?;
        if database.as_ref().map_or("", class_of) != self.class {
            return Ok(Next::Wait);
        }
        match phase(&request) {
            Some(phase) if phase.is_terminal() => {
                self.unhold(&Identity::of(&request)).await?;
                Ok(Next::Wait)
            }
            Some(RequestPhase::Progressing) => self.carry_on(&request).await,
            _ if request.metadata.deletion_timestamp.is_some() => {
                // It has not begun, so there is nothing to undo.
                self.unhold(&Identity::of(&request)).await?;
                Ok(Next::Wait)
            }
            // It has said that it waits, and by the copy it still has to: nothing is listed.
            Some(RequestPhase::Pending) if is_held(&request, known, database.as_ref()) => {
                Ok(Next::Again(WAKES_ITSELF))
            }
            Some(RequestPhase::Pending) if self.hands.is_taken(&database_of(&request)) => {
                Ok(Next::Again(IN_HAND))
            }
            _ => Box::pin(self.admit(at)).await,
        }
    }

    /// What carrying out `request` would do.
    pub async fn plan(
        &self,
        request: &PgBouncerOpsRequest,
        database: &PgBouncer,
    ) -> Result<Plan, PlanError> {
        self.check_references(database).await?;
        planner::plan(&self.cluster, &self.materials, self.kind, request, database).await
    }

    /// Refuses a PgBouncer that refers to another namespace without its word. Asked once, before
    /// anything is touched: a grant that is withdrawn later stops no undo.
    pub(super) async fn check_references(&self, database: &PgBouncer) -> Result<(), PlanError> {
        match surroundings::check_references(&self.cluster, database, self.references).await {
            Ok(()) => Ok(()),
            Err(SurroundingsError::Cluster(error)) => Err(error.into()),
            Err(error) => Err(PlanError::Unworkable(chain(&error))),
        }
    }

    /// Begins a request if it may, and then carries it on.
    async fn admit(&self, at: &ObjectRef) -> Result<Next, OpsError> {
        let begun = {
            // One list of a namespace at a time, whatever its requests name: a list holds all of them.
            let namespace = ObjectRef::new(&at.namespace, "");
            let _one_at_a_time = self.admission.lock(&namespace).await;
            // Read again: who was in here before may have changed it.
            let all: Vec<PgBouncerOpsRequest> = self.cluster.list(&at.namespace, "").await?;
            let Some(request) = all.iter().find(|request| request.name_any() == at.name) else {
                return Ok(Next::Wait);
            };
            let database = self.database(request).await?;
            match admit(request, &all, database.as_ref()) {
                Admission::Begin if self.hands.is_taken(&database_of(request)) => {
                    return self.hold(request, &Hold::InHand).await;
                }
                Admission::Begin => self.begin(request, database.as_ref()).await?,
                Admission::Hold(hold) => return self.hold(request, &hold).await,
                Admission::Skip { by, created } => {
                    let condition = skipped(request, &by, created, self.now());
                    let skipped = RequestPhase::Skipped;
                    status::move_to(self, request, skipped, Some(condition)).await?;
                    self.count(request, RequestOutcome::Skipped);
                    tracing::info!(ops.request = %at, by, "request skipped");
                    return Ok(Next::Wait);
                }
                Admission::NoDatabase => {
                    let wanted = ObjectRef::new(&at.namespace, &request.spec.database_ref.name);
                    let why = format!(
                        "spec.databaseRef {wanted}, is invalid or not found: name a PgBouncer of \
                         the same namespace"
                    );
                    return self.refuse(request, &why).await;
                }
            }
        };
        match begun {
            Some(request) => self.carry_on(&request).await,
            None => Ok(Next::Wait),
        }
    }

    /// Moves a request to Progressing, unless it has no meaning.
    async fn begin(
        &self,
        request: &PgBouncerOpsRequest,
        database: Option<&PgBouncer>,
    ) -> Result<Option<PgBouncerOpsRequest>, OpsError> {
        if let Some(database) = database
            && let Err(error) = planner::read(request, database)
        {
            self.refuse(request, &chain(&error)).await?;
            return Ok(None);
        }
        let at = crate::cluster::reference(request);
        let held = self.hold_finalizer(request).await?;
        let condition = view::begun(request.spec.type_.as_str(), self.now());
        let progressing = RequestPhase::Progressing;
        let begun = status::move_to(self, &held, progressing, Some(condition)).await?;
        self.count(request, RequestOutcome::Begun);
        tracing::info!(ops.request = %at, "request begun");
        self.report(&Identity::of(&begun), &view::starting(&at))
            .await;
        Ok(Some(begun))
    }

    /// Carries on a request that is Progressing.
    async fn carry_on(&self, request: &PgBouncerOpsRequest) -> Result<Next, OpsError> {
        let own = Identity::of(request);
        let Some(hand) = self.hands.take(&database_of(request), &own.uid) else {
            return Ok(Next::Again(IN_HAND));
        };
        let has_ended = match self.ledger(request).await? {
            Some(Ledger {
                kept,
                plan,
                journal,
            }) => {
                let world = Live::new(self, own.clone(), kept);
                let left = Box::pin(Execution::new(world, plan, journal).run()).await?;
                matches!(left, Left::Ended(_))
            }
            None => true,
        };
        drop(hand);
        // While it ran its journal was kept, even if it was gone.
        if has_ended && self.read_again(&own).await?.is_none() {
            ledger::forget(&self.cluster, &self.home, &own.uid).await?;
        }
        Ok(Next::Wait)
    }

    /// The plan of a request that has just begun; `None` if it ended here.
    pub(super) async fn make_plan(
        &self,
        request: &PgBouncerOpsRequest,
    ) -> Result<Option<Plan>, OpsError> {
        let database = self.database(request).await?;
        let Some(database) = database.filter(|_| request.metadata.deletion_timestamp.is_none())
        else {
            let why = "the PgBouncer or the request was deleted before anything was done";
            self.refuse(request, why).await?;
            return Ok(None);
        };
        if let Err(MaterialError::Cluster(error)) = self.materials.take_stock(&database).await {
            return Err(error.into());
        }
        match self.plan(request, &database).await {
            Ok(plan) => Ok(Some(plan)),
            Err(PlanError::Cluster(error)) => Err(error.into()),
            Err(error @ (PlanError::Refused(_) | PlanError::Unworkable(_))) => {
                self.refuse(request, &chain(&error)).await?;
                Ok(None)
            }
        }
    }

    async fn hold(&self, request: &PgBouncerOpsRequest, hold: &Hold) -> Result<Next, OpsError> {
        if phase(request).is_none() {
            status::move_to(self, request, RequestPhase::Pending, None).await?;
            tracing::info!(ops.request = %crate::cluster::reference(request), ?hold, "request waits");
        }
        Ok(match hold {
            Hold::Approval => Next::Wait,
            Hold::InHand => Next::Again(IN_HAND),
            Hold::Busy { .. } | Hold::Behind { .. } | Hold::NotReady => Next::Again(WAKES_ITSELF),
        })
    }

    /// Ends a request before it has touched anything.
    async fn refuse(&self, request: &PgBouncerOpsRequest, why: &str) -> Result<Next, OpsError> {
        self.end_early(request, view::refused(why, self.now()))
            .await?;
        Ok(Next::Wait)
    }

    /// Ends a request without carrying anything out.
    pub(super) async fn end_early(
        &self,
        request: &PgBouncerOpsRequest,
        condition: Condition,
    ) -> Result<(), OpsError> {
        let own = Identity::of(request);
        self.count(request, RequestOutcome::Refused);
        tracing::info!(ops.request = %own.at, why = condition.message, "request refused");
        let news = News {
            trouble: true,
            reason: "Failed",
            message: condition.message.clone(),
        };
        status::end(self, &own, RequestPhase::Failed, &[condition]).await?;
        self.report(&own, &news).await;
        self.unhold(&own).await
    }

    fn count(&self, request: &PgBouncerOpsRequest, outcome: RequestOutcome) {
        self.metrics.request(request.spec.type_.as_str(), outcome);
    }

    /// Whether the PgBouncer is of our class.
    pub(super) fn looks_after(&self, bouncer: &PgBouncer) -> bool {
        class_of(bouncer) == self.class
    }

    pub(super) async fn database(
        &self,
        request: &PgBouncerOpsRequest,
    ) -> Result<Option<PgBouncer>, OpsError> {
        Ok(self.cluster.get(&database_of(request)).await?)
    }

    /// Puts our finalizer on a request, so that deleting it undoes it.
    async fn hold_finalizer(
        &self,
        request: &PgBouncerOpsRequest,
    ) -> Result<PgBouncerOpsRequest, OpsError> {
        let mut finalizers = request.finalizers().to_vec();
        if finalizers
            .iter()
            .any(|finalizer| finalizer == REQUEST_FINALIZER)
        {
            return Ok(request.clone());
        }
        finalizers.push(REQUEST_FINALIZER.to_owned());
        let patch = json!({ "metadata": {
            "finalizers": finalizers, "resourceVersion": request.resource_version(),
        } });
        Ok(self
            .cluster
            .patch(&crate::cluster::reference(request), &patch)
            .await?)
    }

    /// Takes our finalizer off again.
    pub(super) async fn unhold(&self, own: &Identity) -> Result<(), OpsError> {
        let at = &own.at;
        loop {
            let Some(request) = self.read_again(own).await? else {
                return Ok(());
            };
            let all = request.finalizers();
            let rest: Vec<&String> = all
                .iter()
                .filter(|name| *name != REQUEST_FINALIZER)
                .collect();
            if rest.len() == all.len() {
                return Ok(());
            }
            let patch = json!({ "metadata": {
                "finalizers": rest, "resourceVersion": request.resource_version(),
            } });
            match self.cluster.patch::<PgBouncerOpsRequest>(at, &patch).await {
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_not_found() => return Ok(()),
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// Tells people, in an event of the request.
    pub(super) async fn report(&self, own: &Identity, news: &News) {
        if let Ok(Some(request)) = self.read_again(own).await {
            let kind = if news.trouble {
                EventKind::Warning
            } else {
                EventKind::Normal
            };
            let words = (news.reason, news.message.as_str());
            self.reporter
                .report(&request, kind, words, self.now())
                .await;
        }
    }

    /// The present instant.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Returns when the daemon stops.
    pub(super) async fn stopping(&self) {
        self.cancel.cancelled().await;
    }
}

/// The PgBouncer that a request is for.
pub(super) fn database_of(request: &PgBouncerOpsRequest) -> ObjectRef {
    let namespace = request.namespace().unwrap_or_default();
    ObjectRef::new(namespace, &request.spec.database_ref.name)
}

/// Whether a request waits, by a copy of the requests of its namespace. An empty copy says nothing.
fn is_held(
    request: &PgBouncerOpsRequest,
    known: &[Arc<PgBouncerOpsRequest>],
    database: Option<&PgBouncer>,
) -> bool {
    !known.is_empty() && matches!(admit(request, known, database), Admission::Hold(_))
}
