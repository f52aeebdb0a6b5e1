//! The policies that every issuance has to pass before an issuer is asked.
//!
//! There are two sets. The daemon's own (`--policies`, or the one that is built in) always has to
//! allow a request. Where the cluster has the kind `CertificateRequestPolicy`, those of its
//! policies that select the request, and that we may use (the verb that approver-policy asks for as
//! well), have to allow it too; if there are none, the cluster has no say.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;

use super::profile::leaf_profile;
use crate::blueprint::certificates::Wanted;
use crate::cluster::{Cluster, ClusterError};
use crate::policy::{CertificateRequestPolicy, Policies, Request, Verdict};

/// What policies see of `wanted`, for a PgBouncer in `namespace`.
pub fn policy_request(namespace: &str, wanted: &Wanted) -> Request {
    Request::for_leaf(
        namespace,
        &wanted.certificate_name,
        &wanted.issuer,
        &leaf_profile(wanted),
        wanted.algorithm.kind(),
    )
}

/// Judges every issuance.
#[derive(Clone)]
pub(super) struct Gate {
    own: Arc<Policies>,
}

impl Gate {
    pub(super) fn new(own: Policies) -> Self {
        Self { own: Arc::new(own) }
    }

    /// Why `request` may not be issued, with all violations; `None` if it may.
    pub(super) async fn refusal(
        &self,
        cluster: &Cluster,
        mut request: Request,
    ) -> Result<Option<String>, ClusterError> {
        let found: Vec<CertificateRequestPolicy> = cluster.list_global().await?;
        let theirs = Policies::of_cluster(&found);
        if self.own.reads_namespace_labels() || theirs.reads_namespace_labels() {
            let namespace = cluster.get_global::<Namespace>(&request.namespace).await?;
            request.namespace_labels = namespace
                .map(|namespace| namespace.labels().clone())
                .unwrap_or_default();
        }
        let mut violations = Vec::new();
        if let Verdict::Denied { violations: found } = self.own.review(&request) {
            violations.extend(found);
        }
        let mut usable = Vec::new();
        for name in theirs.selecting(&request) {
            let may = cluster.may::<CertificateRequestPolicy>("use", &request.namespace, name);
            if may.await? {
                usable.push(name.to_owned());
            }
        }
        let theirs = theirs.retain(&usable);
        if !theirs.is_empty()
            && let Verdict::Denied { violations: found } = theirs.review(&request)
        {
            violations.extend(found);
        }
        if violations.is_empty() {
            return Ok(None);
        }
        let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
        Ok(Some(told.join("; ")))
    }
}
