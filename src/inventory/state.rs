//! What is known of the fleet, and the rows that people and Prometheus read of it; pure.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use time::OffsetDateTime;

use super::Reach;
use super::facts::{Asked, Leaf, Link, Pooler, Replica, Request, Stored};
use crate::api::RequestPhase;
use crate::cluster::Mirror;
use crate::names::{Alias, Fingerprint, ObjectRef};
use crate::pki::renewal::{certificate_seed, renew_at};

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Only PgBouncers of this class are shown and looked at; all if none.
    pub(super) class: Option<String>,
    pub(super) poolers: Mirror<Pooler>,
    pub(super) secrets: Mirror<Stored>,
    pub(super) replicas: Mirror<Replica>,
    pub(super) requests: Mirror<Request>,
    /// The last look at each pod.
    pub(super) sightings: HashMap<ObjectRef, Sighting>,
}

/// A look at a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) at: OffsetDateTime,
    pub(super) seen: Seen,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A certificate.
    Leaf(Leaf),
    /// A server that does not speak TLS.
    Plaintext,
    /// Nothing: why not.
    Nothing(Box<str>),
}

/// One certificate, as it is wanted, stored and served.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate<'a> {
    /// Namespace of its PgBouncer.
    pub namespace: &'a str,
    /// Its PgBouncer.
    pub pooler: &'a str,
    /// What it is for.
    pub alias: &'static str,
    /// Who shall sign it: kind and name.
    pub issuer: String,
    /// Where it is stored.
    pub secret: &'a str,
    /// Number of the stored revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// Serial number of the stored leaf; absent, like all that follows, while nothing is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<&'a str>,
    /// SHA-256 of the stored leaf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// First instant of the stored leaf's life.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub not_before: Option<OffsetDateTime>,
    /// Last instant of the stored leaf's life.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub not_after: Option<OffsetDateTime>,
    /// When the stored leaf is due for renewal.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub renews_at: Option<OffsetDateTime>,
    /// Who signed the stored leaf, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<&'a str>,
    /// What is stored behind the leaf.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub chain: &'a [Link],
    /// How many pods serve what is stored; absent for what pods do not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_by: Option<Served>,
    /// What each pod serves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub served: Vec<PodView<'a>>,
    /// When a request that changed it last succeeded.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub last_rotation: Option<OffsetDateTime>,
    /// The last request that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureView<'a>>,
    /// What it was derived from, for metrics.
    #[serde(skip)]
    pub(super) asked: &'a Asked,
}

impl Certificate<'_> {
    /// Whether it is stored, and within its life.
    pub(super) fn is_valid(&self, now: OffsetDateTime) -> bool {
        let (begins, ends) = (self.not_before, self.not_after);
        begins.is_some_and(|begins| begins <= now) && ends.is_some_and(|ends| now <= ends)
    }
}

/// How many pods serve a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Pods that serve it.
    pub pods: usize,
    /// Pods that there are.
    pub of: usize,
}

/// What one pod serves.
#[derive(Clone, Debug, Serialize)]
pub struct PodView<'a> {
    /// Its name.
    pub pod: &'a str,
    /// Whether that is what is stored; absent while nothing was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<bool>,
    /// SHA-256 of the served leaf; absent without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// First instant of the served leaf's life.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub not_before: Option<OffsetDateTime>,
    /// Last instant of the served leaf's life.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub not_after: Option<OffsetDateTime>,
    /// When it was looked at.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub seen_at: Option<OffsetDateTime>,
    /// Why nothing was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<&'a str>,
}

/// A request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FailureView<'a> {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The request.
    pub request: &'a str,
    /// Why, in its own words, shortened.
    pub message: &'a str,
}

/// What a PgBouncer's requests have come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past<'a> {
    pub(super) last_success: Option<OffsetDateTime>,
    pub(super) last_failure: Option<FailureView<'a>>,
    /// When the request began that is being carried out.
    pub(super) progressing_since: Option<OffsetDateTime>,
    /// Requests that left something behind which could not be undone.
    pub(super) undo_failed: u32,
}

/// The state, with what belongs to each PgBouncer at hand.
pub(super) struct View<'a> {
    state: &'a State,
    replicas: HashMap<&'a ObjectRef, Vec<(&'a ObjectRef, &'a Replica)>>,
    pasts: HashMap<&'a ObjectRef, Past<'a>>,
}

impl State {
    /// Nothing is known yet of what is in reach.
    pub(super) fn of(reach: &Reach) -> Self {
        let namespaces = &reach.namespaces;
        Self {
            class: Some(reach.class.clone()),
            poolers: Mirror::over(namespaces),
            secrets: Mirror::over(namespaces),
            replicas: Mirror::over(namespaces),
            requests: Mirror::over(namespaces),
            sightings: HashMap::new(),
        }
    }

    /// A PgBouncer, if it is ours.
    pub(super) fn pooler(&self, at: &ObjectRef) -> Option<&Pooler> {
        self.poolers.get(at).filter(|pooler| self.is_ours(pooler))
    }

    fn is_ours(&self, pooler: &Pooler) -> bool {
        let class = self.class.as_deref();
        class.is_none_or(|class| *class == *pooler.class)
    }

    /// Whether everything has been listed once.
    pub(super) fn is_complete(&self) -> bool {
        self.poolers.is_complete()
            && self.secrets.is_complete()
            && self.replicas.is_complete()
            && self.requests.is_complete()
    }

    /// Forgets what was seen of pods that have gone.
    pub(super) fn forget_sightings(&mut self) {
        let replicas = &self.replicas;
        self.sightings.retain(|at, _| replicas.get(at).is_some());
    }

    /// The PgBouncers of which a pod was last seen to serve something else than is stored.
    pub(super) fn astray(&self) -> Vec<ObjectRef> {
        let view = self.view();
        let is_astray = |one: &Certificate<'_>| {
            let mut pods = one.served.iter();
            pods.any(|pod| pod.matches == Some(false))
        };
        let certificates = view.certificates().filter(is_astray);
        certificates
            .map(|one| ObjectRef::new(one.namespace, one.pooler))
            .collect()
    }

    pub(super) fn view(&self) -> View<'_> {
        let mut replicas: HashMap<_, Vec<_>> = HashMap::new();
        for (at, replica) in self.replicas.iter() {
            replicas
                .entry(&replica.pooler)
                .or_default()
                .push((at, replica));
        }
        let mut pasts: HashMap<_, Past<'_>> = HashMap::new();
        for (at, request) in self.requests.iter() {
            pasts.entry(&request.pooler).or_default().add(at, request);
        }
        View {
            state: self,
            replicas,
            pasts,
        }
    }

    /// How many requests there are of each type and phase; those that nobody has looked at yet have
    /// no phase.
    pub(super) fn request_counts(&self) -> BTreeMap<(&'static str, &'static str), i64> {
        let mut counts = BTreeMap::new();
        let of_others = |request: &Request| {
            let pooler = self.poolers.get(&request.pooler);
            pooler.is_some_and(|pooler| !self.is_ours(pooler))
        };
        let requests = self.requests.iter().map(|(_, request)| request);
        for request in requests.filter(|request| !of_others(request)) {
            let phase = request.phase.map_or("", RequestPhase::as_str);
            *counts.entry((request.type_.as_str(), phase)).or_default() += 1;
        }
        counts
    }
}

impl<'a> View<'a> {
    pub(super) fn poolers(&self) -> impl Iterator<Item = (&'a ObjectRef, &'a Pooler)> {
        let poolers = self.state.poolers.iter();
        poolers.filter(|(_, pooler)| self.state.is_ours(pooler))
    }

    pub(super) fn past(&self, pooler: &ObjectRef) -> Past<'a> {
        self.pasts.get(pooler).copied().unwrap_or_default()
    }

    /// The pods of a PgBouncer, each with the last look at it.
    pub(super) fn sightings(
        &self,
        pooler: &ObjectRef,
    ) -> impl Iterator<Item = (&'a ObjectRef, Option<&'a Sighting>)> {
        let pods = self.replicas.get(pooler).map_or(&[][..], Vec::as_slice);
        pods.iter()
            .map(|(at, _)| (*at, self.state.sightings.get(*at)))
    }

    /// Every certificate, in the order of namespaces, PgBouncers and aliases.
    pub(super) fn certificates(&self) -> impl Iterator<Item = Certificate<'a>> + use<'a, '_> {
        self.poolers().flat_map(move |(at, pooler)| {
            let asked = pooler.asked.iter();
            asked.map(move |asked| self.certificate(at, pooler, asked))
        })
    }

    fn certificate(
        &self,
        at: &'a ObjectRef,
        pooler: &'a Pooler,
        asked: &'a Asked,
    ) -> Certificate<'a> {
        let secret = ObjectRef::new(&at.namespace, &asked.secret);
        let stored = self.state.secrets.get(&secret);
        let leaf = stored.map(|stored| &stored.leaf);
        let is_served = asked.alias == Alias::Server && pooler.serves_tls;
        let served: Vec<PodView<'_>> = if is_served {
            let sightings = self.sightings(at);
            sightings
                .map(|(pod, sighting)| pod_view(pod, sighting, leaf))
                .collect()
        } else {
            Vec::new()
        };
        let past = self.past(at);
        Certificate {
            namespace: &at.namespace,
            pooler: &at.name,
            alias: asked.alias.as_str(),
            issuer: format!("{}/{}", asked.issuer.kind, asked.issuer.name),
            secret: &asked.secret,
            revision: stored.and_then(|stored| stored.revision),
            serial: leaf.map(|leaf| &*leaf.serial),
            fingerprint: leaf.map(|leaf| leaf.fingerprint),
            not_before: leaf.map(|leaf| leaf.not_before),
            not_after: leaf.map(|leaf| leaf.not_after),
            renews_at: stored.map(|stored| due(at, asked, stored)),
            signed_by: stored.map(|stored| &*stored.signed_by),
            chain: stored.map_or(&[], |stored| &stored.chain),
            served_by: (is_served && leaf.is_some()).then(|| Served {
                pods: served
                    .iter()
                    .filter(|pod| pod.matches == Some(true))
                    .count(),
                of: served.len(),
            }),
            served,
            last_rotation: past.last_success,
            last_failure: past.last_failure,
            asked,
        }
    }
}

impl PodView<'_> {
    /// Whether it is known what the pod serves.
    pub(super) const fn is_seen(&self) -> bool {
        self.fingerprint.is_some() || matches!(self.matches, Some(false))
    }
}

impl<'a> Past<'a> {
    fn add(&mut self, at: &'a ObjectRef, request: &'a Request) {
        match request.phase {
            Some(RequestPhase::Successful) => {
                self.last_success = self.last_success.max(request.ended);
            }
            Some(RequestPhase::Failed) => {
                let failed = request.ended.map(|ended| FailureView {
                    at: ended,
                    request: &at.name,
                    message: request.failure.as_deref().unwrap_or_default(),
                });
                let latest = self.last_failure.map(|failure| failure.at);
                if failed.map(|failure| failure.at) > latest {
                    self.last_failure = failed;
                }
                self.undo_failed += u32::from(request.undo_failed);
            }
            Some(RequestPhase::Progressing) => {
                self.progressing_since = match (self.progressing_since, request.begun) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
            Some(
                RequestPhase::Pending
                | RequestPhase::WaitingForApproval
                | RequestPhase::Approved
                | RequestPhase::Denied
                | RequestPhase::Skipped,
            )
            | None => {}
        }
    }
}

/// When a leaf is to be renewed.
fn due(at: &ObjectRef, asked: &Asked, stored: &Stored) -> OffsetDateTime {
    let seed = certificate_seed(
        &format!("{}/{}", at.namespace, at.name),
        asked.alias.as_str(),
    );
    renew_at(stored.granted, stored.leaf.not_after, asked.renews, seed)
}

fn pod_view<'a>(
    pod: &'a ObjectRef,
    sighting: Option<&'a Sighting>,
    stored: Option<&Leaf>,
) -> PodView<'a> {
    let seen = sighting.map(|sighting| &sighting.seen);
    let (leaf, trouble) = match seen {
        Some(Seen::Leaf(leaf)) => (Some(leaf), None),
        Some(Seen::Plaintext) => (None, Some("it does not offer TLS")),
        Some(Seen::Nothing(why)) => (None, Some(&**why)),
        None => (None, None),
    };
    let matches = match seen {
        Some(Seen::Leaf(leaf)) => stored.map(|stored| stored.fingerprint == leaf.fingerprint),
        Some(Seen::Plaintext) => Some(false),
        Some(Seen::Nothing(_)) | None => None,
    };
    PodView {
        pod: &pod.name,
        matches,
        fingerprint: leaf.map(|leaf| leaf.fingerprint),
        not_before: leaf.map(|leaf| leaf.not_before),
        not_after: leaf.map(|leaf| leaf.not_after),
        seen_at: sighting.map(|sighting| sighting.at),
        trouble,
    }
}
