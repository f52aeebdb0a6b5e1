//! The CustomResourceDefinitions of the kinds that Bouncert brings along.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::{
    AppBinding, CertificateRequest, ClusterIssuer, Issuer, PetSet, PgBouncer, PgBouncerOpsRequest,
    PgBouncerVersion,
};

/// The kinds that are Bouncert's to install: what `bouncert crds` prints.
pub fn own() -> Vec<CustomResourceDefinition> {
    vec![
        AppBinding::crd(),
        PgBouncer::crd(),
        PgBouncerOpsRequest::crd(),
        PgBouncerVersion::crd(),
    ]
}

/// Stand-ins for kinds that other operators own; the local platform installs them.
pub fn borrowed() -> Vec<CustomResourceDefinition> {
    vec![
        CertificateRequest::crd(),
        ClusterIssuer::crd(),
        Issuer::crd(),
        PetSet::crd(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_structural_enough_to_name_its_types() {
        for crd in own().into_iter().chain(borrowed()) {
            let name = crd.metadata.name.clone().unwrap_or_default();
            let schema = crd.spec.versions[0]
                .schema
                .clone()
                .unwrap()
                .open_api_v3_schema
                .unwrap();
            assert_eq!(schema.type_.as_deref(), Some("object"), "{name}");
            assert!(schema.properties.unwrap().contains_key("spec"), "{name}");
        }
    }
}
