//! Which Kubernetes API: found as kubectl finds it, and asked once whether it is there.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError, LoadDataError};
use kube::{Client, Config};
use tokio::time::timeout;

use super::args::ClusterArgs;
use super::exit::{Exit, Failure};
use crate::causes::chain;
use crate::cluster::patient;
use crate::opaque::{self, YamlTrouble};

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
    let client = Client::try_from(config).map_err(|error| {
        let told = anyhow!(client_trouble(&error)).context("no Kubernetes API");
        Failure::new(Exit::NoCluster, told)
    })?;
    let client = patient(client);
    let hello = timeout(HELLO_TIMEOUT, client.apiserver_version()).await;
    let unreachable = |error: anyhow::Error| {
        let error = error.context(format!("the Kubernetes API at {url} cannot be reached"));
        Failure::new(Exit::NoCluster, error)
    };
    match hello {
        Ok(Ok(_)) => Ok(Connection { client, namespace }),
        Ok(Err(error)) => Err(unreachable(anyhow!(client_trouble(&error)))),
        Err(late) => Err(unreachable(late.into())),
    }
}

async fn config(args: &ClusterArgs) -> anyhow::Result<Config> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    let kubeconfig = match &args.kubeconfig {
        Some(path) => {
            let at = || format!("the kubeconfig {}", path.display());
            let read = Kubeconfig::read_from(path);
            return of(read, &options).await.with_context(at);
        }
        None => of(Kubeconfig::read(), &options).await,
    };
    let mut config = match kubeconfig {
        Err(no_kubeconfig) if args.context.is_none() => Config::incluster().map_err(|error| {
            // Its certificates come from a file of the pod.
            let in_cluster = match error {
                InClusterError::ParseCertificates(_) => "its CA certificates cannot be read".into(),
                other => other.to_string(),
            };
            anyhow!("{no_kubeconfig:#}; and this is not in a cluster: {in_cluster}")
        }),
        config => config,
    }?;
    config.apply_debug_overrides();
    Ok(config)
}

async fn of(
    kubeconfig: Result<Kubeconfig, KubeconfigError>,
    options: &KubeConfigOptions,
) -> anyhow::Result<Config> {
    let told = |error| anyhow!(kubeconfig_trouble(error));
    let kubeconfig = kubeconfig.map_err(told)?;
    Config::from_custom_kubeconfig(kubeconfig, options)
        .await
        .map_err(told)
}

/// What is wrong with a kubeconfig, without its text: it holds keys and tokens.
fn kubeconfig_trouble(error: KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => YamlTrouble::from(*error).to_string(),
        KubeconfigError::ParseCertificates(_) => {
            "certificate-authority-data is not PEM: write the base64 of a PEM document".to_owned()
        }
        KubeconfigError::LoadCertificateAuthority(error) => {
            data_trouble("certificate-authority", &error)
        }
        KubeconfigError::LoadClientCertificate(error) => data_trouble("client-certificate", &error),
        KubeconfigError::LoadClientKey(error) => data_trouble("client-key", &error),
        other => opaque::words(&other.to_string()),
    }
}

fn data_trouble(field: &str, error: &LoadDataError) -> String {
    match error {
        LoadDataError::DecodeBase64(_) => format!("{field}-data is not base64"),
        LoadDataError::ReadFile(error, path) => {
            format!(
                "{field} names {}, which cannot be read: {error}",
                path.display()
            )
        }
        LoadDataError::NoBase64DataOrFile => format!("{field} and {field}-data are missing"),
    }
}

/// What is wrong with the way to the API, without what a kubeconfig or a credential plugin holds.
fn client_trouble(error: &kube::Error) -> String {
    match error {
        kube::Error::RustlsTls(_) => {
            "its certificates or its key cannot be used: see certificate-authority, \
             client-certificate and client-key of the kubeconfig"
                .to_owned()
        }
        kube::Error::Auth(_) => {
            "its way to log in fails: see user.exec and user.auth-provider of the kubeconfig"
                .to_owned()
        }
        kube::Error::SerdeError(_) => "its answer is not that of a Kubernetes API".to_owned(),
        other => opaque::words(&chain(other)),
    }
}
