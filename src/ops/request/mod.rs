//! What a request asks for: the spec of a `PgBouncerOpsRequest`, read against the present spec of its
//! PgBouncer (docs/kubedb-compatibility.md, "Combinations in a request").
//!
//! Everything that KubeDB admits is admitted; what has no meaning is a [`Refusal`], whose text says
//! what to change. Nothing has been touched by then.

mod settings;
mod target;
#[cfg(test)]
mod tests;

pub use settings::{
    Drain, LEAVE_DEFAULT, LEAVE_SESSION_DEFAULT, MAX_RETRIES_MAX, MaxUnavailable, Pools, QUIESCE,
    STEP_TIMEOUT_DEFAULT, Settings, Strategy,
};
pub use target::{TlsState, target_state, with_state};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::api::opsrequest::{PgBouncerOpsRequestSpec, RequestType, TlsRequest};
use crate::api::pgbouncer::PgBouncerSpec;
use crate::api::tls::CERT_MANAGER_GROUP;
use crate::api::{AuthType, CertificateSpec, IssuerRef, SslMode};
use crate::duration::ParseDurationError;
use crate::names::Alias;

/// What is to be different afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// TLS where there was none.
    Add {
        /// Who signs.
        issuer: IssuerRef,
        /// What is special about single certificates.
        certificates: Vec<CertificateSpec>,
        /// Mode after the change.
        ssl_mode: SslMode,
        /// How clients prove who they are; `None` leaves it.
        auth_type: Option<AuthType>,
    },
    /// Another issuer, or the same once more, for all certificates.
    ChangeIssuer {
        /// Who signs from now on.
        issuer: IssuerRef,
        /// Entries that replace those of the same alias.
        certificates: Vec<CertificateSpec>,
        /// Modes to change along with it.
        modes: Modes,
    },
    /// New contents of single certificates.
    UpdateCertificates {
        /// Entries that replace those of the same alias.
        certificates: Vec<CertificateSpec>,
        /// Modes to change along with it.
        modes: Modes,
    },
    /// All certificates anew, with the same contents.
    Rotate {
        /// Modes to change along with it.
        modes: Modes,
    },
    /// No TLS any more.
    Remove {
        /// How clients prove who they are; `None` leaves it.
        auth_type: Option<AuthType>,
    },
    /// `sslMode`, `clientAuthMode` or both, and no certificate.
    Mode(Modes),
    /// The same again, in new processes.
    Restart,
    /// What is asked for is so already.
    NoOp,
}

/// `sslMode` and `clientAuthMode` of a request; `None` leaves what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    /// TLS mode for clients.
    pub ssl_mode: Option<SslMode>,
    /// How clients prove who they are.
    pub auth_type: Option<AuthType>,
}

impl Modes {
    /// Whether nothing is asked for.
    pub const fn is_empty(self) -> bool {
        self.ssl_mode.is_none() && self.auth_type.is_none()
    }
}

impl Change {
    /// One word for logs and messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Add { .. } => "add TLS",
            Self::ChangeIssuer { .. } => "change issuer",
            Self::UpdateCertificates { .. } => "update certificates",
            Self::Rotate { .. } => "rotate certificates",
            Self::Remove { .. } => "remove TLS",
            Self::Mode(_) => "change mode",
            Self::Restart => "restart",
            Self::NoOp => "nothing",
        }
    }

    /// The aliases whose certificates the change itself makes obsolete.
    pub fn aliases_to_issue(&self) -> Vec<Alias> {
        match self {
            Self::Add { .. } | Self::ChangeIssuer { .. } | Self::Rotate { .. } => {
                Alias::ALL.to_vec()
            }
            Self::UpdateCertificates { certificates, .. } => Alias::ALL
                .into_iter()
                .filter(|alias| certificates.iter().any(|c| c.alias == alias.as_str()))
                .collect(),
            Self::Remove { .. } | Self::Mode(_) | Self::Restart | Self::NoOp => Vec::new(),
        }
    }
}

/// Why a request cannot be carried out. The text is what the user reads in condition `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A type that is not ours.
    #[error(
        "requests of type {0} are not supported by Bouncert: create one of type ReconfigureTLS or \
         Restart"
    )]
    UnsupportedType(&'static str),
    /// `ReconfigureTLS` without `spec.tls`.
    #[error("`spec.tls` nil not supported in ReconfigureTLS type: say what to change in spec.tls")]
    NoTls,
    /// `tls: {}`.
    #[error(
        "no reconfiguration is provided in spec.tls: set issuerRef, certificates, \
         rotateCertificates, remove, sslMode or clientAuthMode"
    )]
    Empty,
    /// More than one operation.
    #[error(
        "spec.tls asks for {0} at once, and one request makes one change: create a request for \
         each"
    )]
    Ambiguous(String),
    /// Rotating without TLS.
    #[error(
        "rotateCertificates requires TLS to be enabled with issuerRef, and this PgBouncer has no \
         TLS: add it first with a request that sets spec.tls.issuerRef"
    )]
    NothingToRotate,
    /// Certificates without an issuer.
    #[error(
        "spec.tls.certificates needs an issuer, and this PgBouncer has no TLS: set \
         spec.tls.issuerRef as well"
    )]
    NoIssuer,
    /// A TLS mode without TLS.
    #[error(
        "sslMode {} needs a key and a certificate, and this PgBouncer has no TLS: set \
         spec.tls.issuerRef as well", .0.as_str()
    )]
    ModeWithoutTls(SslMode),
    /// Removing TLS and asking for a TLS mode.
    #[error(
        "spec.tls.remove leaves no TLS, so sslMode {} has no meaning: leave sslMode out or set it \
         to disable", .0.as_str()
    )]
    ModeAfterRemoval(SslMode),
    /// An issuer that is none of cert-manager's.
    #[error(
        "{field} names a {kind} of group {group}: its kind must be Issuer or ClusterIssuer and its \
         apiGroup cert-manager.io"
    )]
    ForeignIssuer {
        /// Where it is written.
        field: String,
        /// Kind as written.
        kind: String,
        /// Group as written.
        group: String,
    },
    /// The same alias twice.
    #[error("spec.tls.certificates lists alias {0} twice: keep one entry")]
    AliasTwice(String),
    /// A duration that is none.
    #[error("{field} is not usable: {problem}")]
    Duration {
        /// Where it is written.
        field: &'static str,
        /// What is wrong with it.
        problem: ParseDurationError,
    },
    /// A duration that is zero, negative or too long.
    #[error("{field} is {written}: write a duration from {least} to {most}")]
    DurationRange {
        /// Where it is written.
        field: &'static str,
        /// What is written.
        written: String,
        /// Shortest.
        least: String,
        /// Longest.
        most: String,
    },
    /// `maxRetries` is negative.
    #[error("spec.maxRetries is {0}: write a number from 0 to {MAX_RETRIES_MAX}")]
    Retries(i32),
    /// A strategy that nobody knows.
    #[error(
        "annotation bouncert.dev/strategy is {0:?}: write RollingRestart, Reload or Auto, or leave \
         it out"
    )]
    Strategy(String),
    /// A reload that would not do.
    #[error(
        "strategy Reload cannot carry this out: {0}. Annotate the request with \
         bouncert.dev/strategy: RollingRestart or Auto"
    )]
    Reload(String),
    /// A number of pods that is none.
    #[error(
        "annotation bouncert.dev/max-unavailable is {0:?}: write a number of at least 1, or a \
         percentage from 1% to 100%"
    )]
    MaxUnavailable(String),
}

/// Reads a request against the present spec of its PgBouncer.
pub fn parse(
    request: &PgBouncerOpsRequestSpec,
    present: &PgBouncerSpec,
) -> Result<Change, Refusal> {
    match request.type_ {
        RequestType::ReconfigureTLS => {
            let tls = request.tls.as_ref().ok_or(Refusal::NoTls)?;
            parse_tls(tls, present)
        }
        RequestType::Restart => Ok(Change::Restart),
        RequestType::HorizontalScaling
        | RequestType::VerticalScaling
        | RequestType::UpdateVersion
        | RequestType::Reconfigure
        | RequestType::RotateAuth => Err(Refusal::UnsupportedType(request.type_.as_str())),
    }
}

/// Whether the spec has TLS: an issuer, whatever `sslMode` says.
pub fn has_tls(spec: &PgBouncerSpec) -> bool {
    spec.tls
        .as_ref()
        .is_some_and(|tls| tls.issuer_ref.is_some())
}

fn parse_tls(tls: &TlsRequest, present: &PgBouncerSpec) -> Result<Change, Refusal> {
    one_operation(tls)?;
    issuers_are_usable(tls)?;
    aliases_are_distinct(&tls.certificates)?;
    let modes = Modes {
        ssl_mode: tls.ssl_mode,
        auth_type: tls.client_auth_mode,
    };
    let certificates = tls.certificates.clone();
    let has_tls = has_tls(present);
    if tls.remove == Some(true) {
        return parse_removal(modes, present);
    }
    if tls.rotate_certificates == Some(true) {
        return if has_tls {
            Ok(Change::Rotate { modes })
        } else {
            Err(Refusal::NothingToRotate)
        };
    }
    match (tls.issuer_ref.clone(), has_tls) {
        (Some(issuer), true) => Ok(Change::ChangeIssuer {
            issuer,
            certificates,
            modes,
        }),
        (Some(issuer), false) => Ok(Change::Add {
            issuer,
            certificates,
            ssl_mode: modes.ssl_mode.unwrap_or_else(|| added_mode(present)),
            auth_type: modes.auth_type,
        }),
        (None, true) if !certificates.is_empty() => Ok(Change::UpdateCertificates {
            certificates,
            modes,
        }),
        (None, false) if !certificates.is_empty() => Err(Refusal::NoIssuer),
        (None, _) => parse_modes(modes, has_tls),
    }
}

fn parse_modes(modes: Modes, has_tls: bool) -> Result<Change, Refusal> {
    match modes.ssl_mode {
        _ if modes.is_empty() => Err(Refusal::Empty),
        Some(mode) if mode.is_tls() && !has_tls => Err(Refusal::ModeWithoutTls(mode)),
        _ => Ok(Change::Mode(modes)),
    }
}

fn parse_removal(modes: Modes, present: &PgBouncerSpec) -> Result<Change, Refusal> {
    match modes.ssl_mode {
        Some(mode) if mode.is_tls() => Err(Refusal::ModeAfterRemoval(mode)),
        _ if has_tls(present) || present.tls.is_some() => Ok(Change::Remove {
            auth_type: modes.auth_type,
        }),
        _ if modes.auth_type.is_some() => Ok(Change::Mode(Modes {
            ssl_mode: None,
            auth_type: modes.auth_type,
        })),
        _ => Ok(Change::NoOp),
    }
}

/// The mode of a PgBouncer that gets TLS without a word about the mode. Defaulting has written
/// `disable` into it long ago, so "keep what is stored" would add certificates and no TLS.
fn added_mode(present: &PgBouncerSpec) -> SslMode {
    present
        .ssl_mode
        .filter(|mode| mode.is_tls())
        .unwrap_or(SslMode::VerifyFull)
}

fn one_operation(tls: &TlsRequest) -> Result<(), Refusal> {
    let mut asked = Vec::new();
    if tls.remove == Some(true) {
        asked.push("remove");
    }
    if tls.rotate_certificates == Some(true) {
        asked.push("rotateCertificates");
    }
    if asked.is_empty() {
        // issuerRef and certificates go together.
        return Ok(());
    }
    if tls.issuer_ref.is_some() {
        asked.push("issuerRef");
    }
    if !tls.certificates.is_empty() {
        asked.push("certificates");
    }
    if asked.len() > 1 {
        return Err(Refusal::Ambiguous(asked.join(" and ")));
    }
    Ok(())
}

/// The common issuer is one of cert-manager's own; an entry of `certificates` may name one of
/// another group, which signs through a `CertificateRequest`.
fn issuers_are_usable(tls: &TlsRequest) -> Result<(), Refusal> {
    let common = tls
        .issuer_ref
        .iter()
        .map(|issuer| ("spec.tls.issuerRef".to_owned(), issuer));
    let own = tls.certificates.iter().filter_map(|certificate| {
        let issuer = certificate.issuer_ref.as_ref()?;
        Alias::parse(&certificate.alias)?;
        if issuer.group() != CERT_MANAGER_GROUP {
            return None;
        }
        let field = format!("spec.tls.certificates[{}].issuerRef", certificate.alias);
        Some((field, issuer))
    });
    for (field, issuer) in common.chain(own) {
        let known = matches!(issuer.kind.as_str(), "Issuer" | "ClusterIssuer");
        if !known || issuer.group() != CERT_MANAGER_GROUP {
            return Err(Refusal::ForeignIssuer {
                field,
                kind: issuer.kind.clone(),
                group: issuer.group().to_owned(),
            });
        }
    }
    Ok(())
}

fn aliases_are_distinct(certificates: &[CertificateSpec]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for certificate in certificates {
        if !seen.insert(&certificate.alias) {
            return Err(Refusal::AliasTwice(certificate.alias.clone()));
        }
    }
    Ok(())
}
