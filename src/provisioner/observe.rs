//! The first look: what is there, and what it asks for. Nothing is written here.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use tokio::time::Instant;

use super::blocked::Blocked;
use super::copies::Copies;
use super::memory::Ask;
use super::{Provisioner, is_paused};
use crate::api::Located;
use crate::api::PgBouncer;
use crate::api::annotations::class_of;
use crate::blueprint::defaults::{self, IssuerKind};
use crate::blueprint::names;
use crate::cluster::ClusterError;
use crate::names::ObjectRef;
use crate::pgbouncer::ini::Ini;
use crate::surroundings;

/// What a look at an object has found.
pub(super) enum Observed {
    /// It has gone, is of another class, or a request holds it.
    NotOurs,
    /// It is being deleted.
    Leaving(Box<PgBouncer>),
    /// All its objects are as they are to be, as far as watches have told.
    Settled(Arc<PgBouncer>, String),
    /// Its objects have to be looked at.
    Due(Due),
}

/// An object that has to be looked at in full.
pub(super) struct Due {
    pub(super) bouncer: Box<PgBouncer>,
    /// How many changes around it had been told of when the look began.
    pub(super) changes: u64,
    /// The mark of what was around it then.
    pub(super) around: Option<u64>,
}

/// What a specification is validated against.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The configuration that its pods have, once the object has been ready.
    pub(super) former: Option<Ini>,
    /// The auth Secret.
    pub(super) auth: Option<Secret>,
}

impl Provisioner {
    /// Looks at the object at `at`: at the copy that a watch keeps while nothing has changed, else at the
    /// object itself.
    pub(super) async fn observe(
        &self,
        at: &ObjectRef,
        copies: &Copies,
    ) -> Result<Observed, ClusterError> {
        if let Some(bouncer) = copies.bouncer(at)
            && self.is_ours_to_change(&bouncer)
        {
            let ask = Ask::of(&bouncer);
            let settled = self.memory.settled(at, &ask, Instant::now());
            let settled = settled.or_else(|| self.was_settled(&bouncer, &ask, copies));
            if let Some(digest) = settled {
                return Ok(Observed::Settled(bouncer, digest));
            }
        }
        let bouncer: Option<PgBouncer> = self.cluster.get(at).await?;
        Ok(match bouncer {
            Some(bouncer) if class_of(&bouncer) != self.class => Observed::NotOurs,
            Some(bouncer) if is_leaving(&bouncer) => Observed::Leaving(Box::new(bouncer)),
            Some(bouncer) if !is_paused(&bouncer) => Observed::Due(Due {
                changes: self.memory.changes(at),
                around: copies.mark(&bouncer),
                bouncer: Box::new(bouncer),
            }),
            Some(_) | None => Observed::NotOurs,
        })
    }

    /// Reads what the specification is validated against.
    pub(super) async fn find(&self, bouncer: &PgBouncer) -> Result<Found, Blocked> {
        let beside = |name| bouncer.beside(name);
        let former = if was_provisioned(bouncer) {
            self.former(&beside(names::config_secret(bouncer))).await?
        } else {
            None
        };
        let auth = self
            .cluster
            .get(&beside(names::auth_secret(bouncer)))
            .await?;
        Ok(Found { former, auth })
    }

    /// The configuration that stands in a Secret; `None` where it cannot be read.
    async fn former(&self, at: &ObjectRef) -> Result<Option<Ini>, ClusterError> {
        let former: Option<Secret> = self.cluster.get(at).await?;
        let former = former.and_then(|secret| secret.data?.remove(names::INI_KEY));
        let former = former.and_then(|text| String::from_utf8(text.0).ok());
        Ok(former.and_then(|text| Ini::parse(&text).ok()))
    }

    /// The common issuer's kind; it is looked up only where the list of certificates is incomplete.
    pub(super) async fn issuer_kind(&self, bouncer: &PgBouncer) -> Result<IssuerKind, Blocked> {
        let Some(tls) = &bouncer.spec.tls else {
            return Ok(IssuerKind::Private);
        };
        let mut completed = tls.clone();
        defaults::complete_tls(&mut completed, &bouncer.name_any(), IssuerKind::Private);
        match &tls.issuer_ref {
            Some(issuer) if completed != *tls => {
                let namespace = bouncer.home();
                Ok(surroundings::issuer_kind(&self.cluster, &namespace, issuer).await?)
            }
            _ => Ok(IssuerKind::Private),
        }
    }

    /// Whether the object, as a watch has told of it, may be looked after now.
    fn is_ours_to_change(&self, bouncer: &PgBouncer) -> bool {
        class_of(bouncer) == self.class && !is_leaving(bouncer) && !is_paused(bouncer)
    }
}

fn is_leaving(bouncer: &PgBouncer) -> bool {
    bouncer.metadata.deletion_timestamp.is_some()
}

fn was_provisioned(bouncer: &PgBouncer) -> bool {
    let status = bouncer.status.as_ref();
    status.is_some_and(|status| super::conditions::is_provisioned(&status.conditions))
}
