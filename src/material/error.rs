//! What can go wrong with material.

use time::OffsetDateTime;

use crate::cluster::ClusterError;
use crate::issuer::IssuerError;
use crate::names::{Alias, ObjectRef};
use crate::pki::bundle::Namesakes;
use crate::pki::chain::{ChainError, Verdict};
use crate::pki::key::KeyError;
use crate::pki::pem::PemError;
use crate::retry::Retry;

/// Material cannot be made, read or published.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// The API server did not do what it was asked.
    #[error("cannot reach the Secrets that hold the material")]
    Cluster(#[from] ClusterError),
    /// No key.
    #[error("cannot make the private key of {alias}")]
    MakeKey {
        /// Whose.
        alias: Alias,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The issuer failed.
    #[error("cannot issue the certificate of {alias}")]
    Issue {
        /// Whose.
        alias: Alias,
        /// Why.
        #[source]
        source: Box<IssuerError>,
    },
    /// The issuer signed another key.
    #[error("the issuer's answer is not for the key of {alias} that was sent to it")]
    NotOurKey {
        /// Whose.
        alias: Alias,
        /// Why.
        #[source]
        source: ChainError,
    },
    /// Not fit to be published (invariant I1).
    #[error("the certificate of {alias} would not be accepted by its users")]
    Unverified {
        /// Whose.
        alias: Alias,
        /// Why.
        #[source]
        source: Box<Verdict>,
    },
    /// A clock is wrong: the daemon's or the issuer's.
    #[error(
        "the certificate of {alias} is valid from {not_before} to {not_after}, and the API server's \
         clock says {created}: set the clock of this daemon, or of the issuer"
    )]
    OutOfSeason {
        /// Whose.
        alias: Alias,
        /// First instant of its life.
        not_before: OffsetDateTime,
        /// Last instant of its life.
        not_after: OffsetDateTime,
        /// When it was kept, by the API server's clock.
        created: OffsetDateTime,
    },
    /// A revision that the plan names is not there.
    #[error("revision Secret {secret} is missing: somebody deleted it; rotate to make a new one")]
    NoRevision {
        /// Which.
        secret: ObjectRef,
    },
    /// A Secret that has the name of one of ours, and that no daemon with our key made.
    #[error(
        "Secret {secret} has a name that Bouncert needs, and its annotation bouncert.dev/seal does not \
         prove that Bouncert made it; it is not used: delete it, or rotate again, which takes the next \
         free number"
    )]
    NotSealed {
        /// Which.
        secret: ObjectRef,
    },
    /// Every number that was tried is taken.
    #[error(
        "the names of revisions up to Secret {secret} are taken by Secrets that Bouncert has not made, \
         or there is no higher number: delete them"
    )]
    NoNumber {
        /// The last that was tried.
        secret: ObjectRef,
    },
    /// Material cannot be staged without a key to seal it with.
    #[error("there is no key to seal material with")]
    NoSeal,
    /// A Secret of ours cannot be read.
    #[error("Secret {secret} does not hold a certificate with its key")]
    ReadChain {
        /// Which.
        secret: ObjectRef,
        /// Why.
        #[source]
        source: ChainError,
    },
    /// A Secret of ours has a bundle that cannot be read.
    #[error("ca.crt of Secret {secret} cannot be read")]
    ReadBundle {
        /// Which.
        secret: ObjectRef,
        /// Why.
        #[source]
        source: PemError,
    },
    /// Clients could not trust former and new certificates at once.
    #[error("clients would not accept the CAs of former and new certificates in one ca.crt")]
    Trust(#[source] Namesakes),
    /// A Secret lacks a key.
    #[error("Secret {secret} has no {key}")]
    NoKey {
        /// Which.
        secret: ObjectRef,
        /// Which key.
        key: &'static str,
    },
    /// Somebody else's Secret is in the way.
    #[error(
        "Secret {secret} belongs to {holder}; delete it and what writes it, or name another in \
         spec.tls.certificates[].secretName"
    )]
    Foreign {
        /// Which.
        secret: ObjectRef,
        /// Whose it is.
        holder: String,
    },
}

impl MaterialError {
    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Cluster(source) => source.retry(),
            Self::Issue { source, .. } => source.retry(),
            Self::OutOfSeason { .. } => Retry::Backoff,
            Self::NoRevision { .. }
            | Self::ReadChain { .. }
            | Self::ReadBundle { .. }
            | Self::NoKey { .. }
            | Self::Trust(_)
            | Self::NoNumber { .. }
            | Self::Foreign { .. } => Retry::WhenChanged,
            Self::MakeKey { .. }
            | Self::NotOurKey { .. }
            | Self::NotSealed { .. }
            | Self::NoSeal
            | Self::Unverified { .. } => Retry::Never,
        }
    }
}
