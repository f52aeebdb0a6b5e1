//! Connections before and after their users are known.
//!
//! ```text
//!   accept ─► unknown (handshake, first request: 10 s in all) ─► counted as a user's ─► closed
//!                └─ too many: the oldest unknown one is closed
//! ```
//!
//! All clients come from loopback, so their addresses tell nothing about them. A connection that
//! says nothing therefore costs only its place, and loses it to the next one that comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::access::Identity;
use super::error::ApiError;
use super::shares::{Counted, Shares, name_of};

/// Connections whose user is not known yet.
pub(super) const UNKNOWN_MAX: usize = 512;

/// The connections whose user is not known yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Doorway {
    unknown: Mutex<Unknown>,
}

#[derive(Debug, Default)]
struct Unknown {
    next: u64,
    tokens: BTreeMap<u64, CancellationToken>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    doorway: Arc<Doorway>,
    place: u64,
    closed: CancellationToken,
    user: Mutex<Option<Counted>>,
}

// === impl Doorway ===

impl Doorway {
    /// Takes in a new connection; the oldest unknown one goes where there are too many.
    pub(super) fn enter(self: &Arc<Self>) -> Arc<Connection> {
        let mut unknown = self.lock();
        while unknown.tokens.len() >= UNKNOWN_MAX
            && let Some((_, oldest)) = unknown.tokens.pop_first()
        {
            oldest.cancel();
        }
        let (place, closed) = (unknown.next, CancellationToken::new());
        unknown.next += 1;
        unknown.tokens.insert(place, closed.clone());
        drop(unknown);
        Arc::new(Connection {
            doorway: Arc::clone(self),
            place,
            closed,
            user: Mutex::default(),
        })
    }

    fn leave(&self, place: u64) {
        self.lock().tokens.remove(&place);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Unknown> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    /// Notes whose request came; refuses it where the user has too many connections.
    pub(super) fn known(&self, identity: &Identity, shares: &Shares) -> Result<(), ApiError> {
        let mut user = self.user.lock().unwrap_or_else(PoisonError::into_inner);
        if user
            .as_ref()
            .is_some_and(|user| user.user == name_of(identity))
        {
            return Ok(());
        }
        *user = Some(shares.connection(identity)?);
        self.doorway.leave(self.place);
        Ok(())
    }

    /// Whether no user is known.
    pub(super) fn is_unknown(&self) -> bool {
        let user = self.user.lock().unwrap_or_else(PoisonError::into_inner);
        user.is_none()
    }

    /// Ends when the connection has to make room.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.doorway.leave(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::User;
    use super::*;

    #[test]
    fn the_oldest_unknown_connection_makes_room_and_known_ones_stay() {
        let (doorway, shares) = (Arc::new(Doorway::default()), Shares::default());
        let known = doorway.enter();
        known.known(&Identity::Admin, &shares).unwrap();
        let silent: Vec<_> = (0..UNKNOWN_MAX).map(|_| doorway.enter()).collect();
        assert!(silent.iter().all(|one| !one.closed.is_cancelled()));
        let late = doorway.enter();
        assert!(silent[0].closed.is_cancelled() && !silent[1].closed.is_cancelled());
        assert!(!known.closed.is_cancelled() && !late.closed.is_cancelled());
        drop(silent);
        drop(late);
        assert!(doorway.lock().tokens.is_empty());
    }

    #[test]
    fn a_refused_connection_stays_unknown() {
        let (doorway, shares) = (Arc::new(Doorway::default()), Shares::default());
        let clerk = Identity::User(User::service_account("books", "clerk"));
        let held: Vec<_> = std::iter::from_fn(|| shares.connection(&clerk).ok()).collect();
        let one = doorway.enter();
        assert!(one.known(&clerk, &shares).is_err());
        assert!(one.is_unknown());
        drop(held);
        one.known(&clerk, &shares).unwrap();
        assert!(!one.is_unknown());
    }
}
