//! What Roles were good for: which rules have allowed something, and what was denied.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::identity::User;
use super::rules::{Attributes, Grain};

/// What has been allowed and denied so far.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Rules that have allowed something.
    pub used: BTreeSet<Grain>,
    /// What was denied, in the words of the answer.
    pub denied: BTreeSet<String>,
}

/// Distinct refusals that are kept. They are few by nature; this bounds what a scanner leaves.
const DENIED_MAX: usize = 1_024;

/// A ledger that many requests write.
#[derive(Debug, Default)]
pub(in super::super) struct SharedLedger(Mutex<Ledger>);

impl SharedLedger {
    pub(super) fn snapshot(&self) -> Ledger {
        self.lock().clone()
    }

    pub(super) fn used(&self, grain: Grain) {
        self.lock().used.insert(grain);
    }

    pub(super) fn deny(&self, user: &User, attributes: &Attributes) {
        let mut ledger = self.lock();
        if ledger.denied.len() < DENIED_MAX {
            ledger.denied.insert(attributes.refusal(&user.name));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
