//! PgBouncers: woken by themselves, by the objects made for them, and by what these are made from.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio_util::sync::CancellationToken;

use super::Scope;
use super::engine::{self, Trouble};
use super::metrics::ReconcileMetrics;
use super::related;
use super::watched::{Meta, copied, slim};
use crate::api::{AppBinding, ClusterIssuer, Issuer, PetSet, PgBouncer, PgBouncerVersion};
use crate::blueprint::WorkloadKind;
use crate::blueprint::labels::OURS;
use crate::cluster::Cluster;
use crate::names;
use crate::provisioner::{Copies, Next, ProvisionError, Provisioner};
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
    let (controller, copies) = controller(&cluster, &provisioner, kind, &scope);
    engine::run("pgbouncers", controller, metrics, cancel, move |at| {
        let (provisioner, copies) = (Arc::clone(&provisioner), copies.clone());
        async move {
            Box::pin(provisioner.reconcile(&at, &copies))
                .await
                .map(action)
        }
    })
    .await;
}

fn controller(
    cluster: &Cluster,
    provisioner: &Arc<Provisioner>,
    kind: WorkloadKind,
    scope: &Scope,
) -> (Controller<PgBouncer>, Copies) {
    let client = cluster.client();
    let every = watcher::Config::default;
    let ours = || every().labels(OURS);
    let (bouncers, store) = copied(scope.own::<PgBouncer>(client), every(), slim);
    let controller = Controller::for_stream(bouncers, store);
    let (pods, known_pods) = copied(scope.own::<Pod>(client), ours(), slim_pod);
    let copies = Copies::new(controller.store(), known_pods);
    let known = || controller.store();
    let (of_version, of_issuer, of_cluster_issuer) = (known(), known(), known());
    let referred = controller.store();
    let [tell_0, tell_1, tell_2, tell_3, tell_4, tell_5, tell_6] =
        [(); 7].map(|()| teller(provisioner));
    let controller = match kind {
        WorkloadKind::PetSet => {
            controller.watches(scope.own::<Meta<PetSet>>(client), ours(), move |set| {
                tell_0(related::by_label(&set))
            })
        }
        WorkloadKind::StatefulSet => {
            controller.watches(scope.own::<Meta<StatefulSet>>(client), ours(), move |set| {
                tell_0(related::by_label(&set))
            })
        }
    };
    let controller = controller
        // Pods are looked at in any case.
        .watches_stream(pods, |pod| related::by_label(&pod))
        .watches(
            scope.own::<Meta<ServiceAccount>>(client),
            ours(),
            move |account| tell_5(related::by_label(&account)),
        )
        .watches(
            scope.own::<Meta<PodDisruptionBudget>>(client),
            ours(),
            move |budget| tell_6(related::by_label(&budget)),
        )
        .watches(scope.own::<Meta<Service>>(client), ours(), move |service| {
            tell_1(related::by_label(&service))
        })
        .watches(
            Api::<Meta<PgBouncerVersion>>::all(client.clone()),
            every(),
            move |version| tell_2(related::by_version(&version, &of_version)),
        )
        .watches(scope.own::<Meta<Issuer>>(client), every(), move |issuer| {
            tell_3(related::by_issuer(&issuer, &of_issuer))
        })
        .watches(
            Api::<Meta<ClusterIssuer>>::all(client.clone()),
            every(),
            move |issuer| tell_4(related::by_issuer(&issuer, &of_cluster_issuer)),
        );
    let controller = scope.watched::<Meta<Secret>>(client).into_iter().fold(
        controller,
        |controller, secrets: Api<Meta<Secret>>| {
            let (tell, known) = (teller(provisioner), referred.clone());
            controller.watches(secrets, every(), move |secret| {
                tell(related::by_secret(&secret, &known))
            })
        },
    );
    let controller = scope.watched::<Meta<AppBinding>>(client).into_iter().fold(
        controller,
        |controller, bindings: Api<Meta<AppBinding>>| {
            let (tell, known) = (teller(provisioner), referred.clone());
            controller.watches(bindings, every(), move |app| {
                tell(related::by_application(&app, &known))
            })
        },
    );
    (controller, copies)
}

/// Of a pod it matters what it says of itself, and not what was asked of it.
fn slim_pod(pod: &mut Pod) {
    slim(pod);
    pod.spec = None;
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
