//! PgBouncers: woken by themselves, by the objects made for them, and by what these are made from.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::Api;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use tokio_util::sync::CancellationToken;

use super::engine::{self, Trouble};
use super::related;
use crate::api::{AppBinding, ClusterIssuer, Issuer, PetSet, PgBouncer, PgBouncerVersion};
use crate::blueprint::WorkloadKind;
use crate::cluster::Cluster;
use crate::provisioner::{Next, ProvisionError, Provisioner};
use crate::retry::Retry;

impl Trouble for ProvisionError {
    fn retry(&self) -> Retry {
        Self::retry(self)
    }
}

/// Runs the controller of PgBouncers until it is told to stop.
pub async fn run(
    cluster: Cluster,
    provisioner: Arc<Provisioner>,
    kind: WorkloadKind,
    cancel: CancellationToken,
) {
    let controller = controller(&cluster, kind);
    engine::run("pgbouncers", controller, cancel, move |at| {
        let provisioner = Arc::clone(&provisioner);
        async move { provisioner.reconcile(&at).await.map(action) }
    })
    .await;
}

fn controller(cluster: &Cluster, kind: WorkloadKind) -> Controller<PgBouncer> {
    let client = cluster.client();
    let every = watcher::Config::default;
    let ours = || every().labels(related::OURS);
    let controller = Controller::new(Api::<PgBouncer>::all(client.clone()), every());
    let known = [(); 6].map(|()| controller.store());
    let [
        of_application,
        of_version,
        of_issuer,
        of_cluster_issuer,
        of_secret,
        _,
    ] = known;
    let controller = match kind {
        WorkloadKind::PetSet => controller.owns(Api::<PetSet>::all(client.clone()), ours()),
        WorkloadKind::StatefulSet => {
            controller.owns(Api::<StatefulSet>::all(client.clone()), ours())
        }
    };
    controller
        .owns(Api::<Service>::all(client.clone()), ours())
        .watches(Api::<Pod>::all(client.clone()), ours(), |pod| {
            related::by_label(&pod)
        })
        .watches(Api::<Secret>::all(client.clone()), every(), move |secret| {
            related::by_secret(&secret, &of_secret)
        })
        .watches(
            Api::<AppBinding>::all(client.clone()),
            every(),
            move |binding| related::by_application(&binding, &of_application),
        )
        .watches(
            Api::<PgBouncerVersion>::all(client.clone()),
            every(),
            move |version| related::by_version(&version, &of_version),
        )
        .watches(Api::<Issuer>::all(client.clone()), every(), move |issuer| {
            related::by_issuer(&issuer, &of_issuer)
        })
        .watches(
            Api::<ClusterIssuer>::all(client.clone()),
            every(),
            move |issuer| related::by_issuer(&issuer, &of_cluster_issuer),
        )
}

fn action(next: Next) -> Action {
    match next {
        Next::Again(after) => Action::requeue(after),
        Next::Wait => Action::await_change(),
    }
}
