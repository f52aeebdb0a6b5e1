//! The controller of both kinds of set, PetSet and StatefulSet: one implementation, two kinds.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt as _};
use serde_json::json;

use super::plan::{self, SetView};
use crate::api::petset::PetSet;
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, EventKind, Namespaced, Reporter};
use crate::local::informer::{Informer, key_of};
use crate::local::queue::Queue;
use crate::names::ObjectRef;

/// How soon it is looked again whether a pod of another has gone.
const IN_THE_WAY: Duration = Duration::from_secs(2);

/// A kind that this controller handles.
pub trait Set: Namespaced {
    /// What it has in common with its sibling.
    fn view(&self) -> SetView;
    /// What the user wants that is not done here, in words.
    fn unsupported(&self) -> Option<&'static str>;
}

/// The controller of one kind.
pub struct SetController<K> {
    cluster: Cluster,
    reporter: Reporter,
    clock: Clock,
    sets: Arc<Informer<K>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<Queue<ObjectRef>>,
}

// === impl SetController ===

impl<K: Set> SetController<K> {
    /// Subscribes to sets and pods; to be called before the informers run.
    pub fn new(
        cluster: Cluster,
        clock: Clock,
        sets: Arc<Informer<K>>,
        pods: Arc<Informer<Pod>>,
    ) -> Arc<Self> {
        let queue: Arc<Queue<ObjectRef>> = Arc::default();
        let to = queue.clone();
        sets.on_change(move |change| {
            if let Some(set) = change.newest() {
                to.add(key_of(&**set));
            }
        });
        let to = queue.clone();
        pods.on_change(move |change| {
            if let Some(pod) = change.newest() {
                let owner = pod.owner_references().iter().find(|owner| {
                    owner.controller == Some(true)
                        && owner.kind == K::kind(&())
                        && owner.api_version == K::api_version(&())
                });
                if let Some(owner) = owner {
                    let namespace = pod.namespace().unwrap_or_default();
                    to.add(ObjectRef::new(namespace, &*owner.name));
                }
            }
        });
        Arc::new(Self {
            reporter: Reporter::new(cluster.clone(), "local-workload"),
            cluster,
            clock,
            sets,
            pods,
            queue,
        })
    }

    /// Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        let queue = self.queue.clone();
        let work = move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        };
        queue.run("sets", work).await;
    }

    async fn reconcile(&self, key: &ObjectRef) -> Result<Option<Duration>, ClusterError> {
        let Some(set) = self.sets.get(key) else {
            return Ok(None);
        };
        let view = set.view();
        let plan = plan::plan(&view, &self.pods.list(&key.namespace));
        if !plan.create.is_empty() {
            // The copy may be older than the deletion that brought us here: the template that
            // counts is the one in the API.
            let Some(newest) = self.cluster.get::<K>(key).await? else {
                return Ok(None);
            };
            let newest = newest.view();
            if newest.uid == view.uid && !newest.deleting {
                for ordinal in plan.create {
                    self.create(&newest, ordinal).await?;
                }
            }
        }
        for (name, uid) in &plan.delete {
            let at = ObjectRef::new(&*key.namespace, &**name);
            self.cluster.delete_uid::<Pod>(&at, uid).await?;
        }
        for name in &plan.foreign {
            let message = format!("pod {name} exists and belongs to somebody else");
            self.say(&*set, "FailedCreate", &message).await;
        }
        if plan.status != view.status {
            let patch = json!({"metadata": {"uid": view.uid}, "status": plan.status});
            match self.cluster.patch_status::<K>(key, &patch).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
            if view.status.observed_generation != view.generation
                && let Some(what) = set.unsupported()
            {
                self.say(&*set, "NotOnLocalPlatform", what).await;
            }
        }
        // That a pod of another goes wakes nobody here.
        Ok((!plan.foreign.is_empty()).then_some(IN_THE_WAY))
    }

    async fn create(&self, set: &SetView, ordinal: i32) -> Result<(), ClusterError> {
        match self.cluster.create(&plan::build(set, ordinal)).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }

    async fn say(&self, set: &K, reason: &str, message: &str) {
        let now = self.clock.now();
        self.reporter
            .report(set, EventKind::Warning, reason, message, now)
            .await;
    }
}

impl Set for StatefulSet {
    fn view(&self) -> SetView {
        let spec = self.spec.clone();
        SetView {
            key: key_of(self),
            uid: self.uid().unwrap_or_default(),
            api_version: Self::api_version(&()).into_owned(),
            kind: Self::kind(&()).into_owned(),
            generation: self.metadata.generation,
            deleting: self.metadata.deletion_timestamp.is_some(),
            replicas: spec.replicas.unwrap_or(1),
            first: spec.ordinals.and_then(|o| o.start).unwrap_or(0),
            template: spec.template,
            service_name: spec.service_name.unwrap_or_default(),
            parallel: spec.pod_management_policy.as_deref() == Some("Parallel"),
            status: self.status.clone().unwrap_or_default(),
        }
    }

    fn unsupported(&self) -> Option<&'static str> {
        let spec = &self.spec;
        let strategy = spec.update_strategy.as_ref();
        unsupported(
            strategy.and_then(|s| s.type_.as_deref()),
            spec.volume_claim_templates
                .as_ref()
                .is_some_and(|claims| !claims.is_empty()),
        )
    }
}

impl Set for PetSet {
    fn view(&self) -> SetView {
        let start = self.spec.ordinals.as_ref().map(|o| o["start"].as_i64());
        SetView {
            key: key_of(self),
            uid: self.uid().unwrap_or_default(),
            api_version: Self::api_version(&()).into_owned(),
            kind: Self::kind(&()).into_owned(),
            generation: self.metadata.generation,
            deleting: self.metadata.deletion_timestamp.is_some(),
            replicas: self.spec.replicas.unwrap_or(1),
            first: start
                .flatten()
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or(0),
            template: self.spec.template.clone(),
            service_name: self.spec.service_name.clone(),
            parallel: self.spec.pod_management_policy.as_deref() == Some("Parallel"),
            status: self
                .status
                .clone()
                .map(|status| status.0)
                .unwrap_or_default(),
        }
    }

    fn unsupported(&self) -> Option<&'static str> {
        let strategy = self.spec.update_strategy.as_ref();
        unsupported(
            strategy.and_then(|s| s.type_.as_deref()),
            !self.spec.volume_claim_templates.is_empty(),
        )
    }
}

fn unsupported(strategy: Option<&str>, claims: bool) -> Option<&'static str> {
    if claims {
        Some("the local platform has no persistent volumes: volumeClaimTemplates are ignored")
    } else if strategy == Some("RollingUpdate") {
        Some("the local platform treats RollingUpdate as OnDelete: pods are replaced when deleted")
    } else {
        None
    }
}
