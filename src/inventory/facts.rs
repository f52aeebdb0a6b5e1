//! What matters of each object: numbers, names and times, and no PEM; pure.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use crate::api::Located;
use crate::api::annotations::{FINGERPRINT, ISSUED, REVISION, REVISION_LABEL, class_of};
use crate::api::common::{find_condition, parse_rfc3339};
use crate::api::{IssuerRef, PgBouncer, PgBouncerOpsRequest, Phase, RequestPhase, RequestType};
use crate::blueprint::certificates::{LoadBalancer, wanted};
use crate::blueprint::{is_of_workload, labels, port, serves_tls};
use crate::names::{Alias, Fingerprint, ObjectRef};
use crate::pki::facts::{CertificateFacts, read_chain};
use crate::pki::renewal::{RenewPolicy, granted_from};
use crate::printable::beginning;

/// Longest message of a failure that is kept, in bytes.
const MESSAGE_MAX: usize = 400;

/// What matters of a PgBouncer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pooler {
    /// Whose it is; empty without a class.
    pub(super) class: Box<str>,
    pub(super) port: u16,
    pub(super) serves_tls: bool,
    pub(super) is_ready: bool,
    pub(super) paused_since: Option<OffsetDateTime>,
    /// Not longer than what it holds: there are many.
    pub(super) asked: Box<[Asked]>,
}

/// A certificate that a PgBouncer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) alias: Alias,
    pub(super) issuer: IssuerRef,
    pub(super) secret: String,
    pub(super) renews: RenewPolicy,
}

/// What a Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) revision: Option<u32>,
    /// Beginning of the life that was granted.
    pub(super) granted: OffsetDateTime,
    pub(super) leaf: Leaf,
    /// Who signed the leaf, as its certificate says.
    pub(super) signed_by: Arc<str>,
    /// What follows on the leaf.
    pub(super) chain: Vec<Link>,
}

/// What matters of a leaf, wherever it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) serial: Box<str>,
    pub(super) fingerprint: Fingerprint,
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
}

/// A certificate of an intermediate CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its subject, as RFC 4514 writes names.
    #[serde(serialize_with = "as_text")]
    pub subject: Arc<str>,
    /// The last instant of its life.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
}

/// What matters of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    /// Its PgBouncer.
    pub(super) pooler: ObjectRef,
    pub(super) ip: IpAddr,
}

/// What matters of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Its PgBouncer.
    pub(super) pooler: ObjectRef,
    pub(super) type_: RequestType,
    pub(super) phase: Option<RequestPhase>,
    /// When it began, if it has.
    pub(super) begun: Option<OffsetDateTime>,
    /// When it ended, if it has.
    pub(super) ended: Option<OffsetDateTime>,
    /// Why it failed.
    pub(super) failure: Option<Box<str>>,
    /// Whether something that it changed could not be undone.
    pub(super) undo_failed: bool,
}

/// Text that many objects share, kept once each.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<Arc<str>>);

impl Names {
    /// Names that are kept at the most; beyond that they are kept as often as they occur.
    const KEPT_MAX: usize = 4_096;

    /// Longest text that is kept, in bytes: a certificate may hold names of any length.
    const LENGTH_MAX: usize = 1_024;

    pub(super) fn keep(&mut self, text: &str) -> Arc<str> {
        let text = &*crate::printable::printable(text, Self::LENGTH_MAX);
        if let Some(kept) = self.0.get(text) {
            return Arc::clone(kept);
        }
        let fresh: Arc<str> = Arc::from(text);
        if self.0.len() >= Self::KEPT_MAX {
            // What nothing refers to any more has gone.
            self.0.retain(|kept| Arc::strong_count(kept) > 1);
        }
        if self.0.len() < Self::KEPT_MAX {
            self.0.insert(Arc::clone(&fresh));
        }
        fresh
    }
}

impl Pooler {
    pub(super) fn of(bouncer: &PgBouncer) -> Self {
        let status = bouncer.status.as_ref();
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        let paused = find_condition(conditions, "Paused").filter(|paused| paused.is_true());
        // What has no meaning is said by whoever acts on the object, not here.
        let wanted = wanted(bouncer, &LoadBalancer::default()).unwrap_or_default();
        Self {
            class: class_of(bouncer).into(),
            port: u16::try_from(port(bouncer)).unwrap_or_default(),
            serves_tls: serves_tls(bouncer),
            is_ready: status.and_then(|status| status.phase) == Some(Phase::Ready),
            paused_since: paused.and_then(|paused| parse_rfc3339(&paused.last_transition_time)),
            asked: wanted
                .into_iter()
                .map(|wanted| Asked {
                    renews: wanted.renew_policy(),
                    alias: wanted.alias,
                    issuer: wanted.issuer,
                    secret: wanted.secret_name,
                })
                .collect(),
        }
    }
}

impl Stored {
    /// `None` for a Secret without a certificate, and for a revision, which nobody serves from.
    pub(super) fn of(secret: &Secret, names: &mut Names) -> Option<Self> {
        if secret.labels().contains_key(REVISION_LABEL) {
            return None;
        }
        let pem = secret.data.as_ref()?.get("tls.crt")?;
        let chain = read_chain(std::str::from_utf8(&pem.0).ok()?).ok()?;
        let (leaf, rest) = chain.split_first()?;
        let annotation = |key: &str| secret.annotations().get(key);
        let revision = annotation(REVISION);
        let published = annotation(FINGERPRINT).and_then(|text| Fingerprint::parse(text));
        let issued = annotation(ISSUED).and_then(|text| parse_rfc3339(text));
        let issued = issued.filter(|_| published == Some(leaf.fingerprint));
        Some(Self {
            granted: granted_from(issued, leaf.not_before, leaf.not_after),
            revision: revision.and_then(|revision| revision.parse().ok()),
            leaf: Leaf::of(leaf),
            signed_by: names.keep(&leaf.issuer),
            chain: rest
                .iter()
                .map(|facts| Link {
                    subject: names.keep(&facts.subject),
                    not_after: facts.not_after,
                })
                .collect(),
        })
    }
}

impl Leaf {
    pub(super) fn of(facts: &CertificateFacts) -> Self {
        Self {
            serial: facts.serial.clone().into_boxed_str(),
            fingerprint: facts.fingerprint,
            not_before: facts.not_before,
            not_after: facts.not_after,
        }
    }
}

impl Replica {
    /// `None` for a pod that has no address, is on its way out, or is none of ours.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let instance = labels::instance(pod.labels())?;
        if !is_of_workload(pod, instance) {
            return None;
        }
        let ip = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
        Some(Self {
            pooler: pod.beside(instance),
            ip,
        })
    }

    /// Where it serves.
    pub(super) const fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }
}

impl Request {
    pub(super) fn of(request: &PgBouncerOpsRequest) -> Self {
        let namespace = request.home();
        let status = request.status.as_ref();
        let phase = status.and_then(|status| status.phase);
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        let at = |type_: &str| {
            find_condition(conditions, type_)
                .and_then(|condition| parse_rfc3339(&condition.last_transition_time))
        };
        let failed = find_condition(conditions, "Failed");
        let type_ = request.spec.type_;
        Self {
            pooler: ObjectRef::new(namespace, &request.spec.database_ref.name),
            type_,
            phase,
            begun: at(type_.as_str()),
            ended: at("Successful").or_else(|| at("Failed")),
            failure: failed.map(|failed| beginning(&failed.message, MESSAGE_MAX).into()),
            undo_failed: find_condition(conditions, "UndoFailed").is_some(),
        }
    }
}

fn as_text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
