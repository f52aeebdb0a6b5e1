//! What is kept of a request that has begun, and what becomes of a request whose plan and journal are
//! not proved to be its own, or cannot be read.

use kube::ResourceExt;

use super::error::{LedgerError, OpsError};
use super::former::FormerJournals;
use super::hands::Identity;
use super::journal::Journal;
use super::ledger::Ledger;
use super::operator::{Operator, database_of};
use super::status;
use super::steps::{Held, held};
use super::view::{self, News};
use crate::api::common::{Condition, ConditionStatus, find_condition};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::causes::chain;

impl Operator {
    /// What is kept of a request that is Progressing; a plan is made if nothing was begun. `None` if the
    /// request ended here: nothing that is not proved to be its own is carried on with.
    pub(super) async fn ledger(
        &self,
        request: &PgBouncerOpsRequest,
    ) -> Result<Option<Ledger>, OpsError> {
        let database = self.database(request).await?;
        let kept = Ledger::load(&self.cluster, &self.home, request).await;
        let lost = match kept {
            Ok(Some(ledger)) => match &database {
                Some(live) if live.uid().as_deref() != Some(&ledger.plan.database.uid) => {
                    "the PgBouncer was deleted and created again since the request began".to_owned()
                }
                _ => return Ok(Some(ledger)),
            },
            Ok(None) => match &database {
                Some(live) if is_held_by(live, request) => {
                    let carried = match self.former {
                        FormerJournals::CarriedOver => self.carry_over(request, live).await?,
                        FormerJournals::Left => None,
                    };
                    if carried.is_some() {
                        return Ok(carried);
                    }
                    format!(
                        "the request has paused the PgBouncer, and no journal that is proved to be \
                         its own is in namespace {}: it was deleted, or an earlier version left it \
                         elsewhere",
                        self.home
                    )
                }
                live => {
                    if live.as_ref().is_some_and(is_held_by_a_request) {
                        // That one is gone, or this one had not begun.
                        self.put_back_in_hand(&database_of(request), request)
                            .await?;
                    }
                    let Some(plan) = self.make_plan(request).await? else {
                        return Ok(None);
                    };
                    let begun = (plan, Journal::default());
                    return Ledger::open(&self.cluster, &self.home, request, begun)
                        .await
                        .map(Some);
                }
            },
            Err(OpsError::ReadLedger {
                source: source @ LedgerError::Mismatch { .. },
                ..
            }) => chain(&source),
            Err(error) => {
                if let OpsError::ReadLedger { source, .. } = &error {
                    self.leave_alone(request, source).await?;
                }
                return Err(error);
            }
        };
        self.give_up(request, &lost).await?;
        Ok(None)
    }

    /// Ends a request whose plan and journal are not proved to be its own, and puts its PgBouncer back
    /// into service.
    async fn give_up(&self, request: &PgBouncerOpsRequest, why: &str) -> Result<(), OpsError> {
        let condition = view::given_up(why, self.now());
        self.end_early(request, condition).await?;
        self.put_back_in_hand(&database_of(request), request).await
    }

    /// Says that a request is not touched, because what is kept of it cannot be read. Nothing is done
    /// by guess; a person, or another daemon, has to look.
    async fn leave_alone(
        &self,
        request: &PgBouncerOpsRequest,
        error: &LedgerError,
    ) -> Result<(), OpsError> {
        let own = Identity::of(request);
        let (reason, message) = left_alone(error);
        let told = request.status.as_ref().is_some_and(|status| {
            let told = find_condition(&status.conditions, status::WAITS);
            told.is_some_and(|told| told.message == message)
        });
        if told {
            return Ok(());
        }
        tracing::error!(ops.request = %own.at, reason, message, "left alone");
        let condition = Condition::new(
            status::WAITS,
            ConditionStatus::False,
            reason,
            message.clone(),
            self.now(),
        );
        status::tell(self, &own, &[condition]).await?;
        let news = News {
            trouble: true,
            reason,
            message,
        };
        self.report(&own, &news).await;
        Ok(())
    }
}

/// Whether the PgBouncer is paused in the name of that request.
fn is_held_by(database: &PgBouncer, request: &PgBouncerOpsRequest) -> bool {
    matches!(held(database), Held::Request { uid } if Some(&uid) == request.uid().as_ref())
}

/// Whether the PgBouncer is paused in the name of any request.
fn is_held_by_a_request(database: &PgBouncer) -> bool {
    matches!(held(database), Held::Request { .. })
}

/// Why a request is left alone, in a word and in a sentence that says what to do.
fn left_alone(error: &LedgerError) -> (&'static str, String) {
    let cause = chain(error);
    match error {
        LedgerError::Newer(_) => (
            "JournalIsNewer",
            format!(
                "{cause}: a newer version of Bouncert has begun this request; run that version \
                 again. Until then nothing is touched"
            ),
        ),
        LedgerError::Older(_)
        | LedgerError::NoKey(_)
        | LedgerError::Json { .. }
        | LedgerError::NoStep(_)
        | LedgerError::Mismatch { .. }
        | LedgerError::Events(_) => (
            "Stuck",
            format!(
                "{cause}: what is kept of this request was left by another version of Bouncert, or \
                 damaged; run that version, or remove condition Paused from the PgBouncer and \
                 delete this request"
            ),
        ),
    }
}
