//! The first objects of a platform: definitions and the node.

use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::runner::NODE_NAME;
use crate::clock::Clock;

/// A first object was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot install {what}")]
pub struct InstallError {
    /// Which.
    pub what: String,
    /// Why.
    #[source]
    pub source: Box<kube::Error>,
}

/// Creates a definition, or brings the one that is there up to date.
pub async fn definition(client: &Client, definition: Value) -> Result<(), InstallError> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let name = definition["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let refused = |source| InstallError {
        what: format!("the definition {name}"),
        source: Box::new(source),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    let mut object: DynamicObject = serde_json::from_value(definition)
        .map_err(|error| refused(kube::Error::SerdeError(error)))?;
    let params = PostParams::default();
    match api.get_opt(&name).await.map_err(refused)? {
        Some(there) => {
            object.metadata.resource_version = there.resource_version();
            api.replace(&name, &params, &object)
                .await
                .map_err(refused)?;
        }
        None => {
            api.create(&params, &object).await.map_err(refused)?;
        }
    }
    Ok(())
}

/// Writes the only node.
pub async fn node(client: &Client, version: &str, clock: &Clock) -> Result<(), InstallError> {
    let refused = |source| InstallError {
        what: format!("the node {NODE_NAME}"),
        source: Box::new(source),
    };
    let api: Api<Node> = Api::all(client.clone());
    if api.get_opt(NODE_NAME).await.map_err(refused)?.is_none() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": NODE_NAME, "labels": {
                "kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux"
            }},
            "spec": {}
        }))
        .map_err(|error| refused(kube::Error::SerdeError(error)))?;
        api.create(&PostParams::default(), &node)
            .await
            .map_err(refused)?;
    }
    let now = crate::api::common::rfc3339_seconds(clock.now());
    let runtime = format!("pgbouncer://{version}");
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NODE_NAME}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "LocalPlatform",
            "message": "poolers run as processes of this machine",
            "lastHeartbeatTime": now, "lastTransitionTime": now}],
        "nodeInfo": {"architecture": std::env::consts::ARCH, "operatingSystem": "linux",
            "kubeletVersion": format!("bouncert-{}", env!("CARGO_PKG_VERSION")),
            "kubeProxyVersion": "", "containerRuntimeVersion": runtime, "osImage": "",
            "kernelVersion": "", "machineID": "", "systemUUID": "", "bootID": ""},
    }});
    api.patch_status(NODE_NAME, &PatchParams::default(), &Patch::Merge(status))
        .await
        .map_err(refused)?;
    Ok(())
}
