//! What is not as it was left: adoption and drift, case by case. Pure.
//!
//! | what is found | what is done |
//! |---|---|
//! | the Secret is gone | the provisioner publishes its revision again |
//! | other certificates in it, sound and with the wanted names | adopted: pods that serve something else are restarted |
//! | something in it that is not sound | published again from its revision; never over another owner |
//! | another owner (a cert-manager `Certificate`) | that owner renews; pods follow it |
//! | the issuer's CA is another than the one that is trusted | rotated, which hands out trust in both |
//! | a load balancer has given the Service an address that its own certificate lacks | rotated |
//! | a pod serves something else than the Secret holds | restarted |
//!
//! *Sound* is: the key fits, and the chain leads to the bundle beside it, now, for what the alias is used for.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use time::OffsetDateTime;

use super::facts::{Remedy, Wish};
use super::index::Served;
use crate::api::annotations::{FINGERPRINT, ISSUED, REVISION};
use crate::api::common::parse_rfc3339;
use crate::api::holder;
use crate::blueprint::certificates::{LoadBalancer, Wanted};
use crate::causes;
use crate::instants::{Shift, Within};
use crate::names::{Alias, Fingerprint};
use crate::pki::bundle::TrustBundle;
use crate::pki::chain::KeyedChain;
use crate::pki::facts::{CertificateFacts, read_chain};
use crate::pki::profile::LeafUsage;
use crate::printable::printable;

/// Names of a leaf that are kept, of each kind: more than any specification may ask for.
const NAMES_MAX: usize = 1_000;
/// Certificates above a leaf that are gone through.
const CHAIN_MAX: usize = 8;
/// Issuers end a leaf with its CA, or a moment before.
const SAME_END: time::Duration = time::Duration::minutes(1);
/// Longest text that is kept of a Secret, in bytes.
const TEXT_MAX: usize = 1_024;
/// How long a restart may be put off where nobody knows when what is served expires.
const UNKNOWN_URGENT_AFTER: time::Duration = time::Duration::days(1);

/// What is left of a Secret: no key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFacts {
    /// Beginning and end of its leaf.
    pub life: Option<(OffsetDateTime, OffsetDateTime)>,
    /// Its leaf.
    pub leaf: Option<Fingerprint>,
    /// Names in its leaf.
    pub dns_names: Vec<String>,
    /// IP addresses in its leaf.
    pub ip_addresses: Vec<IpAddr>,
    /// Whether a TLS server may show its leaf.
    pub server_auth: bool,
    /// Whether a TLS client may show its leaf.
    pub client_auth: bool,
    /// All certificates of its chain and its bundle.
    pub all: Vec<Fingerprint>,
    /// Whether its leaf ends with a CA above it.
    pub ends_with_ca: bool,
    /// When it says that its leaf was issued.
    pub issued: Option<OffsetDateTime>,
    /// The revision that it says it holds.
    pub revision: Option<u32>,
    /// The leaf that Bouncert published in it.
    pub published: Option<Fingerprint>,
    /// A controller that is no PgBouncer or a cert-manager `Certificate`, as kind and name.
    pub owner: Option<String>,
    /// What is wrong with it.
    pub unsound: Option<String>,
}

/// Something that is not as it was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// The Secret of an alias is gone.
    Missing(Alias),
    /// Somebody else's certificates, sound.
    Adopted(Alias),
    /// Something that is not sound, and what is wrong with it.
    Unsound(Alias, String),
    /// It belongs to somebody else.
    Owned(Alias, String),
    /// Its issuer has another CA by now.
    CaRenewed(Alias),
    /// Clients that use these addresses of a load balancer refuse it.
    Unaddressed(Alias, Vec<String>),
    /// These pods serve something else than the Secret holds; since when, and from when on that is
    /// urgent.
    Astray {
        /// Names of the pods.
        pods: Vec<String>,
        /// When what they serve becomes urgent to replace, if it is known.
        since: OffsetDateTime,
    },
}

impl Drift {
    /// One word for programs: reason of a condition, label of a metric.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => "SecretMissing",
            Self::Adopted(_) => "SecretAdopted",
            Self::Unsound(..) => "SecretUnsound",
            Self::Owned(..) => "SecretOwnedByOther",
            Self::CaRenewed(_) => "CaRenewed",
            Self::Unaddressed(..) => "AddressMissing",
            Self::Astray { .. } => "PodServesOther",
        }
    }

    /// Whether a person may have to do something.
    pub const fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::Missing(_) | Self::Unsound(..) | Self::Astray { .. }
        )
    }

    /// A sentence for people.
    pub fn message(&self) -> String {
        match self {
            Self::Missing(alias) => {
                format!("the Secret of the {alias} certificate is gone and will be published again")
            }
            Self::Adopted(alias) => format!(
                "the Secret of the {alias} certificate holds a certificate that Bouncert did not \
                 issue; it is sound and is used"
            ),
            Self::Unsound(alias, why) => format!(
                "the Secret of the {alias} certificate holds something that cannot be used ({why}); \
                 its revision is published again"
            ),
            Self::Owned(alias, owner) => format!(
                "the Secret of the {alias} certificate belongs to {owner}, which renews it; Bouncert \
                 only carries it into the pods"
            ),
            Self::CaRenewed(alias) => format!(
                "the issuer of the {alias} certificate has another CA than the one that is trusted; \
                 the certificates are rotated"
            ),
            Self::Unaddressed(alias, addresses) => format!(
                "the {alias} certificate lacks {}, which a load balancer has given to the Service; the \
                 certificates are rotated",
                addresses.join(", ")
            ),
            Self::Astray { pods, .. } => {
                format!(
                    "{} serve another certificate than the Secret holds",
                    pods.join(", ")
                )
            }
        }
    }
}

/// What is not as it was left with the Secret of `wanted`.
pub fn of_secret(
    wanted: &Wanted,
    secret: Option<&SecretFacts>,
    (authority, outside): (Option<&SecretFacts>, Option<&LoadBalancer>),
    now: OffsetDateTime,
) -> Vec<Drift> {
    let alias = wanted.alias;
    let Some(secret) = secret else {
        return vec![Drift::Missing(alias)];
    };
    let mut found = Vec::new();
    if let Some(owner) = &secret.owner {
        found.push(Drift::Owned(alias, owner.clone()));
    }
    let is_ours = secret.leaf.is_some() && secret.leaf == secret.published;
    // Names and old age of our own are the matter of requests and of the schedule.
    let unfit = || unfitness(wanted, secret, now).filter(|_| !is_ours);
    if let Some(why) = secret.unsound.clone().or_else(unfit) {
        found.push(Drift::Unsound(alias, why));
    } else if !is_ours {
        // That it is not Bouncert's goes without saying where it is somebody's.
        if secret.owner.is_none() {
            found.push(Drift::Adopted(alias));
        }
    } else if authority.is_some_and(|ca| ca.leaf.is_some_and(|ca| !secret.all.contains(&ca))) {
        found.push(Drift::CaRenewed(alias));
    } else if alias == Alias::Server
        && let Some(outside) = outside
    {
        let lacking = unaddressed(secret, outside);
        found.extend((!lacking.is_empty()).then_some(Drift::Unaddressed(alias, lacking)));
    }
    found
}

/// The addresses of a load balancer that a certificate lacks.
fn unaddressed(secret: &SecretFacts, outside: &LoadBalancer) -> Vec<String> {
    let names = outside.hostnames.iter();
    let names = names
        .filter(|name| !secret.dns_names.contains(name))
        .cloned();
    let ips = outside.ips.iter();
    let ips = ips.filter(|ip| !secret.ip_addresses.contains(ip));
    names.chain(ips.map(ToString::to_string)).collect()
}

/// Whether pods serve something else than `secret` holds.
pub fn of_pods(secret: &SecretFacts, served: &Served) -> Option<Drift> {
    let leaf = secret.leaf?;
    let since = served.astray_since?;
    let astray = served
        .pods
        .iter()
        .filter(|(_, served)| **served != Some(leaf));
    let pods: Vec<String> = astray.map(|(pod, _)| pod.clone()).collect();
    (!pods.is_empty()).then_some(Drift::Astray { pods, since })
}

/// What is to be done by a request, if anything is.
pub fn wish(drift: &[Drift], since: OffsetDateTime) -> Option<Wish> {
    // A pod that serves something else cannot be left so while the Secret itself is not sound: it
    // would be restarted into something that does not work.
    let is_unsound = drift
        .iter()
        .any(|drift| matches!(drift, Drift::Unsound(..) | Drift::Missing(_)));
    let wish = |remedy, since: OffsetDateTime, drift: &Drift| Wish {
        remedy,
        since,
        urgent_at: since.plus(UNKNOWN_URGENT_AFTER),
        why: drift.message(),
    };
    let astray = drift.iter().find_map(|found| match found {
        Drift::Astray { since, .. } if !is_unsound => Some(wish(Remedy::Restart, *since, found)),
        _ => None,
    });
    let renewed = drift
        .iter()
        .find(|found| matches!(found, Drift::CaRenewed(_) | Drift::Unaddressed(..)));
    let is_owned = is_renewed_by_others(drift);
    astray.or_else(|| {
        renewed
            .filter(|_| !is_owned)
            .map(|found| wish(Remedy::Rotate, since, found))
    })
}

/// Whether somebody else renews a certificate: a rotation of all would be refused its Secret.
pub fn is_renewed_by_others(drift: &[Drift]) -> bool {
    drift.iter().any(|drift| matches!(drift, Drift::Owned(..)))
}

/// Why a sound certificate is not what is wanted.
fn unfitness(wanted: &Wanted, secret: &SecretFacts, now: OffsetDateTime) -> Option<String> {
    let (not_before, not_after) = secret.life?;
    if now < not_before || now >= not_after {
        return Some(format!("it is valid from {not_before} to {not_after}"));
    }
    let (may, who) = match wanted.alias {
        Alias::Client => (secret.client_auth, "client"),
        Alias::Server | Alias::MetricsExporter => (secret.server_auth, "server"),
    };
    if !may {
        return Some(format!("its extended key usage does not allow a TLS {who}"));
    }
    let names = wanted.profile.dns_names.iter();
    let missing: Vec<&str> = names
        .filter(|name| !secret.dns_names.contains(*name))
        .map(String::as_str)
        .collect();
    // Only the names of a server are compared by anybody.
    (wanted.alias == Alias::Server && !missing.is_empty())
        .then(|| format!("it lacks the names {}", missing.join(", ")))
}

// === reading ===

/// Reads a Secret that holds, or is to hold, certificates; `None` if it is of another kind.
pub fn read(secret: &Secret, now: OffsetDateTime) -> Option<SecretFacts> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        std::str::from_utf8(&bytes.0).ok()
    };
    if secret.type_.as_deref() != Some("kubernetes.io/tls") && text("tls.crt").is_none() {
        return None;
    }
    let annotation = |key: &str| secret.annotations().get(key);
    let controller = holder::controller(secret).filter(|holder| holder.kind != "PgBouncer");
    let owner = controller.or_else(|| holder::certificate(secret));
    let chain = text("tls.crt").map(read_chain);
    let leaf = chain
        .as_ref()
        .and_then(|chain| chain.as_ref().ok()?.first().cloned());
    let bundle = text("ca.crt").map(read_chain);
    let certificates = chain
        .iter()
        .chain(&bundle)
        .filter_map(|read| read.as_ref().ok());
    let others: Vec<&CertificateFacts> = certificates.clone().flatten().collect();
    let ends_with_ca = leaf
        .as_ref()
        .is_some_and(|leaf| ends_with_ca(leaf, &others));
    Some(SecretFacts {
        ends_with_ca,
        life: leaf.as_ref().map(|leaf| (leaf.not_before, leaf.not_after)),
        leaf: leaf.as_ref().map(|leaf| leaf.fingerprint),
        dns_names: leaf
            .iter()
            .flat_map(|leaf| leaf.dns_names.iter().take(NAMES_MAX).cloned())
            .collect(),
        ip_addresses: leaf
            .iter()
            .flat_map(|leaf| leaf.ip_addresses.iter().take(NAMES_MAX).copied())
            .collect(),
        server_auth: leaf.as_ref().is_some_and(|leaf| leaf.server_auth),
        client_auth: leaf.as_ref().is_some_and(|leaf| leaf.client_auth),
        all: certificates
            .flatten()
            .map(|facts: &CertificateFacts| facts.fingerprint)
            .collect(),
        issued: annotation(ISSUED).and_then(|text| parse_rfc3339(text)),
        revision: annotation(REVISION).and_then(|text| text.parse().ok()),
        published: annotation(FINGERPRINT).and_then(|text| Fingerprint::parse(text)),
        owner: owner.map(|owner| printable(&owner.to_string(), TEXT_MAX)),
        unsound: proof(text("tls.crt"), text("tls.key"), text("ca.crt"), now)
            .err()
            .map(|why| printable(&why, TEXT_MAX)),
    })
}

/// Whether a leaf ends when a CA above it does. Of several CAs of one name the one that ends last counts.
fn ends_with_ca(leaf: &CertificateFacts, others: &[&CertificateFacts]) -> bool {
    let mut above = leaf;
    for _ in 0..CHAIN_MAX {
        if above.is_self_issued {
            return false;
        }
        let others = others.iter().copied();
        let named = others.filter(|other| other.subject == above.issuer);
        let Some(ca) = named.max_by_key(|other| other.not_after) else {
            return false;
        };
        if leaf.not_after.plus(SAME_END) >= ca.not_after {
            return true;
        }
        above = ca;
    }
    false
}

/// Key, chain and bundle belong together. What is not valid at this time is not unsound for that.
fn proof(
    chain: Option<&str>,
    key: Option<&str>,
    bundle: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), String> {
    let chain = chain.ok_or("key tls.crt is missing")?;
    let key = key.ok_or("key tls.key is missing")?;
    let bundle = bundle.ok_or("key ca.crt is missing")?;
    let keyed = KeyedChain::new(chain, key).map_err(|error| causes::chain(&error))?;
    let bundle = TrustBundle::from_pem(bundle).map_err(|error| causes::chain(&error))?;
    let leaf = keyed
        .chain()
        .leaf_facts()
        .ok_or("its leaf cannot be read")?;
    // What it is used for is compared with what is wanted, where that is known.
    let usage = if leaf.client_auth {
        LeafUsage::Client
    } else {
        LeafUsage::ServerAndClient
    };
    let at = now.within(
        leaf.not_before,
        leaf.not_after.minus(time::Duration::SECOND),
    );
    keyed
        .chain()
        .verify_path(&bundle, usage, at)
        .map(drop)
        .map_err(|error| causes::chain(&error))
}
