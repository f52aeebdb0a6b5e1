//! `crds`: the `CustomResourceDefinitions`, to pipe into `kubectl apply -f -`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::args::CrdsArgs;
use super::connect::connect;
use super::exit::Failure;
use super::output::Output;
use crate::api::crds;
use crate::cluster::Cluster;

/// Prints the CRDs: one YAML document each, or a JSON list.
pub(super) async fn print(output: Output, args: &CrdsArgs) -> Result<(), Failure> {
    let mut wanted = crds::own();
    if args.with_cert_manager {
        wanted.extend(crds::borrowed());
    }
    if args.missing {
        let client = connect(&args.cluster).await?.client;
        let there = Cluster::new(client)
            .list_global::<CustomResourceDefinition>()
            .await?;
        wanted.retain(|crd| {
            let mut of_others = there.iter().filter(|there| !crds::is_ours(there));
            let taken = of_others.any(|there| there.metadata.name == crd.metadata.name);
            if taken {
                let name = crd.metadata.name.as_deref().unwrap_or_default();
                output.note(&format!(
                    "{name} is there already, from somebody else: left out"
                ));
            }
            !taken
        });
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
