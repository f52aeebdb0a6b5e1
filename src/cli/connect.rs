//! Which Kubernetes API: found as kubectl finds it, and asked once whether it is there.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::time::timeout;

use super::args::ClusterArgs;
use super::exit::{Exit, Failure};
use crate::cluster::patient;

/// For the API to say that it is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A way to the API.
pub(super) struct Connection {
    /// The client.
    pub(super) client: Client,
    /// The namespace that the kubeconfig names.
    pub(super) namespace: String,
}

/// Connects as the arguments say: `--kubeconfig`, else `$KUBECONFIG`, else `~/.kube/config`, else
/// the cluster that this runs in.
pub(super) async fn connect(args: &ClusterArgs) -> Result<Connection, Failure> {
    let mut config = config(args)
        .await
        .map_err(|error| Failure::new(Exit::NoCluster, error.context("no Kubernetes API")))?;
    let namespace = config.default_namespace.clone();
    let url = config.cluster_url.clone();
    // kube's own would take an eviction that is refused for one to be tried again.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| Failure::new(Exit::NoCluster, error))?;
    let client = patient(client);
    let hello = timeout(HELLO_TIMEOUT, client.apiserver_version()).await;
    let unreachable = |error: anyhow::Error| {
        let error = error.context(format!("the Kubernetes API at {url} cannot be reached"));
        Failure::new(Exit::NoCluster, error)
    };
    match hello {
        Ok(Ok(_)) => Ok(Connection { client, namespace }),
        Ok(Err(error)) => Err(unreachable(error.into())),
        Err(late) => Err(unreachable(late.into())),
    }
}

async fn config(args: &ClusterArgs) -> anyhow::Result<Config> {
    if args.kubeconfig.is_none() && args.context.is_none() {
        return Ok(Config::infer().await?);
    }
    let kubeconfig = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path)?,
        None => Kubeconfig::read()?,
    };
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
}
