//! PgBouncers: woken by themselves, by the objects made for them, and by what these are made from.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::Scope;
use super::engine::{self, Trouble};
use super::metrics::ReconcileMetrics;
use super::related;
use super::turns::Turns;
use super::watched::{Meta, Watched, copied, heard, slim};
use crate::api::{AppBinding, ClusterIssuer, Issuer, PetSet, PgBouncer, PgBouncerVersion};
use crate::blueprint::WorkloadKind;
use crate::blueprint::labels::OURS;
use crate::cluster::{Cluster, Namespaced, reference, within};
use crate::names::{self, Area};
use crate::provisioner::{Copies, Kind, Next, ProvisionError, Provisioner};
use crate::retry::Retry;

/// Looks at the same time that nobody has asked for.
const LOOKS: usize = 32;
/// Looks at the same time at what somebody has just made, changed or deleted, beside these.
const LOOKS_ASKED: usize = 16;

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
    let turns = Arc::new(Turns::new(LOOKS, LOOKS_ASKED));
    let (controller, copies) = controller(&cluster, &provisioner, kind, (&scope, &turns));
    engine::run(
        "pgbouncers",
        (controller, turns),
        metrics,
        cancel,
        move |at| {
            let (provisioner, copies) = (Arc::clone(&provisioner), copies.clone());
            async move {
                Box::pin(provisioner.reconcile(&at, &copies))
                    .await
                    .map(action)
            }
        },
    )
    .await;
}

fn controller(
    cluster: &Cluster,
    provisioner: &Arc<Provisioner>,
    workload: WorkloadKind,
    (scope, turns): (&Scope, &Arc<Turns>),
) -> (Controller<PgBouncer>, Copies) {
    let (client, own) = (cluster.client(), scope.own());
    // What was made for PgBouncers.
    let ours = cluster.every().labels(OURS);
    let called = Arc::clone(turns);
    let hear = move |event: &Event<PgBouncer>| match event {
        Event::Apply(bouncer) if asks(bouncer) => called.call(&reference(bouncer)),
        _ => {}
    };
    let bouncers = within::<PgBouncer>(client, own);
    let (bouncers, store) = copied(bouncers, cluster.every(), slim, hear);
    let copies = Copies::new(store.clone(), own);
    let pods = heard(within::<Pod>(client, own), ours.clone(), copies.pods());
    // Pods are looked at in any case.
    let controller =
        Controller::for_stream(bouncers, store).watches_stream(pods, |pod| related::by_label(&pod));
    let watching = Watching {
        controller,
        copies,
        provisioner,
    };
    let made = |kind| (kind, own, ours.clone());
    let watching = match workload {
        WorkloadKind::PetSet => watching.made::<PetSet>(client, made(Kind::Workload)),
        WorkloadKind::StatefulSet => watching.made::<StatefulSet>(client, made(Kind::Workload)),
    };
    let watching = watching
        .made::<ServiceAccount>(client, made(Kind::ServiceAccount))
        .made::<PodDisruptionBudget>(client, made(Kind::DisruptionBudget))
        .made::<Service>(client, made(Kind::Service));
    let versions = Api::<Meta<PgBouncerVersion>>::all(client.clone());
    let everywhere = (Kind::Version, &Area::Everywhere, cluster.every());
    let watching = watching.used(versions, everywhere, related::by_version);
    let watching = scope.watched().iter().fold(watching, |watching, area| {
        let (all, applications) = (within(client, area), within(client, area));
        watching
            .used::<Secret>(
                all,
                (Kind::Secret, area, cluster.secrets()),
                related::by_secret,
            )
            .used::<AppBinding>(
                applications,
                (Kind::AppBinding, area, cluster.every()),
                related::by_application,
            )
    });
    watching
        .signing::<Issuer>(within(client, own), cluster.every())
        .signing::<ClusterIssuer>(Api::all(client.clone()), cluster.every())
        .end()
}

/// Whether somebody has asked for something that has not been seen to.
fn asks(bouncer: &PgBouncer) -> bool {
    let seen = bouncer.status.as_ref();
    let seen = seen.and_then(|status| status.observed_generation);
    bouncer.metadata.deletion_timestamp.is_some() || bouncer.metadata.generation != seen
}

/// A controller, as far as it watches.
struct Watching<'a> {
    controller: Controller<PgBouncer>,
    copies: Copies,
    provisioner: &'a Arc<Provisioner>,
}

/// Where objects are, and what of them.
type Which<'a> = (Kind, &'a Area, watcher::Config);
/// Whom an object concerns.
type Concerned<K> = fn(&Meta<K>, &Store<PgBouncer>) -> Vec<ObjectRef<PgBouncer>>;

impl Watching<'_> {
    /// What is made for PgBouncers.
    fn made<K: Namespaced>(self, client: &Client, which: Which<'_>) -> Self {
        let api = within::<Meta<K>>(client, which.1);
        self.used(api, which, |object, _| related::by_label(object))
    }

    /// What PgBouncers are made from.
    fn used<K: Watched>(
        self,
        api: Api<Meta<K>>,
        (kind, area, config): Which<'_>,
        concerned: Concerned<K>,
    ) -> Self {
        let events = heard(api, config, self.copies.around(kind, area));
        let tell = self.teller(concerned);
        let controller = self.controller.watches_stream(events, tell);
        Self { controller, ..self }
    }

    /// Who signs their certificates: of no interest to who has them.
    fn signing<K: Watched>(self, api: Api<Meta<K>>, config: watcher::Config) -> Self {
        let tell = self.teller(related::by_issuer::<Meta<K>>);
        let controller = self.controller.watches(api, config, tell);
        Self { controller, ..self }
    }

    /// Tells the provisioner of a change around PgBouncers, and passes on whom it concerns.
    fn teller<K: Watched>(
        &self,
        concerned: Concerned<K>,
    ) -> impl Fn(Meta<K>) -> Vec<ObjectRef<PgBouncer>> + Send + Sync + 'static + use<K> {
        let (provisioner, known) = (Arc::clone(self.provisioner), self.controller.store());
        move |object| {
            let concerned = concerned(&object, &known);
            for bouncer in &concerned {
                let namespace = bouncer.namespace.clone().unwrap_or_default();
                provisioner.changed(&names::ObjectRef::new(namespace, &bouncer.name));
            }
            concerned
        }
    }

    fn end(self) -> (Controller<PgBouncer>, Copies) {
        (self.controller, self.copies)
    }
}

fn action(next: Next) -> Action {
    match next {
        Next::Again(after) => Action::requeue(after),
        Next::Wait => Action::await_change(),
    }
}
