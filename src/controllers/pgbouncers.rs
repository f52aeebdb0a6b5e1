//! PgBouncers: woken by themselves, by the objects made for them, and by what these are made from.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, Looks};
use super::engine::{self, Trouble};
use super::metrics::ReconcileMetrics;
use super::related;
use super::watched::{Meta, Watched, copied, heard, namespaces_of, slim};
use super::{Bystander, Scope};
use crate::api::{AppBinding, ClusterIssuer, Issuer, PetSet, PgBouncer, PgBouncerVersion};
use crate::blueprint::WorkloadKind;
use crate::blueprint::labels::OURS;
use crate::cluster::{Cluster, Namespaced, reference, within};
use crate::names::{self, Area};
use crate::panics::InternalErrors;
use crate::provisioner::{self, Copies, Kind, Next, ProvisionError, Provisioner};
use crate::retry::Retry;

/// A daemon that begins has everything to look at; what happens meanwhile does not wait for that. One
/// namespace alone gets three quarters of all ([`super::slots`]), 48.
const AT_ONCE: Looks = Looks {
    listed: 32,
    others: 32,
};

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
    metrics: (ReconcileMetrics, Bystander),
    cancel: CancellationToken,
) {
    let backlog = Backlog::new(AT_ONCE);
    let (controller, copies) = controller(
        &cluster,
        (&provisioner, &backlog),
        (kind, metrics.1.errors.clone()),
        &scope,
    );
    let work = (controller, backlog);
    engine::run("pgbouncers", work, metrics, cancel, move |at| {
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
    (provisioner, backlog): (&Arc<Provisioner>, &Arc<Backlog>),
    (workload, errors): (WorkloadKind, InternalErrors),
    scope: &Scope,
) -> (Controller<PgBouncer>, Copies) {
    let (client, own) = (cluster.client(), scope.own());
    // What was made for PgBouncers.
    let ours = cluster.every().labels(OURS);
    let listed = Arc::clone(backlog);
    let bouncers = within::<PgBouncer>(client, own);
    let (bouncers, store) = copied(
        bouncers,
        cluster.every(),
        kept,
        |_| (),
        move |all| {
            listed.fill(all);
        },
    );
    let copies = Copies::new(store.clone(), own);
    let (listed, all) = (Arc::clone(backlog), store.clone());
    let pods = within::<Pod>(client, own);
    let pods = heard(pods, ours.clone(), copies.pods(), move || listed.fill(&all));
    // Pods are looked at in any case.
    let controller =
        Controller::for_stream(bouncers, store).watches_stream(pods, |pod| related::by_label(&pod));
    let watching = Watching {
        controller,
        copies,
        provisioner,
        backlog,
        errors,
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
            .used(
                Api::<Meta<Namespace>>::all(client.clone()),
                (Kind::Namespace, area, namespaces_of(cluster, area)),
                related::by_namespace,
            )
    });
    watching
        .signing::<Issuer>(within(client, own), cluster.every())
        .signing::<ClusterIssuer>(Api::all(client.clone()), cluster.every())
        .end()
}

/// What is kept of a PgBouncer.
fn kept(bouncer: &mut PgBouncer) {
    slim(bouncer);
    provisioner::keep(bouncer);
}

/// A controller, as far as it watches.
struct Watching<'a> {
    controller: Controller<PgBouncer>,
    copies: Copies,
    provisioner: &'a Arc<Provisioner>,
    backlog: &'a Arc<Backlog>,
    errors: InternalErrors,
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
        let hear = self.copies.around(kind, area);
        let events = heard(api, config, hear, self.everybody());
        let tell = self.teller(concerned);
        let controller = self.controller.watches_stream(events, tell);
        Self { controller, ..self }
    }

    /// Who signs their certificates: of no interest to who has them.
    fn signing<K: Watched>(self, api: Api<Meta<K>>, config: watcher::Config) -> Self {
        let events = heard(api, config, |_| (), self.everybody());
        let tell = self.teller(related::by_issuer::<Meta<K>>);
        let controller = self.controller.watches_stream(events, tell);
        Self { controller, ..self }
    }

    /// Tells the provisioner of a change around PgBouncers, and passes on whom it concerns.
    fn teller<K: Watched>(
        &self,
        concerned: Concerned<K>,
    ) -> impl Fn(Meta<K>) -> Vec<ObjectRef<PgBouncer>> + Send + Sync + 'static + use<K> {
        let (provisioner, known) = (Arc::clone(self.provisioner), self.controller.store());
        let errors = self.errors.clone();
        move |object| {
            // An object that cannot be read wakes nobody.
            let told = errors.guard("pgbouncers", || {
                let concerned = concerned(&object, &known);
                for bouncer in &concerned {
                    let namespace = bouncer.namespace.clone().unwrap_or_default();
                    provisioner.changed(&names::ObjectRef::new(namespace, &bouncer.name));
                }
                concerned
            });
            told.unwrap_or_default()
        }
    }

    /// Tells the provisioner that there may have been changes around any PgBouncer.
    fn everybody(&self) -> impl FnMut() + Send + 'static + use<> {
        let (provisioner, known) = (Arc::clone(self.provisioner), self.controller.store());
        let backlog = Arc::clone(self.backlog);
        move || {
            for bouncer in known.state() {
                provisioner.changed(&reference(&*bouncer));
            }
            backlog.fill(&known);
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
