//! How much of the server one user may have: requests worked on at once, and connections.
//!
//! The accounts of one namespace share a bound, because a tenant can make as many accounts as it
//! wants. The administrator has a larger bound of its own. In-process clients have no connection,
//! and wait for no permit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Identity;
use super::error::ApiError;

/// Requests of one user that are worked on at once; further ones wait. The larger part is disk.
const WORKING_MAX: usize = 8;
/// The same for all users but the administrator: their bodies are in memory meanwhile.
const WORKING_TOTAL: usize = 32;
/// Requests of one user that wait, beyond which they are told to come again.
const WAITING_MAX: usize = 128;
/// Connections of one user. A watch holds one, and a daemon has some ten per namespace it watches.
pub(super) const USER_CONNECTIONS_MAX: usize = 256;
/// Connections of the administrator.
pub(super) const ADMIN_CONNECTIONS_MAX: usize = 1_024;
/// Connections of all users but the administrator.
pub(super) const CONNECTIONS_MAX: usize = 2_048;

/// What users have now.
#[derive(Debug)]
pub(super) struct Shares {
    users: Mutex<HashMap<String, Weak<Share>>>,
    /// All users but the administrator.
    total: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// What one user has.
#[derive(Debug)]
struct Share {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// Leave to work on one request.
#[derive(Debug)]
pub(super) struct Leave {
    _share: Option<Arc<Share>>,
    _permits: Vec<OwnedSemaphorePermit>,
}

/// A connection that counts as its user's.
#[derive(Debug)]
pub(super) struct Counted {
    /// Whose it is.
    pub(super) user: String,
    _share: Arc<Share>,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            users: Mutex::default(),
            total: Arc::new(Semaphore::new(WORKING_TOTAL)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }
}

// === impl Shares ===

impl Shares {
    /// Waits for leave to work on a request of `identity`. A user with too many requests that wait is
    /// told to come again.
    pub(super) async fn leave(&self, identity: &Identity) -> Result<Leave, ApiError> {
        let Identity::User(_) = identity else {
            return Ok(Leave {
                _share: None,
                _permits: Vec::new(),
            });
        };
        let user = name_of(identity);
        let share = self.share(&user, USER_CONNECTIONS_MAX);
        let busy = |_| ApiError::Busy {
            user: user.clone(),
            why: "too many requests wait already",
        };
        let waiting = Arc::clone(&share.waiting).try_acquire_owned();
        let waiting = waiting.map_err(busy)?;
        // The user's own bound comes first: who waits for it takes nothing from others.
        let own = permit(&share.working).await?;
        let total = permit(&self.total).await?;
        drop(waiting);
        Ok(Leave {
            _share: Some(share),
            _permits: vec![own, total],
        })
    }

    /// Counts a connection for `identity`, or refuses it.
    pub(super) fn connection(&self, identity: &Identity) -> Result<Counted, ApiError> {
        let user = name_of(identity);
        let is_admin = *identity == Identity::Admin;
        let most = if is_admin {
            ADMIN_CONNECTIONS_MAX
        } else {
            USER_CONNECTIONS_MAX
        };
        let share = self.share(&user, most);
        let busy = |_| ApiError::Busy {
            user: user.clone(),
            why: "too many connections are open",
        };
        let own = Arc::clone(&share.connections).try_acquire_owned();
        let mut permits = vec![own.map_err(busy)?];
        if !is_admin {
            let total = Arc::clone(&self.connections).try_acquire_owned();
            permits.push(total.map_err(busy)?);
        }
        Ok(Counted {
            user,
            _share: share,
            _permits: permits,
        })
    }

    fn share(&self, user: &str, connections: usize) -> Arc<Share> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = users.get(user).and_then(Weak::upgrade) {
            return share;
        }
        // Users that have nothing open are forgotten.
        users.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share {
            working: Arc::new(Semaphore::new(WORKING_MAX)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            connections: Arc::new(Semaphore::new(connections)),
        });
        users.insert(user.to_owned(), Arc::downgrade(&share));
        share
    }
}

async fn permit(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = Arc::clone(of).acquire_owned().await;
    permit.map_err(|_| ApiError::Unavailable("the server stops".to_owned()))
}

/// Whose bound counts.
pub(super) fn name_of(identity: &Identity) -> String {
    let Identity::User(user) = identity else {
        return "the administrator".to_owned();
    };
    let account = user.name.strip_prefix("system:serviceaccount:");
    match account.and_then(|account| account.split_once(':')) {
        Some((namespace, _)) => format!("the ServiceAccounts of namespace {namespace:?}"),
        None => format!("user {:?}", user.name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::User;
    use super::*;

    fn account(namespace: &str, name: &str) -> Identity {
        Identity::User(User::service_account(namespace, name))
    }

    #[test]
    fn accounts_of_a_namespace_share_their_connections_and_others_have_theirs() {
        let shares = Shares::default();
        let names = ["clerk", "second"];
        let mut held: Vec<Counted> = (0..USER_CONNECTIONS_MAX)
            .map(|n| shares.connection(&account("books", names[n % 2])).unwrap())
            .collect();
        let refused = shares.connection(&account("books", "third")).unwrap_err();
        assert_eq!(refused.code().0, 429);
        assert!(refused.to_string().contains("books"), "{refused}");
        shares.connection(&account("shops", "clerk")).unwrap();
        shares.connection(&Identity::Admin).unwrap();
        held.pop();
        shares.connection(&account("books", "third")).unwrap();
    }

    #[test]
    fn all_users_together_leave_room_for_the_administrator() {
        let shares = Shares::default();
        let tenants = CONNECTIONS_MAX / USER_CONNECTIONS_MAX;
        let held: Vec<Counted> = (0..CONNECTIONS_MAX)
            .map(|n| {
                let namespace = format!("ns{}", n % tenants);
                shares.connection(&account(&namespace, "a")).unwrap()
            })
            .collect();
        assert!(shares.connection(&account("late", "a")).is_err());
        shares.connection(&Identity::Admin).unwrap();
        drop(held);
        assert!(shares.connection(&account("late", "a")).is_ok());
    }

    #[tokio::test]
    async fn a_user_with_work_under_way_waits_for_itself_and_others_do_not() {
        let shares = Shares::default();
        let books = account("books", "clerk");
        let mut held = Vec::new();
        for _ in 0..WORKING_MAX {
            held.push(shares.leave(&books).await.unwrap());
        }
        let mut next = Box::pin(shares.leave(&books));
        assert!(futures::poll!(&mut next).is_pending());
        shares.leave(&account("shops", "clerk")).await.unwrap();
        shares.leave(&Identity::Admin).await.unwrap();
        held.pop();
        next.await.unwrap();
        let mut waiting: Vec<_> = (0..=WAITING_MAX)
            .map(|_| Box::pin(shares.leave(&books)))
            .collect();
        held.push(shares.leave(&books).await.unwrap());
        let mut refused = 0;
        for one in &mut waiting {
            if let std::task::Poll::Ready(Err(error)) = futures::poll!(one) {
                assert_eq!(error.code().0, 429);
                refused += 1;
            }
        }
        assert_eq!(refused, 1);
    }
}
