//! Published material, as far as configuration and pods depend on it.

use k8s_openapi::api::core::v1::Secret;

use super::{SurroundingsError, text};
use crate::api::Located;
use crate::api::PgBouncer;
use crate::blueprint::{MaterialFacts, names};
use crate::cluster::Cluster;
use crate::names::{Alias, ObjectRef};
use crate::pgbouncer::probe::fingerprint;
use crate::pki::pem::read_certificates;

/// Reads the server's Secret; `None` while it is not there.
pub(super) async fn read(
    cluster: &Cluster,
    bouncer: &PgBouncer,
) -> Result<Option<MaterialFacts>, SurroundingsError> {
    let at = bouncer.beside(names::certificate_secret(bouncer, Alias::Server));
    let secret: Option<Secret> = cluster.get(&at).await?;
    secret.map(|secret| facts(&secret, &at)).transpose()
}

fn facts(secret: &Secret, at: &ObjectRef) -> Result<MaterialFacts, SurroundingsError> {
    let unusable = |what: &str| SurroundingsError::Unusable {
        kind: "Secret",
        at: at.clone(),
        what: what.to_owned(),
    };
    let chain = text(secret, "tls.crt").ok_or_else(|| unusable("key tls.crt is missing"))?;
    let ca_bundle = text(secret, "ca.crt").ok_or_else(|| unusable("key ca.crt is missing"))?;
    let chain = read_certificates(&chain)
        .map_err(|error| unusable(&format!("key tls.crt cannot be read: {error}")))?;
    let leaf = chain
        .first()
        .ok_or_else(|| unusable("key tls.crt holds no certificate"))?;
    Ok(MaterialFacts {
        server: fingerprint(leaf),
        ca_bundle,
    })
}
