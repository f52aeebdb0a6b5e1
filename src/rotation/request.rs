//! The request that a start becomes. Pure.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::facts::Remedy;
use super::fleet::Start;
use crate::api::annotations::{ATTEMPT, CAUSE, CREATED_BY_LABEL, CREATED_BY_ROTATION};
use crate::api::common::LocalRef;
use crate::api::opsrequest::{ApplyPolicy, PgBouncerOpsRequestSpec, RequestType, TlsRequest};
use crate::api::{PgBouncer, PgBouncerOpsRequest};

/// How often a failed step is tried again: the default of the CRD.
const MAX_RETRIES: i32 = 1;

/// The request of a start. It goes with its PgBouncer, and begins in whatever phase that is: whether
/// it may begin has been decided by then.
pub fn request(bouncer: &PgBouncer, start: &Start) -> PgBouncerOpsRequest {
    let (type_, tls) = match start.task.remedy {
        Remedy::Restart => (RequestType::Restart, None),
        Remedy::Rotate => {
            let tls = TlsRequest {
                rotate_certificates: Some(true),
                ..TlsRequest::default()
            };
            (RequestType::ReconfigureTLS, Some(tls))
        }
    };
    let label = (CREATED_BY_LABEL.to_owned(), CREATED_BY_ROTATION.to_owned());
    let annotations = [
        (CAUSE.to_owned(), start.task.why.clone()),
        (ATTEMPT.to_owned(), start.attempt.to_string()),
    ];
    PgBouncerOpsRequest {
        metadata: ObjectMeta {
            name: Some(start.request.clone()),
            namespace: bouncer.namespace(),
            labels: Some(BTreeMap::from([label])),
            annotations: Some(BTreeMap::from(annotations)),
            owner_references: bouncer.owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: PgBouncerOpsRequestSpec {
            database_ref: LocalRef {
                name: bouncer.name_any(),
            },
            type_,
            tls,
            restart: None,
            timeout: None,
            apply: ApplyPolicy::Always,
            max_retries: MAX_RETRIES,
            update_version: None,
            horizontal_scaling: None,
            vertical_scaling: None,
            configuration: None,
            authentication: None,
        },
        status: None,
    }
}
