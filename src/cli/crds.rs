//! `crds`: the `CustomResourceDefinitions`, to pipe into `kubectl apply -f -`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::args::CrdsArgs;
use super::exit::Failure;
use super::output::Output;
use crate::api::crds;

/// Prints the CRDs: one YAML document each, or a JSON list.
pub(super) fn print(output: Output, args: CrdsArgs) -> Result<(), Failure> {
    let mut wanted = crds::own();
    if args.with_cert_manager {
        wanted.extend(crds::borrowed());
    }
    let documents: Result<Vec<String>, _> = wanted.iter().map(document).collect();
    let documents = documents?;
    output.result(&wanted, |_| documents.concat())?;
    Ok(())
}

/// A CRD as a YAML document of its own.
pub fn document(crd: &CustomResourceDefinition) -> anyhow::Result<String> {
    Ok(format!("---\n{}", serde_saphyr::to_string(crd)?))
}
