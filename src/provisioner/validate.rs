//! Whether a completed specification can be provisioned beside what is there; pure.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::blocked::Blocked;
use super::observe::Found;
use crate::api::Located;
use crate::api::PgBouncer;
use crate::blueprint::{labels, names, serves_tls};
use crate::cluster::reference;
use crate::names::Alias;
use crate::pgbouncer::ini::{Ini, Section};

/// Checks a specification against what was found.
pub(super) fn validate(bouncer: &PgBouncer, found: &Found) -> Result<(), Blocked> {
    if let Some(former) = &found.former {
        tls_is_as_before(bouncer, former)?;
    }
    let auth = bouncer.spec.auth_secret.as_ref();
    if let Some(kind) = auth.map(|auth| &auth.kind).filter(|kind| *kind != "Secret") {
        return Err(Blocked::AuthSecretKind(kind.clone()));
    }
    match &found.auth {
        Some(secret) => auth_secret(bouncer, secret),
        None if is_external(bouncer) => Err(Blocked::NoExternalAuthSecret(
            bouncer.beside(names::auth_secret(bouncer)),
        )),
        None => Ok(()),
    }
}

/// Checks that an auth Secret is the object's, and holds credentials.
pub(super) fn auth_secret(bouncer: &PgBouncer, secret: &Secret) -> Result<(), Blocked> {
    let at = reference(secret);
    if !is_external(bouncer) && labels::are_foreign(secret.labels(), &bouncer.name_any()) {
        return Err(Blocked::ForeignAuthSecret(at));
    }
    let has = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .is_some_and(|text| !text.0.is_empty())
    };
    if has("username") && has("password") {
        Ok(())
    } else {
        Err(Blocked::EmptyAuthSecret(at))
    }
}

/// TLS does not come or go by an edit of the live object: pods that run have no key mounted, and
/// would not start again under a configuration that names one. The condition asks for a request,
/// which carries the change into the pods. A request writes the configuration before it commits the
/// specification, so what it has done is never refused here.
fn tls_is_as_before(bouncer: &PgBouncer, former: &Ini) -> Result<(), Blocked> {
    // Only a key of our own tells: users may bring TLS of theirs in the configuration.
    let key = format!("{}/tls.key", names::tls_dir(Alias::Server));
    let did = former.get(Section::Pgbouncer, "client_tls_key_file") == Some(key.as_str());
    match (did, serves_tls(bouncer)) {
        (false, true) => Err(Blocked::TlsEdited { what: "added" }),
        (true, false) => Err(Blocked::TlsEdited { what: "removed" }),
        _ => Ok(()),
    }
}

fn is_external(bouncer: &PgBouncer) -> bool {
    let auth = bouncer.spec.auth_secret.as_ref();
    auth.is_some_and(|auth| auth.externally_managed == Some(true))
}

/// Lets a patch succeed only on the very version that was read.
pub(super) fn compare_and_swap(bouncer: &PgBouncer, mut patch: Value) -> Value {
    if let Some(version) = bouncer.resource_version() {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::super::auth;
    use super::*;
    use crate::blueprint::testing;
    use time::OffsetDateTime;

    #[test]
    fn a_secret_of_another_pooler_is_refused_and_an_empty_one_too() {
        let bouncer = testing::bouncer("billing");
        let made = auth::secret(&bouncer, "billing-auth", OffsetDateTime::UNIX_EPOCH).unwrap();
        assert!(auth_secret(&bouncer, &made).is_ok());
        let other = testing::bouncer("orders");
        assert!(matches!(
            auth_secret(&other, &made),
            Err(Blocked::ForeignAuthSecret(_))
        ));
        let empty = Secret { data: None, ..made };
        assert!(matches!(
            auth_secret(&bouncer, &empty),
            Err(Blocked::EmptyAuthSecret(_))
        ));
    }

    #[test]
    fn tls_that_an_edit_adds_or_removes_is_refused() {
        let mut bouncer = testing::bouncer("billing");
        let plain = Ini::parse("[pgbouncer]\n").unwrap();
        let key = format!("{}/tls.key", names::tls_dir(Alias::Server));
        let tls = Ini::parse(&format!("[pgbouncer]\nclient_tls_key_file = {key}\n")).unwrap();
        let found = |former: &Ini| Found {
            former: Some(former.clone()),
            auth: None,
        };
        assert!(validate(&bouncer, &found(&plain)).is_ok());
        assert!(matches!(
            validate(&bouncer, &found(&tls)),
            Err(Blocked::TlsEdited { what: "removed" })
        ));
        let external = json!({ "kind": "Vault", "name": "billing-auth" });
        bouncer.spec.auth_secret = Some(serde_json::from_value(external).unwrap());
        assert!(matches!(
            validate(&bouncer, &Found::default()),
            Err(Blocked::AuthSecretKind(_))
        ));
    }
}
