//! The first look: finalizer, stored defaults, the first condition, and whether the specification
//! asks for something that only a request may do.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::conditions::is_provisioned;
use super::validate::{self, Blocked};
use super::{ProvisionError, Provisioner};
use crate::api::PgBouncer;
use crate::blueprint::defaults::{self, IssuerKind};
use crate::blueprint::{names, serves_tls};
use crate::cluster::reference;
use crate::names::{Alias, ObjectRef};
use crate::pgbouncer::ini::{Ini, Section};
use crate::surroundings;

impl Provisioner {
    /// Puts our finalizer on the object and says that work has begun.
    pub(super) async fn begin(&self, bouncer: PgBouncer) -> Result<PgBouncer, ProvisionError> {
        let at = reference(&bouncer);
        let bouncer = match validate::finalizer(&bouncer) {
            Some(patch) => self.cluster.patch(&at, &patch).await?,
            None => bouncer,
        };
        self.report_started(bouncer).await
    }

    /// Writes back what the specification leaves open, as an admission webhook would.
    pub(super) async fn complete(&self, bouncer: &mut PgBouncer) -> Result<(), Blocked> {
        let issuer = self.issuer_kind(bouncer).await?;
        let completed = defaults::complete(&bouncer.spec, &bouncer.name_any(), issuer);
        if let Some(patch) = validate::completion(bouncer, &completed) {
            *bouncer = self.cluster.patch(&reference(bouncer), &patch).await?;
        }
        Ok(())
    }

    /// The common issuer's kind; it is looked up only where the list of certificates is incomplete.
    async fn issuer_kind(&self, bouncer: &PgBouncer) -> Result<IssuerKind, Blocked> {
        let Some(tls) = &bouncer.spec.tls else {
            return Ok(IssuerKind::Private);
        };
        let mut completed = tls.clone();
        defaults::complete_tls(&mut completed, &bouncer.name_any(), IssuerKind::Private);
        match &tls.issuer_ref {
            Some(issuer) if completed != *tls => {
                let namespace = bouncer.namespace().unwrap_or_default();
                Ok(surroundings::issuer_kind(&self.cluster, &namespace, issuer).await?)
            }
            _ => Ok(IssuerKind::Private),
        }
    }

    /// TLS does not come or go by an edit of the live object: pods that run have no key mounted, and
    /// would not start again under a configuration that names one. Whoever edits it is told to make
    /// a request, which carries the change into the pods. A request writes the configuration before
    /// it commits the specification, so what it has done never ends here.
    pub(super) async fn check_tls_is_as_before(&self, bouncer: &PgBouncer) -> Result<(), Blocked> {
        let status = bouncer.status.as_ref();
        if !status.is_some_and(|status| is_provisioned(&status.conditions)) {
            return Ok(());
        }
        let at = ObjectRef::new(
            bouncer.namespace().unwrap_or_default(),
            names::config_secret(bouncer),
        );
        let former: Option<Secret> = self.cluster.get(&at).await?;
        let former = former.and_then(|secret| secret.data?.remove(names::INI_KEY));
        let former = former.and_then(|text| String::from_utf8(text.0).ok());
        let Some(Ok(former)) = former.map(|text| Ini::parse(&text)) else {
            return Ok(());
        };
        // Only a key of our own tells: users may bring TLS of theirs in the configuration.
        let key = format!("{}/tls.key", names::tls_dir(Alias::Server));
        let did = former.get(Section::Pgbouncer, "client_tls_key_file") == Some(key.as_str());
        match (did, serves_tls(bouncer)) {
            (false, true) => Err(Blocked::TlsEdited { what: "added" }),
            (true, false) => Err(Blocked::TlsEdited { what: "removed" }),
            _ => Ok(()),
        }
    }
}
