//! What nobody carries on any more is put back: when the daemon begins to lead, and now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ops::Operator;

/// How often it is looked for. While the daemon runs only a person makes an orphan, by removing a
/// finalizer; a death in the middle of something is followed by a start, which looks at once.
const EVERY: Duration = Duration::from_secs(300);

/// Runs until it is told to stop; over all `namespaces`, or over all there are.
pub async fn run(operator: Arc<Operator>, namespaces: Vec<String>, cancel: CancellationToken) {
    loop {
        // Poolers that take their time do not keep journals from being swept.
        let work = futures::future::join(
            operator.put_orphans_back(&namespaces),
            operator.sweep_journals(&namespaces),
        );
        let (tidied, swept) = tokio::select! {
            done = Box::pin(work) => done,
            () = cancel.cancelled() => return,
        };
        if let Err(error) = tidied {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "not looked whether a pooler was left behind"
            );
        }
        if let Err(error) = swept {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "journals of requests that are gone not deleted"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = cancel.cancelled() => return,
        }
    }
}
