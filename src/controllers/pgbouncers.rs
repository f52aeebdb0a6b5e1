//! PgBouncers: woken by themselves, by the objects made for them, and by what these are made from.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::Api;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio_util::sync::CancellationToken;

use super::Scope;
use super::engine::{self, Trouble};
use super::metrics::ReconcileMetrics;
use super::related;
use crate::api::{AppBinding, ClusterIssuer, Issuer, PetSet, PgBouncer, PgBouncerVersion};
use crate::blueprint::WorkloadKind;
use crate::cluster::Cluster;
use crate::names;
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
    (kind, scope): (WorkloadKind, Scope),
    metrics: ReconcileMetrics,
    cancel: CancellationToken,
) {
    let controller = controller(&cluster, &provisioner, kind, &scope);
    engine::run("pgbouncers", controller, metrics, cancel, move |at| {
        let provisioner = Arc::clone(&provisioner);
        async move { Box::pin(provisioner.reconcile(&at)).await.map(action) }
    })
    .await;
}

fn controller(
    cluster: &Cluster,
    provisioner: &Arc<Provisioner>,
    kind: WorkloadKind,
    scope: &Scope,
) -> Controller<PgBouncer> {
    let client = cluster.client();
    let every = watcher::Config::default;
    let ours = || every().labels(related::OURS);
    let controller = Controller::new(scope.own::<PgBouncer>(client), every());
    let known = || controller.store();
    let (of_version, of_issuer, of_cluster_issuer) = (known(), known(), known());
    let referred = controller.store();
    let [tell_0, tell_1, tell_2, tell_3, tell_4] = [(); 5].map(|()| teller(provisioner));
    let controller = match kind {
        WorkloadKind::PetSet => {
            controller.watches(scope.own::<PetSet>(client), ours(), move |set| {
                tell_0(related::by_label(&set))
            })
        }
        WorkloadKind::StatefulSet => {
            controller.watches(scope.own::<StatefulSet>(client), ours(), move |set| {
                tell_0(related::by_label(&set))
            })
        }
    };
    let controller = controller
        // Pods are looked at in any case.
        .watches(scope.own::<Pod>(client), ours(), |pod| {
            related::by_label(&pod)
        })
        .watches(scope.own::<Service>(client), ours(), move |service| {
            tell_1(related::by_label(&service))
        })
        .watches(
            Api::<PgBouncerVersion>::all(client.clone()),
            every(),
            move |version| tell_2(related::by_version(&version, &of_version)),
        )
        .watches(scope.own::<Issuer>(client), every(), move |issuer| {
            tell_3(related::by_issuer(&issuer, &of_issuer))
        })
        .watches(
            Api::<ClusterIssuer>::all(client.clone()),
            every(),
            move |issuer| tell_4(related::by_issuer(&issuer, &of_cluster_issuer)),
        );
    let controller = scope.watched::<Secret>(client).into_iter().fold(
        controller,
        |controller, secrets: Api<Secret>| {
            let (tell, known) = (teller(provisioner), referred.clone());
            controller.watches(secrets, every(), move |secret| {
                tell(related::by_secret(&secret, &known))
            })
        },
    );
    scope.watched::<AppBinding>(client).into_iter().fold(
        controller,
        |controller, bindings: Api<AppBinding>| {
            let (tell, known) = (teller(provisioner), referred.clone());
            controller.watches(bindings, every(), move |app| {
                tell(related::by_application(&app, &known))
            })
        },
    )
}

/// Tells the provisioner of changes around PgBouncers, and passes on whom they concern.
fn teller(
    provisioner: &Arc<Provisioner>,
) -> impl Fn(Vec<ObjectRef<PgBouncer>>) -> Vec<ObjectRef<PgBouncer>> + Send + Sync + use<> {
    let provisioner = Arc::clone(provisioner);
    move |concerned| {
        for bouncer in &concerned {
            let namespace = bouncer.namespace.clone().unwrap_or_default();
            provisioner.changed(&names::ObjectRef::new(namespace, &bouncer.name));
        }
        concerned
    }
}

fn action(next: Next) -> Action {
    match next {
        Next::Again(after) => Action::requeue(after),
        Next::Wait => Action::await_change(),
    }
}
