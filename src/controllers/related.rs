//! Which PgBouncers an object of another kind concerns.

use std::sync::Arc;

use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};

use crate::api::Located;
use crate::api::PgBouncer;
use crate::blueprint::{labels, names};

/// The PgBouncer that this was made for.
pub(super) fn by_label<K: Resource>(object: &K) -> Vec<ObjectRef<PgBouncer>> {
    let instance = labels::instance(object.labels());
    instance
        .zip(object.namespace())
        .map(|(instance, namespace)| ObjectRef::new(instance).within(&namespace))
        .into_iter()
        .collect()
}

/// The PgBouncers behind which the application stands, and the one that it was made for.
pub(super) fn by_application<K: Resource>(
    object: &K,
    known: &Store<PgBouncer>,
) -> Vec<ObjectRef<PgBouncer>> {
    let (namespace, name) = (object.home(), object.name_any());
    let mut all = those(known, |bouncer| {
        let reference = &bouncer.spec.database.database_ref;
        reference.namespace == namespace && reference.name == name
    });
    all.extend(by_label(object));
    all
}

/// The PgBouncers of other namespaces that refer to an AppBinding of this one.
pub(super) fn by_namespace<K: Resource>(
    object: &K,
    known: &Store<PgBouncer>,
) -> Vec<ObjectRef<PgBouncer>> {
    let name = object.name_any();
    those(known, |bouncer| {
        let is_elsewhere = bouncer.namespace().as_deref() != Some(name.as_str());
        is_elsewhere && bouncer.spec.database.database_ref.namespace == name
    })
}

/// The PgBouncers of a version.
pub(super) fn by_version<K: Resource>(
    object: &K,
    known: &Store<PgBouncer>,
) -> Vec<ObjectRef<PgBouncer>> {
    let name = object.name_any();
    those(known, |bouncer| bouncer.spec.version == name)
}

/// The PgBouncers whose certificates an issuer signs.
pub(super) fn by_issuer<K: Resource<DynamicType = ()>>(
    object: &K,
    known: &Store<PgBouncer>,
) -> Vec<ObjectRef<PgBouncer>> {
    let (namespace, name) = (object.namespace(), object.name_any());
    let kind = K::kind(&());
    those(known, |bouncer| {
        let Some(tls) = &bouncer.spec.tls else {
            return false;
        };
        let entries = tls
            .certificates
            .iter()
            .filter_map(|entry| entry.issuer_ref.as_ref());
        let is_near = namespace.is_none() || bouncer.namespace() == namespace;
        is_near
            && tls
                .issuer_ref
                .iter()
                .chain(entries)
                .any(|issuer| issuer.kind == kind && issuer.name == name)
    })
}

/// The PgBouncers that read a Secret: their own ones, the user's configuration, the backend's
/// superuser and users. Who uses an AppBinding's Secret is not known here, so all PgBouncers of a
/// backend in that namespace look.
pub(super) fn by_secret<K: Resource>(
    secret: &K,
    known: &Store<PgBouncer>,
) -> Vec<ObjectRef<PgBouncer>> {
    let (namespace, name) = (secret.home(), secret.name_any());
    if labels::instance(secret.labels()).is_some() {
        return by_label(secret);
    }
    those(known, |bouncer| {
        let is_beside = bouncer.namespace().as_deref() == Some(namespace.as_str());
        let is_custom = bouncer
            .spec
            .configuration
            .as_ref()
            .and_then(|custom| custom.secret_name.as_ref())
            .is_some_and(|custom| *custom == name);
        let is_auth = names::auth_secret(bouncer) == name;
        // Issuers keep their keys in Secrets, too; nobody who waits for a certificate is many.
        let waits = bouncer.spec.tls.is_some();
        let is_backend = bouncer.spec.database.database_ref.namespace == namespace;
        (is_beside && (is_custom || is_auth || waits)) || is_backend
    })
}

fn those(
    known: &Store<PgBouncer>,
    concerns: impl Fn(&PgBouncer) -> bool,
) -> Vec<ObjectRef<PgBouncer>> {
    let all: Vec<Arc<PgBouncer>> = known.state();
    all.iter()
        .filter(|bouncer| concerns(bouncer))
        .map(|bouncer| ObjectRef::from_obj(bouncer.as_ref()))
        .collect()
}
