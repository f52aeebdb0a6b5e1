//! What is kept of a request that has begun, and what becomes of a request whose plan and journal are
//! not proved to be its own, or cannot be read.

use kube::ResourceExt;

use super::context::Context;
use super::error::{LedgerError, OpsError, PlanError};
use super::former::{FormerJournals, carry_over};
use super::journal::Journal;
use super::ledger::Ledger;
use super::putback::put_back_in_hand;
use super::status;
use super::view::{self, News, Reason, Topic};
use super::work::lock::{Held, held};
use crate::api::common::{Condition, ConditionStatus, find_condition};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::causes::chain;
use crate::cluster::reference;
use crate::material::MaterialError;

/// What is kept of a request that is Progressing; a plan is made if nothing was begun. `None` if the
/// request ended here: nothing that is not proved to be its own is carried on with.
pub(super) async fn take_up(
    context: &Context,
    request: &PgBouncerOpsRequest,
) -> Result<Option<Ledger>, OpsError> {
    let database = context.database(request).await?;
    let kept = Ledger::load(&context.cluster, &context.home, request).await;
    let lost = match kept {
        Ok(Some(ledger)) => match &database {
            Some(live) if live.uid().as_deref() != Some(&ledger.plan.database.uid) => {
                "the PgBouncer was deleted and created again since the request began".to_owned()
            }
            _ => return Ok(Some(ledger)),
        },
        Ok(None) => match &database {
            Some(live) if is_held_by(live, request) => {
                let carried = match context.former {
                    FormerJournals::CarriedOver => carry_over(context, request, live).await?,
                    FormerJournals::Left => None,
                };
                if carried.is_some() {
                    return Ok(carried);
                }
                format!(
                    "the request has paused the PgBouncer, and no journal that is proved to be \
                     its own is in namespace {}: it was deleted, or an earlier version left it \
                     elsewhere",
                    context.home
                )
            }
            _ => return begin(context, request, database).await,
        },
        Err(OpsError::ReadLedger {
            source: source @ LedgerError::Mismatch { .. },
            ..
        }) => chain(&source),
        Err(error) => {
            if let OpsError::ReadLedger { source, .. } = &error {
                leave_alone(context, request, source).await?;
            }
            return Err(error);
        }
    };
    give_up(context, request, &lost).await?;
    Ok(None)
}

/// Makes and keeps the plan of a request that has just begun; `None` if it ended here.
async fn begin(
    context: &Context,
    request: &PgBouncerOpsRequest,
    database: Option<PgBouncer>,
) -> Result<Option<Ledger>, OpsError> {
    if database.as_ref().is_some_and(is_held_by_a_request) {
        // That one is gone, or this one had not begun.
        put_back_in_hand(context, request).await?;
    }
    let is_deleted = request.metadata.deletion_timestamp.is_some();
    let Some(database) = database.filter(|_| !is_deleted) else {
        let why = "the PgBouncer or the request was deleted before anything was done";
        status::refuse(context, request, why).await?;
        return Ok(None);
    };
    if let Err(MaterialError::Cluster(error)) = context.materials.take_stock(&database).await {
        return Err(error.into());
    }
    let plan = match context.plan(request, &database).await {
        Ok(plan) => plan,
        Err(PlanError::Cluster(error)) => return Err(error.into()),
        Err(error @ (PlanError::Refused(_) | PlanError::Unworkable(_))) => {
            status::refuse(context, request, &chain(&error)).await?;
            return Ok(None);
        }
    };
    let (cluster, home) = (&context.cluster, &context.home);
    let journal = Journal::default();
    Ok(Some(
        Ledger::open(cluster, home, request, plan, journal).await?,
    ))
}

/// Ends a request whose plan and journal are not proved to be its own, and puts its PgBouncer back
/// into service.
async fn give_up(
    context: &Context,
    request: &PgBouncerOpsRequest,
    why: &str,
) -> Result<(), OpsError> {
    let condition = view::given_up(why, context.now());
    status::end_early(context, request, condition).await?;
    put_back_in_hand(context, request).await
}

/// Says that a request is not touched, because what is kept of it cannot be read. Nothing is done
/// by guess; a person, or another daemon, has to look.
async fn leave_alone(
    context: &Context,
    request: &PgBouncerOpsRequest,
    error: &LedgerError,
) -> Result<(), OpsError> {
    let running = Topic::Running.as_str();
    let (reason, message) = left_alone(error);
    let is_told = request.status.as_ref().is_some_and(|status| {
        let told = find_condition(&status.conditions, running);
        told.is_some_and(|told| told.message == message)
    });
    if is_told {
        return Ok(());
    }
    tracing::error!(ops.request = %reference(request), reason = reason.as_str(), message,
        "left alone");
    let condition = Condition::new(
        running,
        ConditionStatus::False,
        reason.as_str(),
        message.clone(),
        context.now(),
    );
    status::write(context, request, &[condition], None).await?;
    let news = News {
        trouble: true,
        reason,
        message,
    };
    context.report(request, &news).await;
    Ok(())
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
fn left_alone(error: &LedgerError) -> (Reason, String) {
    let cause = chain(error);
    match error {
        LedgerError::Newer(_) => (
            Reason::JournalIsNewer,
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
            Reason::Stuck,
            format!(
                "{cause}: what is kept of this request was left by another version of Bouncert, or \
                 damaged; run that version, or remove condition Paused from the PgBouncer and \
                 delete this request"
            ),
        ),
    }
}
