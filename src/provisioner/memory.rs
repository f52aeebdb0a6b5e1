//! What the provisioner remembers between two looks at an object, and may forget at any time: it
//! saves requests, nothing is decided by it alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long applied objects are taken to be as they were applied. A Service that somebody deletes
/// is back within that time.
const TRUSTED: Duration = Duration::from_secs(30);

/// What is remembered, by the objects' identities.
#[derive(Debug, Default)]
pub(super) struct Memory {
    objects: Mutex<HashMap<String, Remembered>>,
}

#[derive(Debug, Default)]
struct Remembered {
    applied: Option<(Vec<u8>, Instant)>,
    failed_looks: i32,
}

// === impl Memory ===

impl Memory {
    /// Whether those very objects were applied a short while ago.
    pub(super) fn is_applied(&self, uid: &str, digest: &[u8]) -> bool {
        self.lock()
            .get(uid)
            .and_then(|known| known.applied.as_ref())
            .is_some_and(|(applied, at)| applied == digest && at.elapsed() < TRUSTED)
    }

    /// Remembers that those objects were applied.
    pub(super) fn applied(&self, uid: &str, digest: Vec<u8>) {
        self.lock().entry(uid.to_owned()).or_default().applied = Some((digest, Instant::now()));
    }

    /// Counts looks in a row that found an object unhealthy.
    pub(super) fn looked(&self, uid: &str, is_healthy: bool) -> i32 {
        let mut objects = self.lock();
        let known = objects.entry(uid.to_owned()).or_default();
        known.failed_looks = if is_healthy {
            0
        } else {
            known.failed_looks.saturating_add(1)
        };
        known.failed_looks
    }

    /// Forgets an object.
    pub(super) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
