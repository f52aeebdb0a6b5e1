//! The ops manager: brings a request from its creation to its end.
//!
//! [`Operator::reconcile`] takes nothing but a name. What there is to do is read from the request
//! and from its journal, so it makes no difference whether an event, a timer or a restart woke it.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::admit::{Admission, Hold, Place, Queue, admit, phase, skipped, waits_for};
use super::context::{Context, database_of};
use super::error::{OpsError, PlanError};
use super::executor::{Execution, Left};
use super::former::FormerJournals;
use super::hands::{Hands, Identity};
use super::ledger::{self, Ledger};
use super::live::Live;
use super::locks::Locks;
use super::metrics::{OpsMetrics, RequestOutcome};
use super::plan::Plan;
use super::plan::judge::read;
use super::{begun, status, view};
use crate::api::annotations::class_of;
use crate::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase};
use crate::blueprint::WorkloadKind;
use crate::causes::chain;
use crate::clock::Clock;
use crate::cluster::{Cluster, Reporter, reference};
use crate::material::Materials;
use crate::names::ObjectRef;
use crate::panics::InternalErrors;
use crate::surroundings::References;

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
    pub(super) context: Context,
    /// Held from listing the requests of a namespace until one has begun.
    admission: Locks,
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
            context: Context {
                cluster,
                materials,
                clock,
                kind,
                home,
                former,
                references,
                metrics,
                reporter,
                cancel,
                hands: Hands::default(),
            },
            admission: Locks::default(),
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

    /// Carries a request on as far as it goes. `known` are the requests of its PgBouncer, as a copy has
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
        // The copy is asked once.
        let place = waits.map(|own| Queue::of_same(own, known).place(own));
        if matches!(place, Some(Place::Behind(_))) {
            return Ok(Next::Again(WAKES_ITSELF));
        }
        let context = &self.context;
        let Some(request) = context.cluster.get::<PgBouncerOpsRequest>(at).await? else {
            return Ok(Next::Wait);
        };
        let database = context.database(&request).await?;
        if database.as_ref().map_or("", class_of) != self.class {
            return Ok(Next::Wait);
        }
        match phase(&request) {
            Some(phase) if phase.is_terminal() => {
                status::put_away(context, &request).await?;
                Ok(Next::Wait)
            }
            Some(RequestPhase::Progressing) => self.carry_on(request).await,
            _ if request.metadata.deletion_timestamp.is_some() => {
                // It has not begun, so there is nothing to undo.
                status::unhold(context, &request).await?;
                Ok(Next::Wait)
            }
            // It has said that it waits, and by the copy only for its PgBouncer: nothing is listed.
            Some(RequestPhase::Pending)
                if place == Some(Place::First) && waits_for(&request, database.as_ref()) =>
            {
                Ok(Next::Again(WAKES_ITSELF))
            }
            Some(RequestPhase::Pending) if context.hands.is_taken(&database_of(&request)) => {
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
        self.context.plan(request, database).await
    }

    /// Begins a request if it may, and then carries it on.
    async fn admit(&self, at: &ObjectRef) -> Result<Next, OpsError> {
        let context = &self.context;
        let begun = {
            // One list of a namespace at a time, whatever its requests name: a list holds all of them.
            let namespace = ObjectRef::new(&at.namespace, "");
            let _one_at_a_time = self.admission.lock(&namespace).await;
            // Read again: who was in here before may have changed it.
            let all: Vec<PgBouncerOpsRequest> = context.cluster.list(&at.namespace, "").await?;
            let Some(request) = all.iter().find(|request| request.name_any() == at.name) else {
                return Ok(Next::Wait);
            };
            let database = context.database(request).await?;
            match admit(request, &all, database.as_ref()) {
                Admission::Begin if context.hands.is_taken(&database_of(request)) => {
                    return self.hold(request, &Hold::InHand).await;
                }
                Admission::Begin => self.begin(request, database.as_ref()).await?,
                Admission::Hold(hold) => return self.hold(request, &hold).await,
                Admission::Skip { by, created } => {
                    let condition = skipped(request, &by, created, context.now());
                    let skipped = RequestPhase::Skipped;
                    status::move_to(context, request, skipped, Some(condition)).await?;
                    context.count(request, RequestOutcome::Skipped);
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
            Some(request) => self.carry_on(request).await,
            None => Ok(Next::Wait),
        }
    }

    /// Moves a request to Progressing, unless it has no meaning.
    async fn begin(
        &self,
        request: &PgBouncerOpsRequest,
        database: Option<&PgBouncer>,
    ) -> Result<Option<PgBouncerOpsRequest>, OpsError> {
        let context = &self.context;
        if let Some(database) = database
            && let Err(error) = read(request, database)
        {
            self.refuse(request, &chain(&error)).await?;
            return Ok(None);
        }
        let at = reference(request);
        let held = status::hold(context, request).await?;
        let condition = view::begun(request.spec.type_, context.now());
        let progressing = RequestPhase::Progressing;
        let begun = status::move_to(context, &held, progressing, Some(condition)).await?;
        context.count(request, RequestOutcome::Begun);
        tracing::info!(ops.request = %at, "request begun");
        context.report(&begun, &view::starting(&at)).await;
        Ok(Some(begun))
    }

    /// Carries on a request that is Progressing, as it was just read.
    async fn carry_on(&self, request: PgBouncerOpsRequest) -> Result<Next, OpsError> {
        let (context, own) = (&self.context, Identity::of(&request));
        let Some(hand) = context.hands.take(&database_of(&request), &own.uid) else {
            return Ok(Next::Again(IN_HAND));
        };
        let has_ended = match begun::take_up(context, &request).await? {
            Some(Ledger {
                kept,
                plan,
                journal,
            }) => {
                let world = Live::new(context, request, kept);
                let left = Box::pin(Execution::new(world, plan, journal).run()).await?;
                matches!(left, Left::Ended(_))
            }
            None => true,
        };
        drop(hand);
        // While it ran its journal was kept, even if it was gone.
        if has_ended && context.read_again(&own).await?.is_none() {
            ledger::forget(&context.cluster, &context.home, &own.uid).await?;
        }
        Ok(Next::Wait)
    }

    async fn hold(&self, request: &PgBouncerOpsRequest, hold: &Hold) -> Result<Next, OpsError> {
        if phase(request).is_none() {
            status::move_to(&self.context, request, RequestPhase::Pending, None).await?;
            tracing::info!(ops.request = %reference(request), ?hold, "request waits");
        }
        Ok(match hold {
            Hold::Approval => Next::Wait,
            Hold::InHand => Next::Again(IN_HAND),
            Hold::Busy { .. } | Hold::Behind { .. } | Hold::NotReady => Next::Again(WAKES_ITSELF),
        })
    }

    async fn refuse(&self, request: &PgBouncerOpsRequest, why: &str) -> Result<Next, OpsError> {
        status::refuse(&self.context, request, why).await?;
        Ok(Next::Wait)
    }

    /// Whether the PgBouncer is of our class.
    pub(super) fn looks_after(&self, bouncer: &PgBouncer) -> bool {
        class_of(bouncer) == self.class
    }
}
