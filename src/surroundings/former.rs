//! What the configuration Secret of a PgBouncer holds now.

use k8s_openapi::api::core::v1::Secret;

use super::{SurroundingsError, text};
use crate::api::PgBouncer;
use crate::blueprint::backend_tls::{
    BackendFiles, BackendTls, former_files, in_force, is_backend_file,
};
use crate::blueprint::{Backend, BackendAddress, labels, names};
use crate::cluster::{Cluster, reference};
use crate::names::ObjectRef;
use crate::pgbouncer::ini::Ini;
use crate::redacted::{Redacted, Wiped};

/// What is published.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Files of TLS towards PostgreSQL.
    pub(super) files: BackendFiles,
    /// What the poolers are told to connect to, and how.
    pub(super) in_force: Option<(BackendAddress, BackendTls)>,
}

impl Former {
    /// What to build with, and what is to be proven before that changes.
    pub(super) fn settle(&self, wanted: Backend) -> (Backend, Option<Backend>) {
        let Some((address, tls)) = &self.in_force else {
            let unproven = wanted.tls.needs_proof().then(|| wanted.clone());
            return (wanted, unproven);
        };
        if !wanted.tls.needs_proof() || (*address == wanted.address && *tls == wanted.tls) {
            return (wanted, None);
        }
        let former = Backend {
            address: address.clone(),
            tls: tls.clone(),
            superuser: wanted.superuser.clone(),
        };
        (former, Some(wanted))
    }
}

/// Reads the configuration Secret, if it is the PgBouncer's.
pub(super) async fn read(
    cluster: &Cluster,
    bouncer: &PgBouncer,
) -> Result<Former, SurroundingsError> {
    let namespace = reference(bouncer).namespace;
    let at = ObjectRef::new(namespace, names::config_secret(bouncer));
    let secret: Option<Secret> = cluster.get(&at).await?;
    let ours = |secret: &Secret| labels::heir(bouncer).check(secret).is_ok();
    let Some(secret) = secret.filter(ours).map(Wiped::from) else {
        return Ok(Former::default());
    };
    let keys = secret.data.iter().flat_map(|data| data.keys());
    let held = keys
        .filter(|key| is_backend_file(key))
        .filter_map(|key| Some((key.clone(), Redacted::new(text(&secret, key)?))))
        .collect();
    let ini = text(&secret, names::INI_KEY).and_then(|text| Ini::parse(&text).ok());
    let files = former_files(ini.as_ref(), held);
    let in_force = ini.and_then(|ini| in_force(&ini, &files));
    Ok(Former { files, in_force })
}
