//! One look at a pod: a handshake, bounded.

use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use super::facts::Leaf;
use super::state::Seen;
use crate::causes::chain;
use crate::pgbouncer::probe::{self, Served};
use crate::pki::facts::CertificateFacts;

/// Bound of one look.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// Shakes hands.
pub(super) async fn look(address: SocketAddr) -> Seen {
    match probe::probe(address, None, LOOK_TIMEOUT).await {
        Ok(Served::Plaintext) => Seen::Plaintext,
        Ok(Served::Tls(handshake)) => {
            let leaf = handshake.leaf().map(CertificateDer::from);
            let facts = leaf.and_then(|leaf| CertificateFacts::read(&leaf));
            facts.map_or_else(
                || Seen::Nothing("what it serves is not a certificate".into()),
                |facts| Seen::Leaf(Leaf::of(&facts)),
            )
        }
        Err(error) => Seen::Nothing(chain(&error).into()),
    }
}
