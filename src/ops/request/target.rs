//! What the spec says after a change: the three fields a request may write, and nothing else.

use serde::{Deserialize, Serialize};

use super::{Change, Modes};
use crate::api::pgbouncer::PgBouncerSpec;
use crate::api::{AuthType, CertificateSpec, IssuerRef, SslMode, TlsConfig};
use crate::blueprint::defaults::{IssuerKind, complete_tls};
use crate::blueprint::names;
use crate::names::Alias;

/// The part of a PgBouncer's spec that a request changes: what commit writes, and what undoing
/// writes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsState {
    /// `spec.tls`.
    pub tls: Option<TlsConfig>,
    /// `spec.sslMode`.
    pub ssl_mode: Option<SslMode>,
    /// `spec.connectionPool.authType`.
    pub auth_type: Option<AuthType>,
}

impl TlsState {
    /// What a spec says now.
    pub fn of(spec: &PgBouncerSpec) -> Self {
        Self {
            tls: spec.tls.clone(),
            ssl_mode: spec.ssl_mode,
            auth_type: spec.connection_pool.as_ref().and_then(|p| p.auth_type),
        }
    }

    /// Whether the pooler answers TLS in this state.
    pub fn serves_tls(&self) -> bool {
        self.tls.is_some() && self.ssl_mode.is_some_and(SslMode::is_tls)
    }

    /// Name of the contract Secret of `alias` of the PgBouncer `database`; `None` where the state
    /// has no such certificate.
    pub fn secret_name(&self, database: &str, alias: Alias) -> Option<String> {
        let entry = self.tls.as_ref()?.certificate(alias.as_str())?;
        Some(
            entry
                .secret_name
                .clone()
                .unwrap_or_else(|| names::certificate(database, alias)),
        )
    }

    /// The aliases that have a certificate in this state.
    pub fn aliases(&self) -> Vec<Alias> {
        Alias::ALL
            .into_iter()
            .filter(|alias| {
                self.tls
                    .as_ref()
                    .is_some_and(|tls| tls.certificate(alias.as_str()).is_some())
            })
            .collect()
    }
}

/// `spec` with the fields of `state`.
pub fn with_state(spec: &PgBouncerSpec, state: &TlsState) -> PgBouncerSpec {
    let mut spec = spec.clone();
    spec.tls.clone_from(&state.tls);
    spec.ssl_mode = state.ssl_mode;
    if state.auth_type.is_some() || spec.connection_pool.is_some() {
        spec.connection_pool.get_or_insert_default().auth_type = state.auth_type;
    }
    spec
}

/// What the PgBouncer `database` with `spec` says after `change`. `signer` is what is known of the
/// issuer then: an ACME issuer completes only the server's certificate.
pub fn target_state(
    database: &str,
    spec: &PgBouncerSpec,
    change: &Change,
    signer: IssuerKind,
) -> TlsState {
    let present = TlsState::of(spec);
    let complete = |issuer_ref: Option<IssuerRef>, certificates: Vec<CertificateSpec>| {
        let mut tls = TlsConfig {
            issuer_ref,
            certificates,
        };
        complete_tls(&mut tls, database, signer);
        tls
    };
    match change {
        Change::Add {
            issuer,
            certificates,
            ssl_mode,
            auth_type,
        } => TlsState {
            tls: Some(complete(Some(issuer.clone()), certificates.clone())),
            ssl_mode: Some(*ssl_mode),
            auth_type: auth_type.or(present.auth_type),
        },
        Change::ChangeIssuer {
            issuer,
            certificates,
            modes,
        } => {
            let entries = replaced(present.tls.as_ref(), certificates);
            present.with(*modes, |_| complete(Some(issuer.clone()), entries))
        }
        Change::UpdateCertificates {
            certificates,
            modes,
        } => {
            let entries = replaced(present.tls.as_ref(), certificates);
            present.with(*modes, |tls| complete(tls.issuer_ref.clone(), entries))
        }
        Change::Rotate { modes } | Change::Mode(modes) => present.with(*modes, Clone::clone),
        Change::Remove { auth_type } => TlsState {
            tls: None,
            ssl_mode: Some(SslMode::Disable),
            auth_type: auth_type.or(present.auth_type),
        },
        Change::Restart | Change::NoOp => present,
    }
}

impl TlsState {
    fn with(self, modes: Modes, tls: impl FnOnce(&TlsConfig) -> TlsConfig) -> Self {
        Self {
            tls: self.tls.as_ref().map(tls),
            ssl_mode: modes.ssl_mode.or(self.ssl_mode),
            auth_type: modes.auth_type.or(self.auth_type),
        }
    }
}

/// The present entries, with those of the same alias replaced in place and new ones at the end. A
/// replaced entry keeps its Secret unless the request names another.
fn replaced(present: Option<&TlsConfig>, by: &[CertificateSpec]) -> Vec<CertificateSpec> {
    let mut entries = present.map_or_else(Vec::new, |tls| tls.certificates.clone());
    for new in by {
        match entries.iter_mut().find(|entry| entry.alias == new.alias) {
            Some(entry) => {
                let secret_name = new.secret_name.clone().or_else(|| entry.secret_name.take());
                *entry = CertificateSpec {
                    secret_name,
                    ..new.clone()
                };
            }
            None => entries.push(new.clone()),
        }
    }
    entries
}
