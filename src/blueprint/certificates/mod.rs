//! Which certificates a PgBouncer wants, and what is to stand in each
//! (docs/kubedb-compatibility.md, "Certificates").

pub(super) mod error;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::ResourceExt;
use time::Duration;

pub use self::error::WantedError;
use crate::api::Located;
use crate::api::tls::{IssuerRef, PrivateKeyEncoding, X509Subject};
use crate::api::{CertificateSpec, PgBouncer};
use crate::blueprint::bounds::check_tls;
use crate::blueprint::choices::{Choices, RotationPolicy};
use crate::blueprint::names;
use crate::duration::GoDuration;
use crate::names::Alias;
use crate::pki::key::{KeyAlgorithm, KeyEncoding};
use crate::pki::profile::Outliving;
use crate::pki::renewal::RenewPolicy;

/// Lifetime where nobody asks for another: 90 days, cert-manager's default.
pub const DURATION_DEFAULT: Duration = Duration::hours(2160);
/// Longest common name that X.509 allows (RFC 5280, `ub-common-name`).
const COMMON_NAME_MAX: usize = 64;
/// What clients and the exporter log in as, so what their certificates say.
const CLIENT_COMMON_NAME: &str = names::ADMIN_USER;

/// One certificate that a PgBouncer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub alias: Alias,
    /// Who signs it.
    pub issuer: IssuerRef,
    /// Where it is published.
    pub secret_name: String,
    /// Name of the certificate itself, `<db>-<alias>-cert` whatever the Secret is called.
    pub certificate_name: String,
    /// What stands in it.
    pub profile: Profile,
    /// Kind of its key.
    pub algorithm: KeyAlgorithm,
    /// PEM form of its key.
    pub encoding: KeyEncoding,
    /// Whether its next revision gets a key of its own.
    pub rotation: RotationPolicy,
    /// What happens if it would outlive its CA.
    pub outliving: Outliving,
    /// How long before its end it is renewed; a third of its life by default.
    pub renew_before: Option<Duration>,
}

/// What stands in a leaf, as text; whoever signs parses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `CN`.
    pub common_name: String,
    /// Rest of the subject.
    pub subject: X509Subject,
    /// DNS names, sorted, without duplicates.
    pub dns_names: Vec<String>,
    /// Addresses, without duplicates.
    pub ip_addresses: Vec<IpAddr>,
    /// URI names.
    pub uris: Vec<String>,
    /// E-mail names.
    pub email_addresses: Vec<String>,
    /// What the key may be used for.
    pub usage: Usage,
    /// Lifetime.
    pub duration: Duration,
}

/// What a leaf's key may be used for. Every leaf may also sign and encipher keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// TLS servers and clients.
    ServerAndClient,
    /// TLS servers.
    Server,
    /// TLS clients.
    Client,
}

/// Addresses that a load balancer gave to the primary Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Names.
    pub hostnames: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
}

/// The certificates that a completed PgBouncer wants, in the order server, client,
/// metrics-exporter; none without `spec.tls`.
///
/// An alias that defaulting left out (client and exporter under an ACME issuer) has no Secret and
/// is not wanted; aliases that nobody knows are ignored.
pub fn wanted(bouncer: &PgBouncer, outside: &LoadBalancer) -> Result<Vec<Wanted>, WantedError> {
    let Some(tls) = &bouncer.spec.tls else {
        return Ok(Vec::new());
    };
    check_tls(tls.issuer_ref.as_ref(), &tls.certificates)?;
    let common = tls.issuer_ref.as_ref().ok_or(WantedError::NoIssuer)?;
    let Choices {
        algorithm,
        rotation,
        outliving,
    } = Choices::of(bouncer)?;
    let mut found: Vec<Wanted> = Vec::new();
    for alias in Alias::ALL {
        let Some(entry) = tls.certificate(alias.as_str()) else {
            continue;
        };
        if !is_wanted(bouncer, alias) {
            continue;
        }
        let secret_name = entry.secret_name.clone().unwrap_or_default();
        if let Some(other) = found.iter().find(|other| other.secret_name == secret_name) {
            return Err(WantedError::SharedSecret {
                first: other.alias,
                second: alias,
                secret: secret_name,
            });
        }
        // The common issuer is one of cert-manager's own, as KubeDB's webhook demands; an entry may
        // name any other, which then signs through a CertificateRequest.
        let issuer = match &entry.issuer_ref {
            Some(own) => own,
            None => check_issuer(alias, common)?,
        };
        let profile = profile(bouncer, alias, entry, issuer, outside)?;
        found.push(Wanted {
            alias,
            issuer: issuer.clone(),
            secret_name,
            certificate_name: names::certificate(&bouncer.name_any(), alias),
            renew_before: renew_before(alias, entry, profile.duration)?,
            profile,
            algorithm,
            rotation,
            outliving,
            encoding: match entry.private_key.as_ref().and_then(|key| key.encoding) {
                Some(PrivateKeyEncoding::Pkcs8) => KeyEncoding::Pkcs8,
                Some(PrivateKeyEncoding::Pkcs1) | None => KeyEncoding::Pkcs1,
            },
        });
    }
    Ok(found)
}

/// Whether a completed PgBouncer wants a certificate of that alias.
pub fn is_wanted(bouncer: &PgBouncer, alias: Alias) -> bool {
    let Some(tls) = bouncer
        .spec
        .tls
        .as_ref()
        .filter(|tls| tls.issuer_ref.is_some())
    else {
        return false;
    };
    tls.certificate(alias.as_str())
        .and_then(|entry| entry.secret_name.as_deref())
        .is_some_and(|secret| !secret.is_empty())
}

// === impl Wanted ===

impl Wanted {
    /// When it is renewed.
    pub fn renew_policy(&self) -> RenewPolicy {
        self.renew_before
            .map_or(RenewPolicy::TwoThirds, RenewPolicy::Before)
    }

    /// The annotations that cert-manager would put on the Secret.
    pub fn secret_annotations(&self) -> BTreeMap<String, String> {
        let Profile {
            common_name,
            subject,
            dns_names,
            ip_addresses,
            uris,
            email_addresses,
            ..
        } = &self.profile;
        let ips: Vec<String> = ip_addresses.iter().map(ToString::to_string).collect();
        let always = [
            ("alt-names", dns_names.join(",")),
            ("ip-sans", ips.join(",")),
            ("uri-sans", uris.join(",")),
            ("common-name", common_name.clone()),
            ("certificate-name", self.certificate_name.clone()),
            ("issuer-name", self.issuer.name.clone()),
            ("issuer-kind", self.issuer.kind.clone()),
            ("issuer-group", self.issuer.group().to_owned()),
        ];
        let if_any = [
            ("email-sans", email_addresses.join(",")),
            ("subject-organizations", subject.organizations.join(",")),
            (
                "subject-organizationalunits",
                subject.organizational_units.join(","),
            ),
            ("subject-countries", subject.countries.join(",")),
            ("subject-provinces", subject.provinces.join(",")),
            ("subject-localities", subject.localities.join(",")),
            (
                "subject-streetaddresses",
                subject.street_addresses.join(","),
            ),
            ("subject-postalcodes", subject.postal_codes.join(",")),
            (
                "subject-serialnumber",
                subject.serial_number.clone().unwrap_or_default(),
            ),
        ];
        always
            .into_iter()
            .chain(if_any.into_iter().filter(|(_, value)| !value.is_empty()))
            .map(|(key, value)| (format!("cert-manager.io/{key}"), value))
            .collect()
    }
}

// === helpers ===

fn profile(
    bouncer: &PgBouncer,
    alias: Alias,
    entry: &CertificateSpec,
    issuer: &IssuerRef,
    outside: &LoadBalancer,
) -> Result<Profile, WantedError> {
    let (name, namespace) = (bouncer.name_any(), bouncer.home());
    let mut profile = Profile {
        common_name: CLIENT_COMMON_NAME.to_owned(),
        subject: entry.subject.clone().unwrap_or_default(),
        dns_names: entry.dns_names.clone(),
        ip_addresses: Vec::new(),
        uris: entry.uris.clone(),
        email_addresses: entry.email_addresses.clone(),
        usage: Usage::Client,
        duration: positive(alias, "duration", entry.duration.as_deref())?
            .unwrap_or(DURATION_DEFAULT),
    };
    if alias == Alias::Server {
        let host = names::service_host(&name, &namespace);
        let pods = names::governing_service(&name);
        profile.dns_names.extend([
            format!("*.{pods}.{namespace}.svc"),
            format!("*.{pods}.{namespace}.svc.cluster.local"),
            format!("*.{host}"),
            "localhost".to_owned(),
            name.clone(),
            host.clone(),
        ]);
        profile.dns_names.extend(outside.hostnames.iter().cloned());
        profile.ip_addresses.push(IpAddr::from([127, 0, 0, 1]));
        profile.ip_addresses.extend(outside.ips.iter().copied());
        // Longer names stand among the DNS names only; object names fit by themselves. Where others have
        // certificates of the same issuer, an object name could be the name of another pooler's user.
        profile.common_name = if host.len() <= COMMON_NAME_MAX {
            host
        } else if issuer.is_shared() {
            names::identity(&name, &namespace)
        } else {
            name
        };
        profile.usage = if issuer.is_shared() {
            Usage::Server
        } else {
            Usage::ServerAndClient
        };
    }
    for value in &entry.ip_addresses {
        let ip = value.parse().map_err(|_| WantedError::IpAddress {
            alias,
            value: value.clone(),
        })?;
        profile.ip_addresses.push(ip);
    }
    profile.dns_names.sort();
    profile.dns_names.dedup();
    let mut seen = Vec::new();
    profile.ip_addresses.retain(|ip| {
        let new = !seen.contains(ip);
        seen.push(*ip);
        new
    });
    Ok(profile)
}

fn renew_before(
    alias: Alias,
    entry: &CertificateSpec,
    duration: Duration,
) -> Result<Option<Duration>, WantedError> {
    let renew_before = positive(alias, "renewBefore", entry.renew_before.as_deref())?;
    match renew_before {
        Some(renew_before) if renew_before >= duration => Err(WantedError::RenewsTooEarly {
            alias,
            renew_before,
            duration,
        }),
        _ => Ok(renew_before),
    }
}

fn positive(
    alias: Alias,
    field: &'static str,
    value: Option<&str>,
) -> Result<Option<Duration>, WantedError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let parsed: GoDuration = value.parse().map_err(|source| WantedError::Duration {
        alias,
        field,
        source,
    })?;
    if parsed <= GoDuration::ZERO {
        return Err(WantedError::NotPositive {
            alias,
            field,
            value: value.to_owned(),
        });
    }
    Ok(Some(parsed.to_time()))
}

fn check_issuer(alias: Alias, issuer: &IssuerRef) -> Result<&IssuerRef, WantedError> {
    let known = issuer.group() == crate::api::tls::CERT_MANAGER_GROUP
        && ["Issuer", "ClusterIssuer"].contains(&issuer.kind.as_str());
    if known {
        return Ok(issuer);
    }
    Err(WantedError::ForeignIssuer {
        alias,
        kind: issuer.kind.clone(),
        group: issuer.group().to_owned(),
    })
}
