//! What requests are carried out with: cluster, key material and time, who has which PgBouncer in hand,
//! and where it is told and counted.

use kube::ResourceExt;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::error::{OpsError, PlanError};
use super::former::FormerJournals;
use super::hands::{Hands, Identity};
use super::metrics::{OpsMetrics, RequestOutcome};
use super::plan::Plan;
use super::planner::Planner;
use super::view::News;
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::WorkloadKind;
use crate::causes::chain;
use crate::clock::Clock;
use crate::cluster::{Cluster, EventKind, Reporter};
use crate::material::Materials;
use crate::names::ObjectRef;
use crate::surroundings::{self, References, SurroundingsError};

/// What requests are carried out with.
pub(super) struct Context {
    pub(super) cluster: Cluster,
    pub(super) materials: Materials,
    pub(super) clock: Clock,
    /// What makes pods here.
    pub(super) kind: WorkloadKind,
    /// The namespace of plans and journals.
    pub(super) home: String,
    /// What becomes of journals that an earlier version has left.
    pub(super) former: FormerJournals,
    /// Which references into other namespaces are followed.
    pub(super) references: References,
    pub(super) metrics: OpsMetrics,
    pub(super) reporter: Reporter,
    /// Cancelled when the daemon stops.
    pub(super) cancel: CancellationToken,
    pub(super) hands: Hands,
}

impl Context {
    /// The present instant.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Reads a request again; `None` if it is gone, whatever has its name now.
    pub(super) async fn read_again(
        &self,
        own: &Identity,
    ) -> Result<Option<PgBouncerOpsRequest>, OpsError> {
        let found: Option<PgBouncerOpsRequest> = self.cluster.get(&own.at).await?;
        Ok(found.filter(|found| found.uid().as_deref() == Some(&own.uid)))
    }

    /// Reads the PgBouncer that a request is for.
    pub(super) async fn database(
        &self,
        request: &PgBouncerOpsRequest,
    ) -> Result<Option<PgBouncer>, OpsError> {
        Ok(self.cluster.get(&database_of(request)).await?)
    }

    /// Makes the plan of `request`.
    pub(super) async fn plan(
        &self,
        request: &PgBouncerOpsRequest,
        database: &PgBouncer,
    ) -> Result<Plan, PlanError> {
        self.check_references(database).await?;
        self.planner().plan(request, database).await
    }

    /// What plans are made with.
    pub(super) const fn planner(&self) -> Planner<'_> {
        Planner {
            cluster: &self.cluster,
            materials: &self.materials,
            kind: self.kind,
        }
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

    /// Reports an event of a request.
    pub(super) async fn report(&self, request: &PgBouncerOpsRequest, news: &News) {
        let kind = if news.trouble {
            EventKind::Warning
        } else {
            EventKind::Normal
        };
        let words = (news.reason.as_str(), news.message.as_str());
        let now = self.now();
        self.reporter.report(request, kind, words, now).await;
    }

    /// Counts what became of a request.
    pub(super) fn count(&self, request: &PgBouncerOpsRequest, outcome: RequestOutcome) {
        self.metrics.request(request.spec.type_.as_str(), outcome);
    }
}

/// The PgBouncer that a request is for.
pub(super) fn database_of(request: &PgBouncerOpsRequest) -> ObjectRef {
    let namespace = request.namespace().unwrap_or_default();
    ObjectRef::new(namespace, &request.spec.database_ref.name)
}
