//! What is stored, parsed once, and the [`Facts`] that follow from it. Pure: objects come in as they
//! change, and certificates are read then and never again.
//!
//! No key is kept: of a Secret remains what its certificates say and whether its key fits.

mod kept;
mod request;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::ResourceExt;
use time::OffsetDateTime;

use self::kept::Kept;
use self::request::RequestFacts;
use super::drift::{self, Drift, SecretFacts};
use super::facts::{Facts, Freeze, Held, Standing, Window};
use super::window::Windows;
use crate::api::annotations::{FREEZE_ROTATION, MAINTENANCE_WINDOW};
use crate::api::common::{Condition, find_condition};
use crate::api::tls::IssuerRef;
use crate::api::{PgBouncer, PgBouncerOpsRequest, Phase};
use crate::blueprint::certificates::{LoadBalancer, Wanted, wanted};
use crate::names::{Area, Fingerprint, ObjectRef};
use crate::pki::renewal::{granted_from, jitter_seed};
use crate::printable::printable;

/// The condition under which nobody but its holder touches a PgBouncer.
const PAUSED: &str = "Paused";

/// Longest part of an annotation that is repeated in a message, in bytes.
const SHOWN_MAX: usize = 64;

/// What pods were seen to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// By pod; `None` where one served no TLS.
    pub pods: BTreeMap<String, Option<Fingerprint>>,
    /// Since when a pod has been seen to serve something else than is stored.
    pub astray_since: Option<OffsetDateTime>,
}

/// Kinds of which it matters when one has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// PgBouncers.
    Bouncers,
    /// Requests.
    Requests,
    /// Secrets.
    Secrets,
    /// Namespaces, whose annotations count for what is in them.
    Namespaces,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Bouncers,
        Self::Requests,
        Self::Secrets,
        Self::Namespaces,
    ];
}

/// Why annotations say nothing: annotation and what is wrong.
pub type Malformed = Vec<String>;

/// Everything that is known about one PgBouncer.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What is decided by.
    pub facts: Facts,
    /// Annotations that cannot be read, for people.
    pub malformed: Malformed,
    /// What is not as it was left.
    pub drift: Vec<Drift>,
    /// The certificates that it wants.
    pub wanted: Vec<Wanted>,
}

/// What is stored.
#[derive(Debug, Default)]
pub struct Index {
    default_window: Option<Arc<Windows>>,
    /// In order of their namespaces, because a Secret concerns those beside it.
    bouncers: BTreeMap<ObjectRef, Kept>,
    secrets: HashMap<ObjectRef, SecretFacts>,
    requests: HashMap<ObjectRef, RequestFacts>,
    requests_of: HashMap<ObjectRef, BTreeSet<ObjectRef>>,
    namespaces: HashMap<String, BTreeMap<String, String>>,
    /// Secrets of CA issuers, by kind, namespace (empty for a ClusterIssuer) and name.
    authorities: HashMap<(String, ObjectRef), ObjectRef>,
    served: HashMap<ObjectRef, Served>,
    /// What load balancers have given to Services of PgBouncers.
    outside: HashMap<ObjectRef, LoadBalancer>,
    /// When something was first seen to be amiss.
    noticed: HashMap<ObjectRef, OffsetDateTime>,
}

// === impl Index ===

impl Index {
    /// Nothing is known yet. `default_window` is for PgBouncers that have none.
    pub fn new(default_window: Option<Windows>) -> Self {
        Self {
            default_window: default_window.map(Arc::new),
            ..Self::default()
        }
    }

    /// A PgBouncer is there, or has changed.
    pub fn set_bouncer(&mut self, bouncer: PgBouncer) -> ObjectRef {
        let at = reference(&bouncer);
        match Kept::new(bouncer) {
            Some(kept) => drop(self.bouncers.insert(at.clone(), kept)),
            None => self.remove_bouncer(&at),
        }
        at
    }

    /// A PgBouncer has gone.
    pub fn remove_bouncer(&mut self, at: &ObjectRef) {
        self.bouncers.remove(at);
        self.served.remove(at);
        self.noticed.remove(at);
    }

    /// A request is there, or has changed; whom it concerns.
    pub fn set_request(&mut self, request: &PgBouncerOpsRequest) -> ObjectRef {
        let at = reference(request);
        let facts = RequestFacts::of(request);
        let bouncer = facts.bouncer.clone();
        self.requests_of
            .entry(bouncer.clone())
            .or_default()
            .insert(at.clone());
        self.requests.insert(at, facts);
        bouncer
    }

    /// A request has gone; whom it concerns.
    pub fn remove_request(&mut self, at: &ObjectRef) -> Option<ObjectRef> {
        let bouncer = self.requests.remove(at)?.bouncer;
        if let Some(all) = self.requests_of.get_mut(&bouncer) {
            all.remove(at);
            if all.is_empty() {
                self.requests_of.remove(&bouncer);
            }
        }
        Some(bouncer)
    }

    /// A Secret is there, has changed or (`None`) has gone; whom it concerns, if it is news.
    pub fn set_secret(&mut self, at: &ObjectRef, facts: Option<SecretFacts>) -> Vec<ObjectRef> {
        let is_news = self.secrets.get(at) != facts.as_ref();
        if !is_news {
            return Vec::new();
        }
        match facts {
            Some(facts) => self.secrets.insert(at.clone(), facts),
            None => self.secrets.remove(at),
        };
        self.concerned_by_secret(at)
    }

    /// A Namespace has these annotations; whom it concerns, if it is news.
    pub fn set_namespace(
        &mut self,
        name: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Vec<ObjectRef> {
        let ours = |key: &str| matches!(key, MAINTENANCE_WINDOW | FREEZE_ROTATION);
        let kept: BTreeMap<_, _> = annotations
            .iter()
            .filter(|(key, _)| ours(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let former = if kept.is_empty() {
            self.namespaces.remove(name)
        } else {
            self.namespaces.insert(name.to_owned(), kept.clone())
        };
        if former.unwrap_or_default() == kept {
            return Vec::new();
        }
        let here = self.bouncers.keys().filter(|at| at.namespace == name);
        here.cloned().collect()
    }

    /// A CA issuer keeps its key in `secret` (`None`: it is of another type, or has gone); whom it
    /// concerns, if it is news.
    pub fn set_issuer(
        &mut self,
        kind: &str,
        at: &ObjectRef,
        secret: Option<ObjectRef>,
    ) -> Vec<ObjectRef> {
        let key = (kind.to_owned(), at.clone());
        if self.authorities.get(&key) == secret.as_ref() {
            return Vec::new();
        }
        match secret {
            Some(secret) => self.authorities.insert(key, secret),
            None => self.authorities.remove(&key),
        };
        self.bouncers.keys().cloned().collect()
    }

    /// A load balancer has given these addresses to the Service of a PgBouncer; whom it concerns, if it
    /// is news.
    pub fn set_outside(&mut self, at: &ObjectRef, given: LoadBalancer) -> Vec<ObjectRef> {
        let former = if given == LoadBalancer::default() {
            self.outside.remove(at)
        } else {
            self.outside.insert(at.clone(), given)
        };
        let is_news = former.as_ref() != self.outside.get(at);
        Vec::from_iter(is_news.then(|| at.clone()))
    }

    /// What the pods of a PgBouncer were seen to serve.
    pub fn set_served(&mut self, at: &ObjectRef, pods: Served) {
        self.served.insert(at.clone(), pods);
    }

    /// The PgBouncer itself.
    pub fn bouncer(&self, at: &ObjectRef) -> Option<PgBouncer> {
        self.bouncers.get(at)?.open()
    }

    /// What is published in a Secret.
    pub fn secret(&self, at: &ObjectRef) -> Option<&SecretFacts> {
        self.secrets.get(at)
    }

    /// What pods were last seen to serve.
    pub fn served(&self, at: &ObjectRef) -> Option<&Served> {
        self.served.get(at)
    }

    /// Keeps the objects of a kind that a fresh list of `area` has shown, and those elsewhere; whom
    /// the others concern.
    pub fn retain(
        &mut self,
        kind: Kind,
        area: &Area,
        seen: &BTreeSet<ObjectRef>,
    ) -> Vec<ObjectRef> {
        let gone = |all: Vec<&ObjectRef>| -> Vec<ObjectRef> {
            all.into_iter()
                .filter(|at| area.covers(&at.namespace) && !seen.contains(*at))
                .cloned()
                .collect()
        };
        match kind {
            Kind::Bouncers => {
                let gone = gone(self.bouncers.keys().collect());
                for at in &gone {
                    self.remove_bouncer(at);
                }
                gone
            }
            Kind::Requests => {
                let gone = gone(self.requests.keys().collect());
                gone.iter()
                    .filter_map(|at| self.remove_request(at))
                    .collect()
            }
            Kind::Secrets => {
                let gone = gone(self.secrets.keys().collect());
                gone.iter()
                    .flat_map(|at| self.set_secret(at, None))
                    .collect()
            }
            Kind::Namespaces => {
                let names = self.namespaces.keys().filter(|name| area.covers(name));
                let is_gone = |name: &&String| !seen.contains(&ObjectRef::new("", name.as_str()));
                let gone: Vec<String> = names.filter(is_gone).cloned().collect();
                gone.iter()
                    .flat_map(|name| self.set_namespace(name, &BTreeMap::new()))
                    .collect()
            }
        }
    }

    /// All PgBouncers.
    pub fn bouncers(&self) -> impl Iterator<Item = &ObjectRef> {
        self.bouncers.keys()
    }

    /// Everything that is known about a PgBouncer; `None` without one.
    pub fn known(&mut self, at: &ObjectRef, now: OffsetDateTime) -> Option<Known> {
        let bouncer = self.bouncer(at)?;
        Some(self.known_of(at, &bouncer, now))
    }

    /// The same of a PgBouncer that has been asked for already.
    pub fn known_of(&mut self, at: &ObjectRef, bouncer: &PgBouncer, now: OffsetDateTime) -> Known {
        if self.live(at).is_some() {
            // What was seen of its pods is not true any more when it has ended.
            self.served.remove(at);
        }
        let wanted = wanted(bouncer, &LoadBalancer::default()).unwrap_or_default();
        let drift = self.drift(at, &wanted, now);
        let mut malformed = Malformed::new();
        let mut facts = Facts {
            certificates: self.held(at, &wanted),
            window: self.window(bouncer, &mut malformed),
            freeze: self.freeze(bouncer, &mut malformed),
            standing: standing(bouncer),
            live: self.live(at),
            history: self.history(at),
            wish: None,
            seed: jitter_seed(&at.to_string()),
        };
        if drift.is_empty() {
            self.noticed.remove(at);
        } else {
            let since = *self.noticed.entry(at.clone()).or_insert(now);
            facts.wish = drift::wish(&drift, since);
        }
        if facts.standing == Standing::Fit && drift::is_renewed_by_others(&drift) {
            facts.standing = Standing::RenewedByOthers;
        }
        Known {
            facts,
            malformed,
            drift,
            wanted,
        }
    }

    fn held(&self, at: &ObjectRef, wanted: &[Wanted]) -> Vec<Held> {
        let identity = at.to_string();
        let held = wanted.iter().filter_map(|wanted| {
            let secret = self.secrets.get(&beside(at, &wanted.secret_name))?;
            let (not_before, not_after) = secret.life?;
            // Other certificates than the published one have another date.
            let issued = secret.issued.filter(|_| secret.leaf == secret.published);
            let granted = granted_from(issued, not_before, not_after);
            let which = (wanted.alias, secret.revision.unwrap_or(0));
            let policy = wanted.renew_policy();
            let held = Held::new(&identity, which, (granted, not_after), policy);
            if !secret.ends_with_ca {
                return Some(held);
            }
            let is_watched = self.authority(at, &wanted.issuer).is_some();
            Some(held.ending_with_ca(wanted.profile.duration, is_watched))
        });
        held.collect()
    }

    fn drift(&self, at: &ObjectRef, wanted: &[Wanted], now: OffsetDateTime) -> Vec<Drift> {
        let mut found = Vec::new();
        for wanted in wanted {
            let secret = self.secrets.get(&beside(at, &wanted.secret_name));
            let others = (self.authority(at, &wanted.issuer), self.outside.get(at));
            found.extend(drift::of_secret(wanted, secret, others, now));
        }
        let server = wanted
            .iter()
            .find(|wanted| wanted.alias == crate::names::Alias::Server);
        if let (Some(server), Some(served)) = (server, self.served.get(at))
            && let Some(secret) = self.secrets.get(&beside(at, &server.secret_name))
        {
            found.extend(drift::of_pods(secret, served));
        }
        found
    }

    /// The Secret of the CA that signs, where that is known.
    fn authority(&self, at: &ObjectRef, issuer: &IssuerRef) -> Option<&SecretFacts> {
        let namespace = match issuer.kind.as_str() {
            "Issuer" => at.namespace.as_str(),
            _ => "",
        };
        let key = (issuer.kind.clone(), ObjectRef::new(namespace, &issuer.name));
        self.secrets.get(self.authorities.get(&key)?)
    }

    fn window(&self, bouncer: &PgBouncer, malformed: &mut Malformed) -> Window {
        match self.annotation(bouncer, MAINTENANCE_WINDOW) {
            None => self
                .default_window
                .clone()
                .map_or(Window::Always, Window::Within),
            Some((whose, text)) => match Windows::parse(text) {
                Ok(windows) => Window::Within(Arc::new(windows)),
                Err(error) => {
                    malformed.push(format!(
                        "annotation {MAINTENANCE_WINDOW} of the {whose}: {error}"
                    ));
                    Window::Unreadable
                }
            },
        }
    }

    fn freeze(&self, bouncer: &PgBouncer, malformed: &mut Malformed) -> Freeze {
        let is_off = bouncer
            .spec
            .auto_ops
            .as_ref()
            .and_then(|auto| auto.disabled);
        if is_off == Some(true) {
            return Freeze::Frozen;
        }
        let Some((whose, text)) = self.annotation(bouncer, FREEZE_ROTATION) else {
            return Freeze::None;
        };
        let freeze = Freeze::parse(text);
        if freeze == Freeze::Unreadable {
            let text = printable(text, SHOWN_MAX);
            malformed.push(format!(
                "annotation {FREEZE_ROTATION} of the {whose}: {text:?} is neither true, false, a day \
                 such as 2031-05-06, nor an instant such as 2031-05-06T07:00:00Z"
            ));
        }
        freeze
    }

    /// An annotation of the PgBouncer, else of its Namespace.
    fn annotation<'a>(
        &'a self,
        bouncer: &'a PgBouncer,
        key: &str,
    ) -> Option<(&'static str, &'a str)> {
        let own = bouncer.annotations().get(key);
        if let Some(text) = own {
            return Some(("PgBouncer", text));
        }
        let namespace = self
            .namespaces
            .get(&bouncer.namespace().unwrap_or_default())?;
        namespace.get(key).map(|text| ("Namespace", text.as_str()))
    }

    fn concerned_by_secret(&self, secret: &ObjectRef) -> Vec<ObjectRef> {
        let is_authority = self
            .authorities
            .values()
            .any(|authority| authority == secret);
        if is_authority {
            let all = self.bouncers.iter();
            let served = all.filter(|(_, bouncer)| bouncer.secrets.is_some());
            return served.map(|(at, _)| at.clone()).collect();
        }
        let names = |bouncer: &Kept| {
            let mut secrets = bouncer.secrets.iter().flatten();
            secrets.any(|name| **name == *secret.name)
        };
        let beside = self.bouncers.range(ObjectRef::new(&secret.namespace, "")..);
        beside
            .take_while(|(at, _)| at.namespace == secret.namespace)
            .filter(|(_, bouncer)| names(bouncer))
            .map(|(at, _)| at.clone())
            .collect()
    }
}

// === helpers ===

fn standing(bouncer: &PgBouncer) -> Standing {
    let status = bouncer.status.clone().unwrap_or_default();
    if bouncer.metadata.deletion_timestamp.is_some() || bouncer.spec.halted == Some(true) {
        return Standing::Absent;
    }
    if find_condition(&status.conditions, PAUSED).is_some_and(Condition::is_true) {
        return Standing::Paused;
    }
    match status.phase {
        Some(Phase::Ready) => Standing::Fit,
        Some(Phase::Halted) => Standing::Absent,
        _ => Standing::NotReady,
    }
}

fn beside(at: &ObjectRef, secret: &str) -> ObjectRef {
    ObjectRef::new(&at.namespace, secret)
}

fn reference<K: kube::Resource>(object: &K) -> ObjectRef {
    ObjectRef::new(object.namespace().unwrap_or_default(), object.name_any())
}
