//! Putting a PgBouncer back that a request has left paused or with pods out of service.

use std::time::Duration;

use kube::ResourceExt;
use tokio::time::timeout;

use super::admit::phase;
use super::context::{Context, database_of};
use super::error::OpsError;
use super::plan::Subject;
use super::request::TlsState;
use super::work::lock::{Held, held};
use super::work::{Bench, Ground, Maker, Waiting, drain};
use crate::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase};
use crate::causes::chain;
use crate::cluster::EventKind;
use crate::names::ObjectRef;

/// Bound of putting one PgBouncer's pods back.
const PUT_BACK: Duration = Duration::from_secs(30);

/// Puts a PgBouncer back, unless a request has it in hand, or owes that.
pub(super) async fn put_back(context: &Context, at: &ObjectRef) -> Result<(), OpsError> {
    // No request touches it meanwhile, so none in progress is overlooked.
    let Some(_in_hand) = context.hands.take(at, "") else {
        return Ok(());
    };
    put_back_for(context, at, "").await
}

/// Puts back the PgBouncer that `request` has in hand and has not touched itself, or touches no more.
pub(super) async fn put_back_in_hand(
    context: &Context,
    request: &PgBouncerOpsRequest,
) -> Result<(), OpsError> {
    let uid = request.uid().unwrap_or_default();
    put_back_for(context, &database_of(request), &uid).await
}

/// Puts a PgBouncer back, unless another request than the one with that UID owes it.
async fn put_back_for(context: &Context, at: &ObjectRef, own: &str) -> Result<(), OpsError> {
    let cluster = &context.cluster;
    let requests: Vec<PgBouncerOpsRequest> = cluster.list(&at.namespace, "").await?;
    let owed = requests.iter().any(|request| {
        request.spec.database_ref.name == at.name
            && request.uid().as_deref() != Some(own)
            && phase(request) == Some(RequestPhase::Progressing)
    });
    let Some(bouncer) = cluster.get::<PgBouncer>(at).await?.filter(|_| !owed) else {
        return Ok(());
    };
    let uid = match held(&bouncer) {
        Held::Request { uid } => uid,
        Held::Nobody => String::new(),
        Held::Other => return Ok(()),
    };
    let ground = Ground {
        cluster,
        kind: context.kind,
        namespace: &at.namespace,
        database: &Subject::of(&bouncer),
        secrets: Bench::secrets_of(&at.name, &[&TlsState::of(&bouncer.spec)]),
        waiting: &Waiting::default(),
        maker: &Maker::default(),
    };
    let putting = Box::pin(drain::put_all_back(&ground, &uid));
    let why = match timeout(PUT_BACK, putting).await {
        Ok(Ok(())) => {
            tracing::warn!(pgbouncer = %at, "was left paused or out of service; put back");
            let message = "a request that is gone had left it paused or pods of it out of \
                           service; it is resumed and they are back";
            let words = ("PutBack", message);
            let now = context.now();
            let reporter = &context.reporter;
            reporter
                .report(&bouncer, EventKind::Warning, words, now)
                .await;
            return Ok(());
        }
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("not done within {} s", PUT_BACK.as_secs()),
    };
    tracing::warn!(pgbouncer = %at, why, "left paused or out of service");
    Ok(())
}
