//! Requests: created in legal order, disturbed now and then, followed to their end and checked.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::script::{Ask, Fate, Requests, Wish};
use super::watch::Invariants;
use crate::api::annotations::{CREATED_BY_LABEL, CREATED_BY_ROTATION, STRATEGY};
use crate::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase};
use crate::cli::follow;
use crate::cli::output::Progress;
use crate::cli::scene::cast::{NAMESPACE, POOLER, named};
use crate::cli::scene::proof::{self, Wanted};
use crate::cluster::{Cluster, ClusterError};
use crate::instants::Shift;
use crate::names::Fingerprint;
use crate::ops::request::Strategy;

/// For one request. A step has a minute, and a fault may have to pass first.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(240);
/// Bound of a step.
const STEP_TIMEOUT: &str = "60s";
/// For pods that a fault has hit to be seen as they should be.
const PROOF_TIMEOUT: Duration = Duration::from_secs(60);

/// How a request ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) name: String,
    pub(super) asked: String,
    pub(super) end: End,
    pub(super) took: Duration,
    pub(super) verdict: String,
}

impl Ended {
    /// One that has not ended yet.
    pub(super) const fn open(name: String, asked: String) -> Self {
        Self {
            name,
            asked,
            end: End::Never,
            took: Duration::ZERO,
            verdict: String::new(),
        }
    }
}

/// The ways to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Successful,
    /// And undone.
    Failed,
    Skipped,
    /// Deleted, and gone.
    Deleted,
    /// None of these, in any reasonable time.
    Never,
}

impl End {
    /// The end of a request that is there.
    pub(super) const fn of(phase: Option<RequestPhase>) -> Self {
        match phase {
            Some(RequestPhase::Successful) => Self::Successful,
            Some(RequestPhase::Failed) => Self::Failed,
            Some(RequestPhase::Skipped) => Self::Skipped,
            _ => Self::Never,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Successful => "Successful",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
            Self::Deleted => "Deleted",
            Self::Never => "never ended",
        }
    }
}

/// What a request is made for.
pub(super) struct Asker<'a> {
    pub(super) client: &'a kube::Client,
    pub(super) invariants: &'a Invariants,
    pub(super) progress: &'a Progress,
    count: u32,
}

/// What a failed request has to leave as it was.
#[derive(Debug, PartialEq)]
struct Before {
    spec: Value,
    leaf: Option<Fingerprint>,
    /// The daemon's own requests that had ended.
    others: BTreeSet<String>,
}

/// The requests that the daemon has made by itself.
struct Others {
    all: BTreeSet<String>,
    ended: BTreeSet<String>,
}

impl std::fmt::Display for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tls, mode) = (&self.spec["tls"], &self.spec["sslMode"]);
        write!(f, "sslMode {mode}, tls {tls}, ")?;
        match &self.leaf {
            Some(leaf) => write!(f, "leaf {leaf}"),
            None => f.write_str("no leaf"),
        }
    }
}

impl<'a> Asker<'a> {
    pub(super) const fn new(
        client: &'a kube::Client,
        invariants: &'a Invariants,
        progress: &'a Progress,
    ) -> Self {
        Self {
            client,
            invariants,
            progress,
            count: 0,
        }
    }

    /// Asks for one thing after the other until told to stop; what is under way is followed to its
    /// end.
    pub(super) async fn run(
        &mut self,
        seed: u64,
        stop: CancellationToken,
    ) -> anyhow::Result<Vec<Ended>> {
        let mut requests = Requests::new(seed);
        let mut ended = Vec::new();
        while !stop.is_cancelled() {
            let before = self.before().await?;
            let has_tls = before.leaf.is_some();
            let (wish, fate) = requests.next(has_tls);
            let first = self.create(wish, &before).await?;
            match fate {
                Fate::Joined(other) => {
                    let second = self.create(other, &before).await?;
                    let both = tokio::join!(self.follow(wish, &first), self.follow(other, &second));
                    ended.extend([both.0?, both.1?]);
                    self.check_served().await?;
                }
                Fate::Aborted(after) => {
                    sleep(after).await;
                    let patch = json!({ "metadata": { "annotations": { ABORT: "true" } } });
                    self.insist(async || {
                        let (cluster, at) = (self.cluster(), named(&first));
                        let patched = cluster.patch::<PgBouncerOpsRequest>(&at, &patch);
                        patched.await.map(drop)
                    })
                    .await?;
                    ended.push(self.see_through(wish, &first, &before).await?);
                }
                Fate::Deleted(after) => {
                    sleep(after).await;
                    self.insist(async || {
                        let (cluster, at) = (self.cluster(), named(&first));
                        match cluster.get::<PgBouncerOpsRequest>(&at).await? {
                            Some(found) => cluster.delete_read(&found).await,
                            None => Ok(()),
                        }
                    })
                    .await?;
                    ended.push(self.see_through(wish, &first, &before).await?);
                }
                Fate::Left => ended.push(self.see_through(wish, &first, &before).await?),
            }
        }
        Ok(ended)
    }

    fn cluster(&self) -> Cluster {
        Cluster::new(self.client.clone())
    }

    async fn live(&self) -> anyhow::Result<PgBouncer> {
        let live: Option<PgBouncer> = self.cluster().get(&named(POOLER)).await?;
        live.ok_or_else(|| anyhow::anyhow!("the PgBouncer is gone"))
    }

    async fn others(&self) -> anyhow::Result<Others> {
        let selector = format!("{CREATED_BY_LABEL}={CREATED_BY_ROTATION}");
        let listed = self.cluster().list(NAMESPACE, &selector).await?;
        let names =
            |requests: &[PgBouncerOpsRequest]| requests.iter().map(ResourceExt::name_any).collect();
        let all = names(&listed);
        let (ended, _): (Vec<_>, Vec<_>) = listed.into_iter().partition(is_over);
        Ok(Others {
            all,
            ended: names(&ended),
        })
    }

    /// Waits until the daemon's own requests have ended, too.
    pub(super) async fn settle(&self) -> anyhow::Result<()> {
        let deadline = Instant::now().plus(REQUEST_TIMEOUT);
        while Instant::now() < deadline {
            let others = self.others().await?;
            if others.all == others.ended {
                break;
            }
            sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    async fn before(&self) -> anyhow::Result<Before> {
        let others = self.others().await?.ended;
        let live = self.live().await?;
        let leaf = match live.spec.tls {
            Some(_) => Some(proof::published(&self.cluster()).await?),
            None => None,
        };
        Ok(Before {
            spec: serde_json::to_value(&live.spec)?,
            leaf,
            others,
        })
    }

    async fn create(&mut self, wish: Wish, before: &Before) -> anyhow::Result<String> {
        self.count += 1;
        let name = format!("{:03}-{}", self.count, wish.name());
        let request = request(wish, &name, self.count, &before.spec)?;
        self.insist(async || match self.cluster().create(&request).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        })
        .await?;
        self.progress.now(&format!("{name}: created"));
        Ok(name)
    }

    /// Tries again while the store has no room.
    async fn insist(
        &self,
        act: impl AsyncFn() -> Result<(), ClusterError>,
    ) -> Result<(), ClusterError> {
        let deadline = Instant::now().plus(REQUEST_TIMEOUT);
        while let Err(error) = act().await {
            if error.is_not_found() || Instant::now() >= deadline {
                return Err(error);
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    async fn follow(&self, wish: Wish, name: &str) -> anyhow::Result<Ended> {
        let begun = Instant::now();
        let at = named(name);
        let mut last = None;
        let followed = follow::until(
            self.client,
            &at,
            REQUEST_TIMEOUT,
            |request: Option<&PgBouncerOpsRequest>| {
                last = request.cloned();
                let phase = request.and_then(|request| request.status.as_ref()?.phase);
                request.is_none() || phase.is_some_and(RequestPhase::is_terminal)
            },
        )
        .await;
        let phase = last
            .as_ref()
            .and_then(|request| request.status.as_ref()?.phase);
        let end = match (&followed, phase) {
            (Ok(None), _) => End::Deleted,
            (Ok(_), phase) => End::of(phase),
            (Err(_), _) => End::Never,
        };
        let verdict = last.as_ref().map_or_else(String::new, follow::verdict);
        let took = begun.elapsed();
        self.progress.line(&format!(
            "{name}: {} after {:.1} s",
            end.name(),
            took.as_secs_f64()
        ));
        Ok(Ended {
            name: name.to_owned(),
            asked: wish.name(),
            end,
            took,
            verdict,
        })
    }

    /// Follows a request that was alone, and looks at what it left.
    async fn see_through(&self, wish: Wish, name: &str, before: &Before) -> anyhow::Result<Ended> {
        let ended = self.follow(wish, name).await?;
        if ended.end == End::Failed {
            let mut after = self.before().await?;
            // A rotation by the daemon itself may have come after the undo, or have been under way
            // before this request. It is there for as long as the answer matters, and changes
            // certificates, nothing else.
            if self.others().await?.all != before.others {
                after.leaf = before.leaf;
            }
            after.others.clone_from(&before.others);
            let words = || {
                let verdict = &ended.verdict;
                format!("{name} failed and left {after}, where {before} was: {verdict}")
            };
            self.invariants.check("I8", after == *before, words);
        }
        let live = self.live().await?;
        let pause = live.status.as_ref().is_some_and(|status| {
            let conditions = status.conditions.iter();
            conditions
                .clone()
                .any(|c| c.type_ == "Paused" && c.is_true())
        });
        if ended.end != End::Deleted {
            let words = || format!("{name} has ended and the PgBouncer is paused");
            self.invariants.check("I2", !pause, words);
        }
        self.check_served().await?;
        Ok(ended)
    }

    /// Every pod serves what is published, as soon as it serves at all.
    async fn check_served(&self) -> anyhow::Result<()> {
        let deadline = Instant::now().plus(PROOF_TIMEOUT);
        loop {
            let wanted = match self.live().await?.spec.tls {
                Some(_) => Wanted::Published,
                None => Wanted::Plaintext,
            };
            let proof = proof::look(&self.cluster(), wanted).await?;
            if proof.complaints.is_empty() || Instant::now() >= deadline {
                let words = || proof.complaints.join("; ");
                self.invariants
                    .check("I9", proof.complaints.is_empty(), words);
                return Ok(());
            }
            sleep(Duration::from_millis(250)).await;
        }
    }
}

fn is_over(request: &PgBouncerOpsRequest) -> bool {
    let phase = request.status.as_ref().and_then(|status| status.phase);
    phase.is_some_and(RequestPhase::is_terminal)
}

/// Annotation that asks to stop.
const ABORT: &str = "bouncert.dev/abort";

/// A manifest as users write them.
fn request(
    wish: Wish,
    name: &str,
    number: u32,
    spec: &Value,
) -> anyhow::Result<PgBouncerOpsRequest> {
    let issuer =
        |name: &str| json!({ "apiGroup": "cert-manager.io", "kind": "Issuer", "name": name });
    let present = spec.pointer("/tls/issuerRef/name").and_then(Value::as_str);
    let other = match present {
        Some("pb-issuer") => "pb-new-issuer",
        _ => "pb-issuer",
    };
    let mode = match spec.get("sslMode").and_then(Value::as_str) {
        Some("verify-full") => "require",
        Some("require") => "verify-ca",
        _ => "verify-full",
    };
    let tls = match wish.ask {
        Ask::Add => json!({ "sslMode": "verify-full", "issuerRef": issuer("pb-issuer") }),
        Ask::Rotate => json!({ "rotateCertificates": true }),
        Ask::ChangeIssuer => json!({ "issuerRef": issuer(other) }),
        Ask::Mode => json!({ "sslMode": mode }),
        Ask::Update => json!({ "certificates": [
            { "alias": "client", "subject": { "organizations": [format!("shop-{number}")] } },
        ] }),
        Ask::Remove => json!({ "remove": true }),
        Ask::Restart => Value::Null,
    };
    let kind = if wish.ask == Ask::Restart {
        "Restart"
    } else {
        "ReconfigureTLS"
    };
    let mut manifest = json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "type": kind, "databaseRef": { "name": POOLER }, "timeout": STEP_TIMEOUT,
            "apply": if number.is_multiple_of(2) { "Always" } else { "IfReady" },
        },
    });
    if !tls.is_null() {
        manifest["spec"]["tls"] = tls;
    }
    if wish.strategy != Strategy::default() {
        manifest["metadata"]["annotations"] = json!({ STRATEGY: wish.strategy.as_str() });
    }
    let request: PgBouncerOpsRequest = serde_json::from_value(manifest)?;
    debug_assert_eq!(request.name_any(), name);
    Ok(request)
}
