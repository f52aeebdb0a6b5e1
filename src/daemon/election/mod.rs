//! One leader among the daemons of a cluster, by a `coordination.k8s.io/v1` Lease.
//!
//! [`lease`](crate::lease) decides, this reads and writes. A candidate stands by until the Lease is
//! free, takes it by compare-and-swap, and renews it for as long as it leads; each term comes with a
//! [`Fence`] that closes before the Lease can be another's. Whoever stops in order releases it, so
//! that the next takes over at its next look.

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::json;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, uptime};
use crate::cluster::{Cluster, ClusterError};
use crate::fence::Fence;
use crate::instants::{Scale, Shift, in_utc};
use crate::lease::{Election, Record, Timing, Verdict};
use crate::names::ObjectRef;
use crate::retry::Retry;

/// How a daemon competes with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionOptions {
    /// The Lease.
    pub at: ObjectRef,
    /// What this daemon is called in it. No other may ever be called the same.
    pub identity: String,
    /// How long things take.
    pub timing: Timing,
}

/// Why the Lease was not read or written.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("no answer about Lease {0} in time")]
    Late(ObjectRef),
}

/// A daemon that leads, or would like to.
pub(super) struct Candidate {
    cluster: Cluster,
    clock: Clock,
    options: ElectionOptions,
    election: Election,
    /// The Lease as it was last read or written.
    kept: Option<Lease>,
    told: Option<String>,
}

impl Candidate {
    /// A candidate that writes nothing but the Lease, through `cluster`.
    pub(super) fn new(cluster: Cluster, clock: Clock, options: ElectionOptions) -> Self {
        let election = Election::new(options.identity.clone(), options.timing);
        Self {
            cluster,
            clock,
            options,
            election,
            kept: None,
            told: None,
        }
    }

    /// Stands by until elected; `None` if we are told to stop first. Fails only where the API server
    /// forbids it.
    pub(super) async fn stand(
        &mut self,
        cancel: &CancellationToken,
    ) -> Result<Option<Fence>, ClusterError> {
        loop {
            let looked = tokio::select! {
                looked = self.look_and_take() => looked,
                () = cancel.cancelled() => return Ok(None),
            };
            match looked {
                Ok(true) => {
                    tracing::info!(lease = %self.options.at, identity = self.options.identity, "leads");
                    self.told = None;
                    // From the instant that it was asked for; it may have passed already.
                    return Ok(self.election.fence_at().map(Fence::until));
                }
                Ok(false) => self.tell_holder(),
                Err(LookError::Cluster(error)) if error.retry() == Retry::Never => {
                    return Err(error);
                }
                Err(error) => self.complain(&error, "the Lease is out of reach"),
            }
            tokio::select! {
                () = sleep(self.options.timing.retry()) => {}
                () = cancel.cancelled() => return Ok(None),
            }
        }
    }

    /// Renews the Lease until it is lost. If somebody else may have it, the fence is closed by then;
    /// if it could only not be renewed, what is left of the term is for leaving things in order.
    pub(super) async fn keep(&mut self, fence: &Fence) {
        loop {
            sleep(self.options.timing.retry()).await;
            let Err(error) = self.renew().await else {
                match self.election.fence_at() {
                    Some(until) if fence.extend(until) => continue,
                    _ => return self.lose(fence, "the Lease was not renewed in time"),
                }
            };
            self.complain(&error, "the Lease was not renewed");
            match self.look().await {
                // Somebody else has written to it, and left it ours.
                Ok(Verdict::Hold) => {}
                Ok(Verdict::Acquire | Verdict::Wait { .. }) => {
                    return self.lose(fence, "the Lease is no longer ours");
                }
                Err(_) => {
                    if self.election.gives_up_at().is_none_or(|at| uptime() >= at) {
                        tracing::error!(lease = %self.options.at,
                            "leads no more: the Lease was not renewed in time");
                        return;
                    }
                }
            }
        }
    }

    /// Gives the Lease away, if it is still ours. What was done under it has to be done.
    pub(super) async fn release(&mut self, fence: &Fence) {
        if !fence.is_open() {
            return;
        }
        fence.close();
        let mut released = self.write(None).await;
        if released.is_err() && matches!(self.look().await, Ok(Verdict::Hold)) {
            // A renewal that was cut off has come through.
            released = self.write(None).await;
        }
        match released {
            Ok(()) => tracing::info!(lease = %self.options.at, "released"),
            Err(error) => self.complain(&error, "the Lease is not released; it runs out"),
        }
    }

    fn complain(&self, error: &LookError, what: &'static str) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(lease = %self.options.at, error, what, "election");
    }

    fn lose(&self, fence: &Fence, why: &'static str) {
        fence.close();
        tracing::error!(lease = %self.options.at, why, "leads no more");
    }

    fn tell_holder(&mut self) {
        let holder = self.election.holder().map(str::to_owned);
        if holder != self.told {
            tracing::info!(lease = %self.options.at, leader = holder, "stands by");
            self.told = holder;
        }
    }

    /// Looks, and takes the Lease where it is free; whether it is ours now.
    async fn look_and_take(&mut self) -> Result<bool, LookError> {
        if self.look().await? != Verdict::Acquire {
            return Ok(false);
        }
        match self.write(Some(self.options.identity.clone())).await {
            Ok(()) => Ok(true),
            // Somebody was faster.
            Err(LookError::Cluster(error)) if error.is_conflict() || error.is_already_exists() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn renew(&mut self) -> Result<(), LookError> {
        self.write(Some(self.options.identity.clone())).await
    }

    async fn look(&mut self) -> Result<Verdict, LookError> {
        let at = self.options.at.clone();
        let found = self.in_time(self.cluster.get::<Lease>(&at)).await?;
        let record = found.as_ref().map(record);
        self.kept = found;
        Ok(self.election.observe(record.as_ref(), uptime()))
    }

    /// Writes the Lease over the version that was last seen.
    async fn write(&mut self, holder: Option<String>) -> Result<(), LookError> {
        let asked = uptime();
        let lease = self.next(holder);
        let written = if self.kept.is_some() {
            self.in_time(self.cluster.replace(&lease)).await?
        } else {
            self.in_time(self.cluster.create(&lease)).await?
        };
        self.election.won(record(&written), asked, uptime());
        self.kept = Some(written);
        Ok(())
    }

    /// The Lease as `holder` writes it. It differs from the former one in any case, whatever the
    /// wall clock does: a renewal that changes nothing would be none.
    fn next(&self, holder: Option<String>) -> Lease {
        let mut lease = self.kept.clone().unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.options.at.name.clone()),
                namespace: Some(self.options.at.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let former = lease.spec.take().unwrap_or_default();
        let now = micro_time(self.clock.now());
        let renew_time = if now == former.renew_time {
            micro_time(self.clock.now().plus(time::Duration::MICROSECOND))
        } else {
            now
        };
        let same = holder.is_some() && former.holder_identity == holder;
        let transitions = former.lease_transitions.unwrap_or(0);
        let lease_s = if holder.is_some() {
            self.options.timing.lease().as_secs()
        } else {
            1
        };
        lease.spec = Some(LeaseSpec {
            acquire_time: if same {
                former.acquire_time
            } else {
                renew_time.clone()
            },
            // client-go writes an empty name for nobody.
            lease_transitions: Some(match &former.holder_identity {
                Some(_) if !same && holder.is_some() => transitions.saturating_add(1),
                _ => transitions,
            }),
            holder_identity: Some(holder.unwrap_or_default()),
            lease_duration_seconds: i32::try_from(lease_s).ok(),
            renew_time,
            ..former
        });
        lease
    }

    /// One call, bounded so that a second one can follow before we would have to give up.
    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, ClusterError>>,
    ) -> Result<T, LookError> {
        match timeout(self.options.timing.renew().part(2), call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(LookError::Late(self.options.at.clone())),
        }
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok());
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        lease: seconds.filter(|s| *s > 0).map(Duration::from_secs),
        renewed: json!([spec.renew_time, spec.acquire_time]).to_string(),
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}

fn micro_time(at: OffsetDateTime) -> Option<MicroTime> {
    let form =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    let text = in_utc(at).format(form).ok()?;
    serde_json::from_value(json!(text)).ok()
}
