//! What watches have told of PgBouncers and their pods. A settled object is looked at by these alone,
//! so that one that nothing happens to asks the API server for nothing.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{self, Store};

use crate::api::PgBouncer;
use crate::names::ObjectRef;

/// How long a look waits for the first list of pods. It comes within seconds of the daemon's start, or
/// not at all.
const LISTED_TIMEOUT: Duration = Duration::from_secs(5);

/// Copies that watches keep. A clone is the same.
#[derive(Clone)]
pub struct Copies {
    bouncers: Store<PgBouncer>,
    pods: Store<Pod>,
}

impl Copies {
    /// Copies of the PgBouncers that are looked after, and of their pods.
    pub const fn new(bouncers: Store<PgBouncer>, pods: Store<Pod>) -> Self {
        Self { bouncers, pods }
    }

    /// Waits until pods have been listed; before that, one that is not known may be there.
    pub(super) async fn are_listed(&self) -> bool {
        let listed = self.pods.wait_until_ready();
        let listed = tokio::time::timeout(LISTED_TIMEOUT, listed).await;
        matches!(listed, Ok(Ok(())))
    }

    pub(super) fn bouncer(&self, at: &ObjectRef) -> Option<Arc<PgBouncer>> {
        let key = reflector::ObjectRef::new(&at.name).within(&at.namespace);
        self.bouncers.get(&key)
    }

    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let key = reflector::ObjectRef::new(name).within(namespace);
        self.pods.get(&key)
    }
}
