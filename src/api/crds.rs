//! The `CustomResourceDefinitions` of the kinds that Bouncert brings along.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::{
    AppBinding, CertificateRequest, ClusterIssuer, Issuer, PetSet, PgBouncer, PgBouncerOpsRequest,
    PgBouncerVersion,
};

/// Label that tells where a definition comes from.
const PART_OF: &str = "app.kubernetes.io/part-of";
/// Its value on ours.
const OURS: &str = "bouncert";

/// The kinds that are Bouncert's to install: what `bouncert crds` prints.
pub fn own() -> Vec<CustomResourceDefinition> {
    vec![
        AppBinding::crd(),
        PgBouncer::crd(),
        PgBouncerOpsRequest::crd(),
        PgBouncerVersion::crd(),
    ]
    .into_iter()
    .map(tidy)
    .collect()
}

/// Stand-ins for kinds that other operators own; the local platform installs them.
pub fn borrowed() -> Vec<CustomResourceDefinition> {
    vec![
        CertificateRequest::crd(),
        ClusterIssuer::crd(),
        Issuer::crd(),
        PetSet::crd(),
    ]
    .into_iter()
    .map(tidy)
    .collect()
}

/// Whether a definition in a cluster came from us. Any other, KubeDB's for instance, knows more fields
/// than ours, and replacing it would drop them from every object.
pub fn is_ours(crd: &CustomResourceDefinition) -> bool {
    let labels = crd.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(PART_OF))
        .is_some_and(|part| part == OURS)
}

/// Makes of a derived CRD what a person would have written: the kind is described by what its spec
/// says of itself, and an optional field is absent, never null. (A field that may be null makes
/// `has()` true in CEL rules, and the rules would have to ask twice.)
fn tidy(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let labels = crd.metadata.labels.get_or_insert_default();
    labels.insert(PART_OF.to_owned(), OURS.to_owned());
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut();
        let Some(root) = schema.and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        let described = root.properties.as_ref().and_then(|parts| parts.get("spec"));
        root.description = described.and_then(|spec| spec.description.clone());
        never_null(root);
    }
    crd
}

fn never_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for part in schema.properties.iter_mut().flatten() {
        never_null(part.1);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => never_null(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(never_null),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        never_null(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_of_a_crd_may_be_null() {
        for crd in own().into_iter().chain(borrowed()) {
            let text = serde_json::to_string(&crd).unwrap();
            assert!(!text.contains("nullable"), "{:?}", crd.metadata.name);
            assert!(!text.contains("Auto-generated"), "{:?}", crd.metadata.name);
        }
    }

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
