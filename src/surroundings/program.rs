//! The program to run, and what runs it.

use crate::api::{PetSet, PgBouncerVersion};
use crate::blueprint::{Program, WorkloadKind};
use crate::cluster::{Cluster, ClusterError, NO_OBJECT};
use crate::names::ObjectRef;
use crate::pgbouncer::Version;

use super::SurroundingsError;

/// Who the containers run as where the catalogue does not say.
const RUN_AS_USER_DEFAULT: i64 = 70;

/// Reads the PgBouncerVersion `name`.
pub(super) async fn read(cluster: &Cluster, name: &str) -> Result<Program, SurroundingsError> {
    let found: Option<PgBouncerVersion> = cluster.get_global(name).await?;
    let at = ObjectRef::new("", name);
    let spec = found
        .ok_or_else(|| SurroundingsError::Missing {
            kind: "PgBouncerVersion",
            at: at.clone(),
            by: "spec.version",
        })?
        .spec;
    if spec.deprecated == Some(true) {
        return Err(SurroundingsError::Deprecated {
            name: name.to_owned(),
        });
    }
    let version = Version::parse(&spec.version).ok_or_else(|| SurroundingsError::Unusable {
        kind: "PgBouncerVersion",
        at,
        what: format!("spec.version {:?} is no version", spec.version),
    })?;
    Ok(Program {
        version,
        name: spec.version,
        image: spec.pg_bouncer.image,
        exporter_image: spec.exporter.image,
        run_as_user: spec
            .security_context
            .and_then(|context| context.run_as_user)
            .unwrap_or(RUN_AS_USER_DEFAULT),
    })
}

/// What makes pods here: PetSets where that kind is known. It does not change while a cluster
/// lives, so callers ask once, in any namespace that they may read.
pub async fn workload_kind(
    cluster: &Cluster,
    namespace: &str,
) -> Result<WorkloadKind, ClusterError> {
    match cluster.list::<PetSet>(namespace, NO_OBJECT).await {
        Ok(_) => Ok(WorkloadKind::PetSet),
        Err(error) if error.is_not_found() => Ok(WorkloadKind::StatefulSet),
        Err(error) => Err(error),
    }
}
