//! Which Secrets are ours: the seal on what was staged, and where its key is kept.
//!
//! A name, a label and an owner reference can be written by anyone who may create Secrets in the
//! namespace. So each revision, and each key that waits for an answer, carries a seal over where it
//! is, whose it is and what is in it (`seal`). A Secret without a seal that holds is foreign: it is
//! not read, not counted, not published and not deleted; its name is taken, and the next number is
//! used instead.
//!
//! The key is in one Secret of the daemon's own namespace. It is made once. Where it is lost, or where
//! a version that did not seal has issued, all revisions are foreign but the one that is published
//! now: its content is what clients are served anyway, so sealing it gives nothing to anyone. A
//! rotation begins from there as usual.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use zeroize::Zeroizing;

use super::profile::leaf_profile;
use super::{MaterialError, Materials, secret};
use crate::api::PgBouncer;
use crate::api::annotations::{CLAMPED, SEAL};
use crate::blueprint::certificates::Wanted;
use crate::blueprint::names::certificate_secret;
use crate::cluster::{Cluster, ClusterError, EventKind, Reporter, reference};
use crate::names::{Alias, ObjectRef, Revision};
use crate::pki::chain::Expectation;
use crate::redacted::Wiped;
use crate::retry::Retry;
use crate::seal::{KEY_LEN, Kind, Seal};

/// Name of the Secret with the key of the seal.
const KEY_SECRET: &str = "bouncert-seal";
/// Its field.
const KEY: &str = "key";
/// Numbers that are tried before a plan gives up: each costs two reads.
const TAKEN_MAX: u32 = 64;
/// Foreign Secrets that one event names.
const NAMED_MAX: usize = 5;

/// There is no seal.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The API server did not do what it was asked.
    #[error(
        "cannot get at the key of the seal: the daemon's own namespace (--namespace) must exist"
    )]
    Cluster(#[from] ClusterError),
    /// The Secret does not hold a key.
    #[error(
        "Secret {0} must hold {KEY_LEN} octets in `{KEY}`: restore it, or delete it to have a new key \
         made, with which revisions that are not published now count as foreign"
    )]
    Damaged(ObjectRef),
    /// The operating system gave no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
}

impl SealError {
    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Cluster(source) => source.retry(),
            Self::Damaged(_) => Retry::WhenChanged,
            Self::NoRandom => Retry::Backoff,
        }
    }
}

/// Reads the key of the seal from the namespace `home`, or makes it there.
pub async fn seal_of(cluster: &Cluster, home: &str) -> Result<Seal, SealError> {
    let at = ObjectRef::new(home, KEY_SECRET);
    let kept = match cluster.get_secret(&at).await? {
        Some(kept) => kept,
        None => {
            let made = Wiped::from(key_secret(&at)?);
            Wiped::from(cluster.create_or_get(&*made).await?)
        }
    };
    let key = kept.data.as_ref().and_then(|data| data.get(KEY));
    key.and_then(|key| Seal::new(&key.0))
        .ok_or(SealError::Damaged(at))
}

fn key_secret(at: &ObjectRef) -> Result<Secret, SealError> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    SystemRandom::new()
        .fill(key.as_mut())
        .map_err(|_| SealError::NoRandom)?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(at.name.clone()),
            namespace: Some(at.namespace.clone()),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(key.to_vec()))])),
        ..Secret::default()
    })
}

/// What a sealed Secret is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    pub(super) kind: Kind,
    pub(super) alias: Alias,
    pub(super) revision: Revision,
}

impl Staged {
    pub(super) const fn revision(alias: Alias, revision: Revision) -> Self {
        Self {
            kind: Kind::Revision,
            alias,
            revision,
        }
    }

    pub(super) const fn waiting_key(alias: Alias, revision: Revision) -> Self {
        Self {
            kind: Kind::WaitingKey,
            alias,
            revision,
        }
    }

    /// Where it is kept.
    fn at(self, owner: &PgBouncer) -> ObjectRef {
        match self.kind {
            Kind::WaitingKey => secret::waiting_key_ref(owner, self.alias, self.revision),
            Kind::Revision | Kind::Settled => {
                secret::revision_ref(owner, self.alias, self.revision)
            }
        }
    }

    /// The seal of `content` as that, staged for `owner`.
    pub(super) fn mark(self, seal: &Seal, owner: &PgBouncer, content: &Secret) -> String {
        self.with_parts(owner, content, |parts| seal.seal(self.kind, parts))
    }

    /// Whether `content` carries a seal that holds for it as that.
    fn is_sealed(self, seal: &Seal, owner: &PgBouncer, content: &Secret) -> bool {
        let Some(mark) = content.annotations().get(SEAL) else {
            return false;
        };
        reference(content) == self.at(owner)
            && self.with_parts(owner, content, |parts| seal.holds(self.kind, parts, mark))
    }

    fn with_parts<T>(
        self,
        owner: &PgBouncer,
        content: &Secret,
        seal: impl FnOnce(&[&[u8]]) -> T,
    ) -> T {
        let at = self.at(owner);
        let uid = owner.uid().unwrap_or_default();
        let number = self.revision.get().to_be_bytes();
        let clamped: &[u8] = if content.annotations().contains_key(CLAMPED) {
            b"clamped"
        } else {
            b""
        };
        let mut parts: Vec<&[u8]> = vec![
            at.namespace.as_bytes(),
            at.name.as_bytes(),
            uid.as_bytes(),
            self.alias.as_str().as_bytes(),
            &number,
            clamped,
        ];
        for (key, value) in content.data.iter().flatten() {
            parts.push(key.as_bytes());
            parts.push(&value.0);
        }
        seal(&parts)
    }
}

impl Materials {
    /// Seals `made`, which is staged for `owner`.
    pub(super) fn seal_made(
        &self,
        owner: &PgBouncer,
        staged: Staged,
        made: &mut Secret,
    ) -> Result<(), MaterialError> {
        let seal = self.seal.as_ref().ok_or(MaterialError::NoSeal)?;
        let mark = staged.mark(seal, owner, made);
        made.annotations_mut().insert(SEAL.to_owned(), mark);
        Ok(())
    }

    /// Whether `found` was staged by a daemon with our key. Without a key, which is enough to tell what
    /// would be done but not to do it, an owner reference is believed.
    pub(super) fn is_ours(&self, owner: &PgBouncer, staged: Staged, found: &Secret) -> bool {
        let is_sealed = |seal: &Seal| staged.is_sealed(seal, owner, found);
        secret::is_owned_by(found, owner) && self.seal.as_ref().is_none_or(is_sealed)
    }

    /// Refuses a Secret that a daemon with our key has not staged.
    pub(super) fn check_ours(
        &self,
        owner: &PgBouncer,
        staged: Staged,
        found: &Secret,
    ) -> Result<(), MaterialError> {
        if self.is_ours(owner, staged, found) {
            return Ok(());
        }
        Err(MaterialError::NotSealed {
            secret: reference(found),
        })
    }

    /// The number that the next issuance of `alias` takes: after the highest of ours, the first whose
    /// names are free.
    pub async fn next_revision(
        &self,
        owner: &PgBouncer,
        alias: Alias,
    ) -> Result<Revision, MaterialError> {
        let kept = self.revisions(owner, alias).await?;
        let mut last = kept
            .iter()
            .filter_map(|kept| secret::revision_of(kept))
            .max();
        for _ in 0..TAKEN_MAX {
            let next = last.map_or(Some(Revision::FIRST), Revision::next);
            let Some(next) = next else {
                break;
            };
            if self.is_free(owner, alias, next).await? {
                return Ok(next);
            }
            last = Some(next);
        }
        Err(MaterialError::NoNumber {
            secret: secret::revision_ref(owner, alias, last.unwrap_or(Revision::FIRST)),
        })
    }

    /// Whether nothing foreign has the names that a revision and its key need.
    async fn is_free(
        &self,
        owner: &PgBouncer,
        alias: Alias,
        next: Revision,
    ) -> Result<bool, MaterialError> {
        let revision = secret::revision_ref(owner, alias, next);
        if self.cluster.get_secret(&revision).await?.is_some() {
            return Ok(false);
        }
        let key = secret::waiting_key_ref(owner, alias, next);
        let key = self.cluster.get_secret(&key).await?;
        let staged = Staged::waiting_key(alias, next);
        Ok(key.is_none_or(|key| self.is_ours(owner, staged, &key)))
    }

    /// Seals the revisions that are published now and carry no seal that holds, and reports the other
    /// Secrets that look like revisions of `owner` and are none of ours.
    pub async fn take_stock(&self, owner: &PgBouncer) -> Result<(), MaterialError> {
        let mut foreign = Vec::new();
        for alias in Alias::ALL {
            for found in self.labelled(owner, alias).await? {
                let number = secret::revision_of(&found);
                let staged = number.map(|number| Staged::revision(alias, number));
                if staged.is_some_and(|staged| self.is_ours(owner, staged, &found)) {
                    continue;
                }
                let published = match staged {
                    Some(staged) => self.seal_published(owner, staged, &found).await?,
                    None => false,
                };
                if !published {
                    foreign.push(found.name_any());
                }
            }
        }
        if !foreign.is_empty() {
            self.report_foreign(owner, &foreign).await;
        }
        Ok(())
    }

    /// Seals `found` if it is what the contract Secret says it was published from, and holds the same.
    async fn seal_published(
        &self,
        owner: &PgBouncer,
        staged: Staged,
        found: &Secret,
    ) -> Result<bool, MaterialError> {
        let Some(seal) = &self.seal else {
            return Ok(false);
        };
        let contract = certificate_secret(owner, staged.alias);
        let contract = ObjectRef::new(owner.namespace().unwrap_or_default(), contract);
        let Some(published) = self.cluster.get_secret(&contract).await? else {
            return Ok(false);
        };
        let is_published = reference(found) == staged.at(owner)
            && secret::is_owned_by(found, owner)
            && secret::is_owned_by(&published, owner)
            && secret::revision_of(&published) == Some(staged.revision)
            && secret::is_served_by(found, &published);
        if !is_published {
            return Ok(false);
        }
        self.put_seal(found, staged.mark(seal, owner, found))
            .await?;
        Ok(true)
    }

    /// Seals a revision that a former version has staged, if it can be proved: its leaf is the wanted
    /// one, was signed by an anchor that is published, and it names no other anchor.
    pub async fn seal_proved(
        &self,
        owner: &PgBouncer,
        wanted: &Wanted,
        revision: Revision,
    ) -> Result<(), MaterialError> {
        let staged = Staged::revision(wanted.alias, revision);
        let published = self.published(owner, wanted.alias, &wanted.secret_name);
        let (Some(seal), Some(published)) = (&self.seal, published.await?) else {
            return Ok(());
        };
        let Some(found) = self.cluster.get_secret(&staged.at(owner)).await? else {
            return Ok(());
        };
        let is_named = secret::revision_of(&found) == Some(revision);
        if is_named && secret::is_owned_by(&found, owner) {
            let at = reference(&*found);
            let anchors = secret::read_revision(&found, wanted.alias, revision)?.anchors;
            let keyed = secret::read_keyed(&found, &at)?;
            let now = keyed.within_life(self.clock.now());
            let expected = Expectation::of(&leaf_profile(wanted), now);
            let is_trusted = published.bundle.union(&anchors) == published.bundle;
            if is_trusted && keyed.verify(&published.bundle, &expected).is_ok() {
                self.put_seal(&found, staged.mark(seal, owner, &found))
                    .await?;
            }
        }
        Ok(())
    }

    async fn put_seal(&self, found: &Secret, mark: String) -> Result<(), MaterialError> {
        let patch = json!({ "metadata": {
            "resourceVersion": found.resource_version(), "annotations": { SEAL: mark },
        } });
        let at = reference(found);
        self.cluster.patch::<Secret>(&at, &patch).await?;
        tracing::warn!(secret = %at, "revision sealed: it had no seal that holds");
        Ok(())
    }

    async fn report_foreign(&self, owner: &PgBouncer, foreign: &[String]) {
        let named: Vec<&str> = foreign.iter().take(NAMED_MAX).map(String::as_str).collect();
        let message = format!(
            "{} Secrets have the labels of revisions and no seal of Bouncert's, and are not used: {}{}. \
             Delete those that nothing else needs",
            foreign.len(),
            named.join(", "),
            if foreign.len() > NAMED_MAX {
                ", …"
            } else {
                ""
            }
        );
        tracing::warn!(pgbouncer = %reference(owner), message, "foreign revisions");
        let reporter = Reporter::new(self.cluster.clone(), "bouncert");
        let what = ("ForeignRevision", message.as_str());
        reporter
            .report(owner, EventKind::Warning, what, self.clock.now())
            .await;
    }
}
