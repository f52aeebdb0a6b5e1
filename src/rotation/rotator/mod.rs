//! Acting on what is decided: notes come in, requests, conditions and events go out.
//!
//! Nothing is read here to decide: the index is fed by watches. What is read are pods, and only those
//! of PgBouncers of which there is reason to believe that they serve something else than is stored.

mod notes;
mod repair;
mod suspects;
mod telling;
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use serde_json::json;
use time::{Duration, OffsetDateTime};

pub use self::notes::{Note, Object};
pub use self::telling::{Counts, Snapshot, Troubles};
use super::decide::Verdict;
use super::drift::Drift;
use super::facts::Standing;
use super::fleet::{Fleet, Start};
use super::index::{Index, Kind, Known};
use super::limits::{FAILED_KEPT_DEFAULT, Limits, SUCCESSFUL_KEPT_DEFAULT};
use super::window::Windows;
use super::{request, tell};
use crate::api::common::has_internal_error;
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::clock::Clock;
use crate::cluster::{Cluster, EventKind, Reporter};
use crate::instants::Shift;
use crate::material::Materials;
use crate::names::{Area, ObjectRef};
use crate::panics::{InternalErrors, Panicked};

/// Source of rotation's events.
const COMPONENT: &str = "bouncert-rotation";
/// What panics are counted under, and told of.
pub const PART: &str = "rotation";
/// How long a PgBouncer is left alone after a panic that came of it; a change of it ends that.
const GIVEN_UP_FOR: Duration = Duration::minutes(5);

/// How rotation works.
#[derive(Clone, Debug)]
pub struct RotationOptions {
    /// How much may happen at once.
    pub limits: Limits,
    /// When rotations may begin, where neither PgBouncer nor Namespace says so; any time if absent.
    pub window: Option<Windows>,
    /// Successful requests of a PgBouncer that are kept.
    pub successful_kept: usize,
    /// Other finished requests of a PgBouncer that are kept; at least one.
    pub failed_kept: usize,
    /// Namespace of the Secrets that ClusterIssuers name.
    pub cluster_resource_namespace: String,
    /// Only PgBouncers of this class (`bouncert.dev/class`) are rotated.
    pub class: String,
    /// Only in these namespaces; in all if empty.
    pub namespaces: Vec<String>,
}

impl Default for RotationOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            window: None,
            successful_kept: SUCCESSFUL_KEPT_DEFAULT,
            failed_kept: FAILED_KEPT_DEFAULT,
            cluster_resource_namespace: "cert-manager".to_owned(),
            class: String::new(),
            namespaces: Vec::new(),
        }
    }
}

/// Creates the requests that are due.
pub struct Rotator {
    cluster: Cluster,
    materials: Materials,
    clock: Clock,
    reporter: Reporter,
    options: RotationOptions,
    state: Mutex<State>,
    errors: InternalErrors,
}

struct State {
    index: Index,
    fleet: Fleet,
    dirty: BTreeSet<ObjectRef>,
    suspects: BTreeMap<ObjectRef, OffsetDateTime>,
    /// What is left alone until then, because a panic came of it.
    given_up: BTreeMap<ObjectRef, OffsetDateTime>,
    troubles: Troubles,
    /// What has drifted, by reason.
    drifting: BTreeMap<ObjectRef, BTreeSet<&'static str>>,
    /// What has not been listed yet.
    unlisted: BTreeSet<(Kind, Area)>,
    waiting: usize,
    counts: Counts,
}

/// What is to be done about one PgBouncer.
struct Work {
    at: ObjectRef,
    known: Known,
    verdict: Option<Verdict>,
    bouncer: PgBouncer,
    finished: Vec<(ObjectRef, String)>,
}

// === impl Rotator ===

impl Rotator {
    /// A rotator over `cluster` that knows nothing yet.
    pub fn new(
        cluster: Cluster,
        materials: Materials,
        clock: Clock,
        options: RotationOptions,
    ) -> Self {
        let state = State {
            index: Index::new(options.window.clone()),
            fleet: Fleet::new(options.limits),
            dirty: BTreeSet::new(),
            suspects: BTreeMap::new(),
            given_up: BTreeMap::new(),
            troubles: Troubles::default(),
            drifting: BTreeMap::new(),
            unlisted: Area::covering(&options.namespaces)
                .into_iter()
                .flat_map(|area| Kind::ALL.map(|kind| (kind, area.clone())))
                .collect(),
            waiting: 0,
            counts: Counts::default(),
        };
        Self {
            reporter: Reporter::new(cluster.clone(), COMPONENT),
            cluster,
            materials,
            clock,
            options,
            state: Mutex::new(state),
            errors: InternalErrors::default(),
        }
    }

    /// Counts panics in `errors`.
    #[must_use]
    pub fn counting(self, errors: InternalErrors) -> Self {
        Self { errors, ..self }
    }

    /// How it works.
    pub const fn options(&self) -> &RotationOptions {
        &self.options
    }

    /// Takes notice of something. Nothing is done about it before [`Rotator::settle`].
    pub fn note(&self, note: Note) {
        let now = self.clock.now();
        // An object that cannot be read is as if it had not been told.
        let _caught = self.errors.guard(PART, || self.take_notice(note, now));
    }

    fn take_notice(&self, note: Note, now: OffsetDateTime) {
        let mut state = self.lock();
        let concerned = match note {
            Note::Set(object) => notes::set(&mut state.index, &self.options, object, now),
            Note::Gone(object) => notes::gone(&mut state.index, &object),
            Note::Listed(kind, area, seen) => {
                let gone = state.index.retain(kind, &area, &seen);
                state.unlisted.remove(&(kind, area));
                gone
            }
            Note::Barred(kind, area) => {
                state.unlisted.remove(&(kind, area));
                Vec::new()
            }
        };
        state.dirty.extend(concerned);
    }

    /// Decides about everybody whom notes or the time concern, and acts. Returns when there is
    /// something to do again, should nothing happen before.
    pub async fn settle(&self) -> Option<OffsetDateTime> {
        let now = self.clock.now();
        // Who does not know all requests yet would make some twice, and whoever does not know the
        // Namespaces would begin what they freeze.
        if !self.lock().unlisted.is_empty() {
            return None;
        }
        self.look_at_suspects(now).await;
        let (work, starts, wake) = self.decide(now);
        for start in starts {
            if let Err(panicked) = self.errors.guarded(PART, self.start(&start)).await {
                self.give_up(&start.at, panicked, now);
            }
        }
        for work in work {
            match self.errors.guarded(PART, self.act(&work, now)).await {
                Err(panicked) => self.give_up(&work.at, panicked, now),
                Ok(()) => self.lock().served(&work),
            }
        }
        let state = self.lock();
        let suspects = state.suspects.values().min().copied();
        let given_up = state.given_up.values().min().copied();
        let dirty = (!state.dirty.is_empty()).then_some(now);
        [wake, suspects, given_up, dirty]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is to be told of panics since this was last asked.
    pub fn troubles(&self) -> Troubles {
        std::mem::take(&mut self.lock().troubles)
    }

    /// How things stand.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let mut drifting: BTreeMap<&'static str, usize> = BTreeMap::new();
        for reason in state.drifting.values().flatten() {
            *drifting.entry(reason).or_default() += 1;
        }
        Snapshot {
            busy: state.fleet.busy(),
            waiting: state.waiting,
            drifting,
            held: state.fleet.held(),
            counts: state.counts.clone(),
        }
    }

    /// The pure part, under the lock.
    fn decide(&self, now: OffsetDateTime) -> (Vec<Work>, Vec<Start>, Option<OffsetDateTime>) {
        let mut state = self.lock();
        let state = &mut *state;
        let mut concerned = std::mem::take(&mut state.dirty);
        concerned.extend(state.tried_again(now));
        concerned.retain(|at| {
            let known = self.errors.guard(PART, || {
                testing::planted(&at.name);
                match state.index.known(at, now) {
                    Some(known) => state.fleet.upsert(at, known.facts, now),
                    None => state.fleet.remove(at),
                }
            });
            match known {
                Ok(()) => true,
                Err(panicked) => {
                    state.give_up(at, panicked, now);
                    false
                }
            }
        });
        let pass = state.fleet.pass(now);
        state.waiting = pass.waiting;
        concerned.extend(pass.looked_at);
        let mut work = Vec::new();
        for at in concerned {
            match self
                .errors
                .guard(PART, || state.work(at.clone(), now, &self.options))
            {
                Ok(found) => work.extend(found),
                Err(panicked) => state.give_up(&at, panicked, now),
            }
        }
        (work, pass.starts, pass.wake)
    }

    /// Leaves a PgBouncer alone for a while: what is done about it panicked.
    fn give_up(&self, at: &ObjectRef, panicked: Panicked, now: OffsetDateTime) {
        self.lock().give_up(at, panicked, now);
    }

    /// Creates a request. One of that name is this very one: somebody has decided the same before.
    async fn start(&self, start: &Start) {
        let Some(bouncer) = self.lock().index.bouncer(&start.at) else {
            return;
        };
        let made = request::request(&bouncer, start);
        match self.cluster.create_or_get(&made).await {
            Ok(kept) => {
                tracing::info!(
                    pgbouncer = %start.at,
                    ops.request = start.request,
                    attempt = start.attempt,
                    urgent = start.task.urgent,
                    why = start.task.why,
                    "rotation begins"
                );
                let message = format!("Created {}: {}", start.request, start.task.why);
                self.event(&bouncer, EventKind::Normal, "RotationCreated", &message)
                    .await;
                self.lock().counts.created += 1;
                self.note(Note::Set(Object::Request(Box::new(kept))));
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::warn!(pgbouncer = %start.at, error, "request not created");
                // It counts until the assumption ends, and is then asked for again.
                self.lock().counts.not_created += 1;
            }
        }
    }

    async fn act(&self, work: &Work, now: OffsetDateTime) {
        for (request, uid) in &work.finished {
            if let Err(error) = self
                .cluster
                .delete_uid::<PgBouncerOpsRequest>(request, uid)
                .await
            {
                let error = &error as &dyn Error;
                tracing::debug!(ops.request = %request, error, "old request not deleted");
            }
        }
        // While a request runs, nothing is as it was left, and conditions are its own to write.
        let is_held = work.known.facts.live.is_some()
            || matches!(
                work.known.facts.standing,
                Standing::Paused | Standing::Absent
            );
        if is_held {
            return;
        }
        for drift in &work.known.drift {
            if let Drift::Unsound(alias, _) = drift
                && !repair::is_owned(&work.known, *alias)
            {
                self.put_back(work, *alias).await;
            }
        }
        self.tell(work, now).await;
    }

    /// Writes conditions and events, if there is news.
    async fn tell(&self, work: &Work, now: OffsetDateTime) {
        let status = work.bouncer.status.as_ref();
        let present = status
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        let verdict = work.verdict.as_ref();
        let Some((conditions, news)) = tell::conditions(present, &work.known, verdict, now) else {
            return;
        };
        let patch = json!({
            "metadata": { "resourceVersion": work.bouncer.resource_version() },
            "status": { "conditions": conditions },
        });
        match self
            .cluster
            .patch_status::<PgBouncer>(&work.at, &patch)
            .await
        {
            Ok(_) => {}
            Err(error) => {
                // Whoever was faster wakes us.
                let error = &error as &dyn Error;
                tracing::debug!(pgbouncer = %work.at, error, "conditions not written");
                return;
            }
        }
        for news in news {
            let kind = if news.trouble {
                EventKind::Warning
            } else {
                EventKind::Normal
            };
            self.event(&work.bouncer, kind, news.reason, &news.message)
                .await;
        }
    }

    async fn event(&self, bouncer: &PgBouncer, kind: EventKind, reason: &str, message: &str) {
        let words = (reason, message);
        self.reporter
            .report(bouncer, kind, words, self.clock.now())
            .await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Something was done about a PgBouncer without a panic.
    fn served(&mut self, work: &Work) {
        let status = work.bouncer.status.as_ref();
        let is_told = status.is_some_and(|status| has_internal_error(&status.conditions, PART));
        if is_told && !self.given_up.contains_key(&work.at) {
            self.troubles.healed.insert(work.at.clone());
        }
    }

    fn give_up(&mut self, at: &ObjectRef, panicked: Panicked, now: OffsetDateTime) {
        self.troubles.panicked.insert(at.clone(), panicked);
        self.fleet.remove(at);
        self.given_up.insert(at.clone(), now.plus(GIVEN_UP_FOR));
    }

    /// Those whose time to be tried again has come.
    fn tried_again(&mut self, now: OffsetDateTime) -> Vec<ObjectRef> {
        let due = self.given_up.iter().filter(|(_, until)| **until <= now);
        let due: Vec<ObjectRef> = due.map(|(at, _)| at.clone()).collect();
        for at in &due {
            self.given_up.remove(at);
        }
        due
    }

    /// What is to be done about one PgBouncer, and whether its pods are suspect.
    fn work(
        &mut self,
        at: ObjectRef,
        now: OffsetDateTime,
        options: &RotationOptions,
    ) -> Option<Work> {
        let Some(bouncer) = self.index.bouncer(&at) else {
            self.suspects.remove(&at);
            self.drifting.remove(&at);
            return None;
        };
        let known = self.index.known_of(&at, &bouncer, now);
        let reasons: BTreeSet<_> = known.drift.iter().map(Drift::reason).collect();
        let former = self
            .drifting
            .insert(at.clone(), reasons.clone())
            .unwrap_or_default();
        for reason in reasons.difference(&former) {
            *self.counts.drift.entry(reason).or_default() += 1;
        }
        if suspects::is_suspect(&bouncer, &known) {
            self.suspects.entry(at.clone()).or_insert(now);
        } else {
            self.suspects.remove(&at);
        }
        let (good, bad) = self.index.finished(&at);
        // The brake counts them.
        let old = good.into_iter().skip(options.successful_kept.max(2));
        let finished = old
            .chain(bad.into_iter().skip(options.failed_kept.max(1)))
            .collect();
        Some(Work {
            verdict: self.fleet.verdict(&at).cloned(),
            at,
            known,
            bouncer,
            finished,
        })
    }
}
