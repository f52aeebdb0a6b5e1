//! Signs through a cert-manager `CertificateRequest`, which somebody else answers: an approver, and
//! the controller of an issuer that we do not know.
//!
//! ```text
//!           create                 Approved          Ready=True
//!  (nothing) ────▶ Pending ─────────▶ Pending ─────────▶ Issued
//!                    │                  │
//!                    ├─ Denied ─────▶ Denied
//!                    ├─ InvalidRequest, Ready=False (Failed) ─▶ Failed
//!                    └─ nobody, for ANSWER_TIMEOUT ─▶ taken away, Failed
//! ```
//!
//! The request's name is that of the issuance, so that a repeat finds it; one that asks for anything
//! else, or with another key, is taken away first. The key is not part of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use time::{Duration, OffsetDateTime};

use super::{Issuance, IssuerError, IssuerName, Outcome, SigningRequest, clamped};
use crate::api::certmanager::{
    CertManagerCondition, CertificateRequestSpec, CertificateRequestStatus,
};
use crate::api::{CertificateRequest, holder};
use crate::cluster::{Cluster, ClusterError, Owner};
use crate::duration::GoDuration;
use crate::names::ObjectRef;
use crate::opaque;
use crate::pki::profile::LeafProfile;
use crate::pki::{answer, csr};

/// How long a request waits for its answer: people approve, and ACME orders take minutes.
pub const ANSWER_TIMEOUT: Duration = Duration::hours(1);

/// The roots of an issuer elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Roots<'a> {
    /// Certificates that the issuer's own spec trusts, in PEM: an answer may lead to one without having it,
    /// as those of ACME do.
    pub(super) known: &'a str,
    /// What to change where the root is neither there nor in the answer.
    pub(super) remedy: &'static str,
}

/// Asks for a certificate, or for the answer to a request that was made before.
pub(super) async fn sign(
    cluster: &Cluster,
    issuer: &IssuerName,
    request: &SigningRequest<'_>,
    (roots, now): (Roots<'_>, OffsetDateTime),
) -> Outcome {
    match ask(cluster, issuer, request, (roots, now)).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(error),
    }
}

/// Deletes a request of `owner`'s; that it is gone, or that there are no such requests, is success.
pub(super) async fn forget(
    cluster: &Cluster,
    owner: &Owner,
    at: &ObjectRef,
) -> Result<(), ClusterError> {
    let deleted = cluster.delete_owned::<CertificateRequest>(owner, at).await;
    deleted.map(drop)
}

async fn ask(
    cluster: &Cluster,
    issuer: &IssuerName,
    request: &SigningRequest<'_>,
    (roots, now): (Roots<'_>, OffsetDateTime),
) -> Result<Outcome, IssuerError> {
    let at = ObjectRef::new(request.namespace, request.name);
    let lookup = |source| IssuerError::Lookup {
        issuer: issuer.clone(),
        source: Box::new(source),
    };
    let wanted = wanted(issuer, &at, request)?;
    let found = cluster.get::<CertificateRequest>(&at).await;
    if let Some(found) = found.map_err(lookup)? {
        let take_away = || cluster.delete_read(&found);
        if !is_ours(&found, request) {
            return Err(IssuerError::ForeignRequest {
                issuer: issuer.clone(),
                request: Box::new(at),
            });
        }
        if asks_for_the_same(&found, &wanted) {
            let age = found.creation_timestamp().map(|created| age(&created, now));
            if is_open(found.status.as_ref()) && age.is_some_and(|age| age > ANSWER_TIMEOUT) {
                take_away().await.map_err(lookup)?;
                return Err(IssuerError::NoAnswer {
                    issuer: issuer.clone(),
                    request: Box::new(at),
                    minutes: ANSWER_TIMEOUT.whole_minutes(),
                });
            }
            let status = found.status.as_ref();
            return judge((issuer, roots), &at, status, (request.profile, now));
        }
        take_away().await.map_err(lookup)?;
    }
    match cluster.create(&wanted).await {
        Ok(_) => Ok(pending(&at, "approved and signed")),
        // Somebody was faster, or the former one is not quite gone: the next look tells.
        Err(error) if error.is_already_exists() => Ok(pending(&at, "replaced")),
        Err(error) if error.is_not_found() => Err(IssuerError::NoCertManager {
            issuer: issuer.clone(),
        }),
        Err(error) => Err(lookup(error)),
    }
}

fn wanted(
    issuer: &IssuerName,
    at: &ObjectRef,
    request: &SigningRequest<'_>,
) -> Result<CertificateRequest, IssuerError> {
    let csr =
        csr::request(request.profile, request.key).map_err(|source| IssuerError::Request {
            issuer: issuer.clone(),
            source: Box::new(source),
        })?;
    let mut wanted = CertificateRequest::new(
        &at.name,
        CertificateRequestSpec {
            request: BASE64.encode(csr),
            issuer_ref: request.issuer.into(),
            duration: GoDuration::try_from(request.profile.lifetime)
                .ok()
                .map(|duration| duration.to_string()),
            is_ca: None,
            usages: request.profile.usage.asked().names(request.key.kind()),
        },
    );
    wanted.metadata = ObjectMeta {
        namespace: Some(at.namespace.clone()),
        owner_references: request.owner.map(|owner| vec![owner.clone()]),
        ..wanted.metadata
    };
    Ok(wanted)
}

fn is_ours(found: &CertificateRequest, request: &SigningRequest<'_>) -> bool {
    request
        .owner
        .is_none_or(|owner| holder::is_controlled_by(found, &owner.uid))
}

fn asks_for_the_same(found: &CertificateRequest, wanted: &CertificateRequest) -> bool {
    let (one, other) = (&found.spec, &wanted.spec);
    one.issuer_ref == other.issuer_ref
        && one.duration == other.duration
        && one.usages == other.usages
        && matches!(
            (text(&one.request), text(&other.request)),
            (Some(one), Some(other)) if csr::ask_for_the_same(&one, &other)
        )
}

fn age(
    created: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
    now: OffsetDateTime,
) -> Duration {
    Duration::seconds(now.unix_timestamp() - created.0.as_second())
}

/// Whether an answer may still come.
fn is_open(status: Option<&CertificateRequestStatus>) -> bool {
    let said = |type_, value| condition(status, type_, value).is_some();
    let has_failed = condition(status, "Ready", "False")
        .and_then(|condition| condition.reason.as_deref())
        .is_some_and(|reason| reason == "Failed" || reason == "Denied");
    !(said("Denied", "True")
        || said("InvalidRequest", "True")
        || said("Ready", "True")
        || has_failed)
}

/// What the conditions of a request mean. Pure.
fn judge(
    (issuer, roots): (&IssuerName, Roots<'_>),
    at: &ObjectRef,
    status: Option<&CertificateRequestStatus>,
    (profile, now): (&LeafProfile, OffsetDateTime),
) -> Result<Outcome, IssuerError> {
    let rejected = |condition: &CertManagerCondition| IssuerError::Rejected {
        issuer: issuer.clone(),
        request: Box::new(at.clone()),
        message: message(condition),
    };
    if let Some(condition) = condition(status, "Denied", "True") {
        return Ok(denied(issuer, at, condition));
    }
    if let Some(condition) = condition(status, "InvalidRequest", "True") {
        return Err(rejected(condition));
    }
    if let Some(condition) = condition(status, "Ready", "False") {
        match condition.reason.as_deref() {
            Some("Denied") => return Ok(denied(issuer, at, condition)),
            Some("Failed") => return Err(rejected(condition)),
            _ => {}
        }
    }
    if condition(status, "Ready", "True").is_none() {
        let is_approved = condition(status, "Approved", "True").is_some();
        let on = if is_approved { "signed" } else { "approved" };
        return Ok(pending(at, on));
    }
    let field = |field: fn(&CertificateRequestStatus) -> Option<&String>| {
        status.and_then(field).and_then(|value| text(value))
    };
    let certificate = field(|status| status.certificate.as_ref()).unwrap_or_default();
    let authority = field(|status| status.ca.as_ref()).unwrap_or_default();
    let answer = answer::assemble(&certificate, &[&authority, roots.known])
        .map_err(|source| IssuerError::answer(issuer, source, roots.remedy))?;
    Ok(Outcome::Issued(Box::new(Issuance {
        clamped: clamped(&answer.chain, profile, now),
        chain: answer.chain,
        anchors: answer.anchors,
        signer: answer.signer,
    })))
}

fn denied(issuer: &IssuerName, at: &ObjectRef, condition: &CertManagerCondition) -> Outcome {
    Outcome::Denied {
        reason: format!(
            "{issuer}: the CertificateRequest {at} was denied: {}",
            message(condition)
        ),
    }
}

fn pending(at: &ObjectRef, what: &str) -> Outcome {
    Outcome::Pending {
        on: format!("CertificateRequest {at} to be {what}"),
    }
}

fn condition<'a>(
    status: Option<&'a CertificateRequestStatus>,
    type_: &str,
    value: &str,
) -> Option<&'a CertManagerCondition> {
    status?
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_ && condition.status == value)
}

fn message(condition: &CertManagerCondition) -> String {
    let said = condition.message.as_deref();
    said.map_or_else(|| "no reason given".to_owned(), opaque::words)
}

/// What a field of bytes says.
fn text(encoded: &str) -> Option<String> {
    BASE64
        .decode(encoded)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
}
