//! The Secrets that hold material: how they are built, read and recognised. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use time::OffsetDateTime;

use super::{MaterialError, Published, Revisioned};
use crate::api::Located;
use crate::api::annotations::{
    ALIAS_LABEL, CLAMPED, FINGERPRINT, ISSUED, REVISION, REVISION_LABEL,
};
use crate::api::common::rfc3339_seconds;
use crate::api::{PgBouncer, holder};
use crate::blueprint::certificates::Wanted;
use crate::blueprint::labels;
use crate::cluster::reference;
use crate::names::{Alias, ObjectRef, Revision, name_with_suffix};
use crate::pki::bundle::TrustBundle;
use crate::pki::chain::{CertificateChain, ChainError, KeyedChain, VerifiedChain};
use crate::pki::facts::CertificateFacts;
use crate::pki::key::{KeyEncoding, PrivateKey};

const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const CA_CRT: &str = "ca.crt";
/// Type of every Secret with a certificate.
const TLS_TYPE: &str = "kubernetes.io/tls";
/// Label that cert-manager puts on the Secrets it writes.
const FAO_LABEL: &str = "controller.cert-manager.io/fao";

// === revision Secrets ===

/// Where a revision is kept.
pub(super) fn revision_ref(owner: &PgBouncer, alias: Alias, revision: Revision) -> ObjectRef {
    let name = name_with_suffix(&owner.name_any(), &format!("{alias}-cert-{revision}"));
    owner.beside(name)
}

/// Selects the revisions of an alias.
pub(super) fn revision_selector(owner: &PgBouncer, alias: Alias) -> String {
    let mut wanted = labels::selector(&owner.name_any());
    wanted.insert(ALIAS_LABEL.to_owned(), alias.to_string());
    wanted.insert(REVISION_LABEL.to_owned(), "true".to_owned());
    labels::to_selector_text(&wanted)
}

/// The immutable Secret of a revision.
pub(super) fn revision(
    owner: &PgBouncer,
    wanted: &Wanted,
    revision: Revision,
    chain: VerifiedChain,
) -> Secret {
    let at = revision_ref(owner, wanted.alias, revision);
    let mut labels = labels::offshoot(owner);
    labels.insert(ALIAS_LABEL.to_owned(), wanted.alias.to_string());
    labels.insert(REVISION_LABEL.to_owned(), "true".to_owned());
    let mut made = secret(
        owner,
        at.name,
        labels,
        annotations(wanted, revision, &chain),
        chain,
    );
    made.immutable = Some(true);
    made
}

/// Says that the leaf ends earlier than was asked for.
pub(super) fn mark_clamped(secret: &mut Secret) {
    secret
        .annotations_mut()
        .insert(CLAMPED.to_owned(), "true".to_owned());
}

/// Reads a revision.
pub(super) fn read_revision(
    secret: &Secret,
    alias: Alias,
    revision: Revision,
) -> Result<Revisioned, MaterialError> {
    let at = reference(secret);
    let (chain, facts) = read_chain(secret, &at)?;
    Ok(Revisioned {
        alias,
        revision,
        facts,
        chain,
        anchors: read_bundle(secret, &at)?,
        clamped: secret.annotations().contains_key(CLAMPED),
    })
}

/// The number that a Secret's annotation tells.
pub(super) fn revision_of(secret: &Secret) -> Option<Revision> {
    secret
        .annotations()
        .get(REVISION)?
        .parse()
        .ok()
        .and_then(Revision::new)
}

/// What the leaf of a Secret says, if it can be read.
pub(super) fn leaf_of(secret: &Secret) -> Option<CertificateFacts> {
    read_chain(secret, &reference(secret))
        .ok()
        .map(|(_, facts)| facts)
}

/// Reads chain and key, and proves that they belong together.
pub(super) fn read_keyed(secret: &Secret, at: &ObjectRef) -> Result<KeyedChain, MaterialError> {
    KeyedChain::new(text(secret, TLS_CRT, at)?, text(secret, TLS_KEY, at)?).map_err(|source| {
        MaterialError::ReadChain {
            secret: at.clone(),
            source,
        }
    })
}

// === keys that wait for an answer ===

/// Where the key of a revision is kept while its issuer takes its time.
pub(super) fn waiting_key_ref(owner: &PgBouncer, alias: Alias, revision: Revision) -> ObjectRef {
    let name = name_with_suffix(&owner.name_any(), &format!("{alias}-cert-{revision}-key"));
    owner.beside(name)
}

/// The Secret of such a key.
pub(super) fn waiting_key(
    owner: &PgBouncer,
    alias: Alias,
    revision: Revision,
    key: &PrivateKey,
    encoding: KeyEncoding,
) -> Secret {
    let at = waiting_key_ref(owner, alias, revision);
    let mut labels = labels::offshoot(owner);
    labels.insert(ALIAS_LABEL.to_owned(), alias.to_string());
    let pem = key.to_pem(encoding);
    let bytes = ByteString(pem.expose().as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(at.name),
            namespace: Some(at.namespace),
            labels: Some(labels),
            owner_references: owner
                .controller_owner_ref(&())
                .map(|reference| vec![reference]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([(TLS_KEY.to_owned(), bytes)])),
        ..Secret::default()
    }
}

/// Reads such a key.
pub(super) fn read_waiting_key(
    secret: &Secret,
    at: &ObjectRef,
) -> Result<PrivateKey, MaterialError> {
    PrivateKey::from_pem(text(secret, TLS_KEY, at)?).map_err(|source| MaterialError::ReadChain {
        secret: at.clone(),
        source: ChainError::Key(source),
    })
}

// === contract Secrets ===

/// Says on published material when its revision was made, by the API server's clock.
pub(super) fn mark_issued(published: &mut Secret, revision: &Secret) {
    if let Some(issued) = created(revision) {
        let annotations = published.annotations_mut();
        annotations.insert(ISSUED.to_owned(), rfc3339_seconds(issued));
    }
}

/// The contract Secret of an alias
/// (docs/kubedb-compatibility.md, "Certificate Secrets").
pub(super) fn contract(
    owner: &PgBouncer,
    wanted: &Wanted,
    revision: Revision,
    chain: VerifiedChain,
) -> Secret {
    let mut labels = labels::offshoot(owner);
    labels.insert(FAO_LABEL.to_owned(), "true".to_owned());
    labels.insert(ALIAS_LABEL.to_owned(), wanted.alias.to_string());
    let annotations = annotations(wanted, revision, &chain);
    secret(
        owner,
        wanted.secret_name.clone(),
        labels,
        annotations,
        chain,
    )
}

/// Reads a contract Secret; `None` if there is no material in it.
pub(super) fn read_published(
    secret: &Secret,
    alias: Alias,
) -> Result<Option<Published>, MaterialError> {
    if secret
        .data
        .as_ref()
        .is_none_or(|data| !data.contains_key(TLS_CRT))
    {
        return Ok(None);
    }
    let at = reference(secret);
    let (_, facts) = read_chain(secret, &at)?;
    let revision = revision_of(secret);
    Ok(Some(Published {
        alias,
        revision,
        facts,
        bundle: read_bundle(secret, &at)?,
    }))
}

/// Replaces the bundle; says whether that changes anything.
pub(super) fn set_bundle(secret: &mut Secret, bundle: &TrustBundle) -> bool {
    let pem = ByteString(bundle.to_pem().into_bytes());
    let data = secret.data.get_or_insert_default();
    data.insert(CA_CRT.to_owned(), pem.clone()) != Some(pem)
}

/// Whether `published` serves what `revision` holds: the same chain and key, and all its anchors.
pub(super) fn is_served_by(revision: &Secret, published: &Secret) -> bool {
    let octets =
        |secret: &Secret, key| secret.data.as_ref().and_then(|data| data.get(key)).cloned();
    let same = |key| {
        let held: Option<ByteString> = octets(revision, key);
        held.is_some() && held == octets(published, key)
    };
    let bundle = |secret: &Secret| read_bundle(secret, &reference(secret)).ok();
    let (Some(own), Some(all)) = (bundle(revision), bundle(published)) else {
        return false;
    };
    let keys = revision.data.iter().flatten().map(|(key, _)| key.as_str());
    same(TLS_CRT) && same(TLS_KEY) && keys.eq([CA_CRT, TLS_CRT, TLS_KEY]) && all.union(&own) == all
}

/// Whether two Secrets say the same.
pub(super) fn holds_the_same(present: &Secret, next: &Secret) -> bool {
    let carries = |has: &BTreeMap<String, String>, wants: &BTreeMap<String, String>| {
        wants.iter().all(|(key, value)| has.get(key) == Some(value))
    };
    present.data == next.data
        && carries(present.annotations(), next.annotations())
        && carries(present.labels(), next.labels())
        && is_same_owner(present, next)
}

/// Gives `next` what makes it the same object as `present`: its version, for the compare-and-swap,
/// the labels and annotations that others have put on it, and its owners. One that a user has made
/// does not become ours by being written, and so does not go with the PgBouncer.
pub(super) fn keep_identity(present: &Secret, next: &mut Secret) {
    next.metadata.resource_version = present.resource_version();
    next.metadata.uid = present.uid();
    next.metadata
        .finalizers
        .clone_from(&present.metadata.finalizers);
    if !has_controller_of(next, present) {
        next.metadata.owner_references = None;
    }
    let known = next.owner_references().to_vec();
    let others = present.owner_references().iter();
    let others = others.filter(|other| known.iter().all(|owner| owner.uid != other.uid));
    let owners: Vec<_> = known.iter().chain(others).cloned().collect();
    next.metadata.owner_references = (!owners.is_empty()).then_some(owners);
    // The type of a Secret cannot be changed, and somebody may have made ours beforehand.
    next.type_.clone_from(&present.type_);
    for (key, value) in present.annotations() {
        next.annotations_mut()
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    for (key, value) in present.labels() {
        next.labels_mut()
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
}

/// When the API server has made it, by its own clock.
pub(super) fn created(secret: &Secret) -> Option<OffsetDateTime> {
    let created = secret.creation_timestamp()?;
    OffsetDateTime::from_unix_timestamp(created.0.as_second()).ok()
}

// === whose it is ===

/// Whether `owner` is the Secret's controller.
pub(super) fn is_owned_by(secret: &Secret, owner: &PgBouncer) -> bool {
    let uid = owner.meta().uid.as_deref();
    uid.is_some_and(|uid| holder::is_controlled_by(secret, uid))
}

/// Whether the controller that `next` names is the one of `present`.
fn has_controller_of(next: &Secret, present: &Secret) -> bool {
    holder::controller_reference(next)
        .is_some_and(|owner| holder::is_controlled_by(present, &owner.uid))
}

/// Refuses to write over a Secret that another controller, cert-manager or another PgBouncer holds.
pub(super) fn check_writable(
    secret: &Secret,
    owner: &PgBouncer,
    at: &ObjectRef,
) -> Result<(), MaterialError> {
    // One of cert-manager's issues anew whenever it finds something else in it: neither would have
    // the last word.
    let is_foreign = holder::certificate(secret).is_some()
        || !is_owned_by(secret, owner)
            && (holder::controller(secret).is_some()
                || labels::are_foreign(secret.labels(), &owner.name_any()));
    if !is_foreign {
        return Ok(());
    }
    Err(MaterialError::Foreign {
        secret: at.clone(),
        holder: held_by(secret),
    })
}

fn held_by(secret: &Secret) -> String {
    match holder::certificate(secret).or_else(|| holder::controller(secret)) {
        Some(holder) => holder.to_string(),
        None => "nobody that its owner references name".to_owned(),
    }
}

fn is_same_owner(one: &Secret, other: &Secret) -> bool {
    other
        .owner_references()
        .iter()
        .all(|owner| one.owner_references().contains(owner))
}

// === helpers ===

fn annotations(
    wanted: &Wanted,
    revision: Revision,
    chain: &VerifiedChain,
) -> BTreeMap<String, String> {
    let mut annotations = wanted.secret_annotations();
    annotations.insert(REVISION.to_owned(), revision.get().to_string());
    annotations.insert(
        FINGERPRINT.to_owned(),
        chain.facts().fingerprint.to_string(),
    );
    annotations
}

fn secret(
    owner: &PgBouncer,
    name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    chain: VerifiedChain,
) -> Secret {
    let data = chain.into_secret_data();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: owner.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: owner
                .controller_owner_ref(&())
                .map(|reference| vec![reference]),
            ..ObjectMeta::default()
        },
        type_: Some(TLS_TYPE.to_owned()),
        data: Some(BTreeMap::from([
            (CA_CRT.to_owned(), bytes(&data.ca_crt)),
            (TLS_CRT.to_owned(), bytes(&data.tls_crt)),
            (TLS_KEY.to_owned(), bytes(data.tls_key.expose())),
        ])),
        ..Secret::default()
    }
}

fn read_chain(
    secret: &Secret,
    at: &ObjectRef,
) -> Result<(CertificateChain, CertificateFacts), MaterialError> {
    let chain = CertificateChain::from_pem(text(secret, TLS_CRT, at)?).map_err(|source| {
        MaterialError::ReadChain {
            secret: at.clone(),
            source,
        }
    })?;
    let facts = chain.leaf_facts().ok_or_else(|| MaterialError::NoKey {
        secret: at.clone(),
        key: "readable tls.crt",
    })?;
    Ok((chain, facts))
}

fn read_bundle(secret: &Secret, at: &ObjectRef) -> Result<TrustBundle, MaterialError> {
    TrustBundle::from_pem(text(secret, CA_CRT, at)?).map_err(|source| MaterialError::ReadBundle {
        secret: at.clone(),
        source,
    })
}

fn text<'a>(
    secret: &'a Secret,
    key: &'static str,
    at: &ObjectRef,
) -> Result<&'a str, MaterialError> {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .and_then(|value| std::str::from_utf8(&value.0).ok())
        .ok_or_else(|| MaterialError::NoKey {
            secret: at.clone(),
            key,
        })
}
