//! Every certificate: what is wanted, what is stored, what each pod serves.
//!
//! ```text
//!   watches ──► facts ──► mirror ──┐
//!   (Secrets, pods, …)             ├──► state ──► view ──► metrics, /state.json, `certs`
//!   round ──► look (a handshake) ──┘
//! ```
//!
//! It observes and changes nothing. Watches tell what is wanted and stored; of each object only
//! facts are kept (names, numbers, times), and no PEM. What is served is seen in handshakes, on a
//! budget ([`InventoryOptions::looks_per_second`]): every pod about every twenty seconds, so that a
//! pod that serves something else than is stored is known within a minute.
//!
//! Assumption: a PgBouncer's pods carry its labels, as the provisioner gives them.

mod certmanager;
mod facts;
mod look;
mod metrics;
mod once;
mod round;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures::StreamExt;
use prometheus_client::registry::Registry;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::facts::Replica;
use self::metrics::{FleetCollector, LookMetrics};
use self::round::Round;
use self::state::{Seen, Sighting, State};
use self::watch::Told;
use crate::clock::Clock;
use crate::cluster::{Change, Cluster};
use crate::instants::Shift;
use crate::names::{Area, ObjectRef};
use crate::panics::InternalErrors;

pub use self::facts::Link;
pub use self::once::{Look, look_once};
pub use self::state::{Certificate, FailureView, PodView, Served};

/// Handshakes per second, unless asked otherwise: a thousand pods in twenty seconds, for less than
/// a tenth of one core.
pub const LOOKS_PER_SECOND_DEFAULT: u32 = 50;
/// Handshakes at the same time; pods that do not answer hold one for its whole bound.
const LOOKS_MAX: usize = 64;
/// Until a pod that showed nothing is looked at again.
const SOON: Duration = Duration::from_secs(5);
/// How often it is asked which pod is due.
const TICK: Duration = Duration::from_millis(50);
/// What panics are counted under.
const PART: &str = "inventory";

/// A pod, where it was, and what was seen there.
type Looked = (ObjectRef, Replica, Sighting);

/// How the inventory works.
#[derive(Clone, Debug)]
pub struct InventoryOptions {
    /// Handshakes per second at the most.
    pub looks_per_second: u32,
    /// Whether cert-manager's metrics are served as well.
    pub cert_manager_metrics: CertManagerMetrics,
}

/// Whether the metrics that cert-manager has for its certificates are served for ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertManagerMetrics {
    /// They are, for dashboards and alerts made for them.
    Served,
    /// They are not.
    #[default]
    Left,
}

/// What the inventory is about.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Namespaces that are read; all if empty.
    pub namespaces: Vec<String>,
    /// The `bouncert.dev/class` of the PgBouncers; empty for those without one.
    pub class: String,
}

impl Default for InventoryOptions {
    fn default() -> Self {
        Self {
            looks_per_second: LOOKS_PER_SECOND_DEFAULT,
            cert_manager_metrics: CertManagerMetrics::default(),
        }
    }
}

/// The inventory. A clone is the same.
#[derive(Clone, Debug)]
pub struct Inventory {
    state: Arc<RwLock<State>>,
    clock: Clock,
    options: InventoryOptions,
    looks: LookMetrics,
    errors: InternalErrors,
}

/// What `/state.json` shows.
#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    now: OffsetDateTime,
    /// Whether everything has been listed; before that, what is missing may only be unknown.
    complete: bool,
    poolers: Vec<PoolerView<'a>>,
    certificates: Vec<Certificate<'a>>,
}

/// A PgBouncer in `/state.json`.
#[derive(Serialize)]
struct PoolerView<'a> {
    namespace: &'a str,
    name: &'a str,
    ready: bool,
    tls: bool,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    paused_since: Option<OffsetDateTime>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    request_since: Option<OffsetDateTime>,
    undo_failed: u32,
}

impl Inventory {
    /// An inventory that knows nothing yet.
    pub fn new(clock: Clock, options: InventoryOptions) -> Self {
        Self {
            state: Arc::default(),
            clock,
            options,
            looks: LookMetrics::default(),
            errors: InternalErrors::default(),
        }
    }

    /// Counts panics in `errors`.
    #[must_use]
    pub fn counting(self, errors: InternalErrors) -> Self {
        Self { errors, ..self }
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.looks.register(registry);
        registry.register_collector(Box::new(FleetCollector(self.clone())));
    }

    /// Keeps the inventory until it is told to stop.
    pub async fn run(self, cluster: Cluster, reach: Reach, cancel: CancellationToken) {
        *self.write() = State::of(&reach);
        let mut told = watch::all(&cluster, &Area::covering(&reach.namespaces), &self.errors);
        let mut round = Round::new(self.options.looks_per_second);
        let mut looks: JoinSet<Looked> = JoinSet::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => {
                    // Whoever does not look any more does not know.
                    *self.write() = State::default();
                    return;
                }
                change = told.next() => match change {
                    Some(change) => {
                        let followed = || self.follow(change, &mut round, began.elapsed());
                        // What cannot be followed is as if it had not been told.
                        let _caught = self.errors.guard(PART, followed);
                    }
                    // The watches never end.
                    None => return,
                },
                Some(looked) = looks.join_next() => match looked {
                    Ok(looked) => self.saw(looked, &mut round, began.elapsed()),
                    // A look that panicked: its pod is looked at again in its turn.
                    Err(_) => self.errors.count_one(PART),
                },
                _ = tick.tick() => self.begin_looks(&mut round, &mut looks, began.elapsed()),
            }
        }
    }

    /// What the inventory believes, as JSON.
    pub fn to_json(&self) -> String {
        let state = self.read();
        let view = state.view();
        let poolers = view.poolers().map(|(at, pooler)| {
            let past = view.past(at);
            PoolerView {
                namespace: &at.namespace,
                name: &at.name,
                ready: pooler.is_ready,
                tls: pooler.serves_tls,
                paused_since: pooler.paused_since,
                request_since: past.progressing_since,
                undo_failed: past.undo_failed,
            }
        });
        let document = Document {
            version: env!("CARGO_PKG_VERSION"),
            now: self.clock.now(),
            complete: state.is_complete(),
            poolers: poolers.collect(),
            certificates: view.certificates().collect(),
        };
        // Strings, numbers and times: there is nothing in it that JSON cannot say.
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// The PgBouncers of which a pod was last seen to serve something else than is stored.
    pub fn astray(&self) -> Vec<ObjectRef> {
        let state = self.read();
        state.astray()
    }

    fn follow(&self, told: Told, round: &mut Round, now: Duration) {
        let mut state = self.write();
        match told {
            Told::Pooler(change) => state.poolers.follow(change),
            Told::Secret(change) => state.secrets.follow(change),
            Told::Request(change) => state.requests.follow(change),
            Told::Replica(change) => {
                let list_ends = matches!(change, Change::ListEnds(_));
                match &change {
                    Change::Is(at, Some(fresh)) if state.replicas.get(at) != Some(fresh) => {
                        // Another pod of the same name, or one that has just got its address.
                        state.sightings.remove(at);
                        round.want(at, now);
                    }
                    Change::Is(at, None) | Change::Gone(at) => {
                        state.sightings.remove(at);
                        round.forget(at);
                    }
                    Change::Is(_, Some(_)) | Change::ListBegins(_) | Change::ListEnds(_) => {}
                }
                state.replicas.follow(change);
                if list_ends {
                    state.forget_sightings();
                }
            }
        }
    }

    fn begin_looks(&self, round: &mut Round, looks: &mut JoinSet<Looked>, now: Duration) {
        while looks.len() < LOOKS_MAX
            && let Some(pod) = round.next(now)
        {
            let (replica, port) = {
                let state = self.read();
                let Some(replica) = state.replicas.get(&pod) else {
                    round.forget(&pod);
                    continue;
                };
                let pooler = state.pooler(&replica.pooler);
                let Some(pooler) = pooler.filter(|pooler| pooler.serves_tls) else {
                    continue;
                };
                (replica.clone(), pooler.port)
            };
            let clock = self.clock.clone();
            looks.spawn(async move {
                let seen = look::look(replica.address(port)).await;
                let at = clock.now();
                (pod, replica, Sighting { at, seen })
            });
        }
    }

    fn saw(&self, (pod, replica, sighting): Looked, round: &mut Round, now: Duration) {
        self.looks.count(&sighting.seen);
        let mut state = self.write();
        // Meanwhile another pod may bear the name.
        if state.replicas.get(&pod) == Some(&replica) {
            if matches!(sighting.seen, Seen::Nothing(_)) {
                // A pod that has just been started, most often.
                round.want(&pod, now.plus(SOON));
            }
            state.sightings.insert(pod, sighting);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
