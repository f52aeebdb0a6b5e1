//! Loopback addresses for pods and Services, from a block that nothing else uses by habit.
//!
//! An address follows from a hash of a name, so a pod keeps its address from one incarnation (owner)
//! to the next as long as nobody else has taken it. An address is given out only if
//! the wanted ports can be bound on it: another program may be there, or on all addresses.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

/// First address of the block 127.64.0.0/10.
const BLOCK_FIRST: u32 = 0x7f40_0000;
/// Number of addresses in it.
const BLOCK_SIZE: u32 = 1 << 22;
/// Addresses tried before giving up: if this many in a row are taken, something listens on all.
const ATTEMPTS: u32 = 64;

/// Who has which address.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    salt: String,
    owners: Arc<Mutex<HashMap<Ipv4Addr, String>>>,
}

/// No address can be given out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "port {port} cannot be bound on any of {ATTEMPTS} loopback addresses tried ({last}): {cause}; another program probably listens on that port on all addresses"
)]
pub struct NoAddress {
    /// The port.
    pub port: u16,
    /// The last address tried.
    pub last: Ipv4Addr,
    /// What the system said.
    pub cause: String,
}

impl Addresses {
    /// A pool whose choices also depend on `salt`, so that two platforms on one machine seldom
    /// want the same address.
    pub fn new(salt: impl Into<String>) -> Self {
        Self {
            salt: salt.into(),
            owners: Arc::default(),
        }
    }

    /// Notes that `owner` has `address`; false if another owner has it.
    pub fn claim(&self, address: Ipv4Addr, owner: &str) -> bool {
        let mut owners = self.lock();
        let holder = owners.entry(address).or_insert_with(|| owner.to_owned());
        holder == owner
    }

    /// Gives `owner` an address on which `ports` can be bound, if possible the one that belongs to
    /// `name`.
    pub fn take(&self, owner: &str, name: &str, ports: &[u16]) -> Result<Ipv4Addr, NoAddress> {
        let first = self.start(name);
        let mut refused = None;
        for n in 0..ATTEMPTS {
            // The odd step visits every address of the block, whose size is a power of two.
            let offset = first.wrapping_add(n.wrapping_mul(0x0009_e377)) % BLOCK_SIZE;
            let address = Ipv4Addr::from(BLOCK_FIRST + offset);
            if matches!(address.octets()[3], 0 | 255) || !self.claim(address, owner) {
                continue;
            }
            match probe(address, ports) {
                Ok(()) => return Ok(address),
                Err((port, cause)) => {
                    self.release(address, owner);
                    refused = Some(NoAddress {
                        port,
                        last: address,
                        cause: cause.to_string(),
                    });
                }
            }
        }
        Err(refused.unwrap_or_else(|| NoAddress {
            port: 0,
            last: Ipv4Addr::from(BLOCK_FIRST),
            cause: "all are taken".to_owned(),
        }))
    }

    /// Gives the address back, if `owner` has it.
    pub fn release(&self, address: Ipv4Addr, owner: &str) {
        let mut owners = self.lock();
        if owners.get(&address).is_some_and(|holder| holder == owner) {
            owners.remove(&address);
        }
    }

    fn start(&self, name: &str) -> u32 {
        let text = format!("{}\n{name}", self.salt);
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        digest
            .as_ref()
            .iter()
            .take(4)
            .fold(0, |sum, byte| (sum << 8) | u32::from(*byte))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Ipv4Addr, String>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether all of `ports` can be bound on `address` now.
fn probe(address: Ipv4Addr, ports: &[u16]) -> Result<(), (u16, std::io::Error)> {
    for port in ports {
        TcpListener::bind(SocketAddr::from((address, *port))).map_err(|e| (*port, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_gets_the_same_address_again_and_two_owners_never_share() {
        let pool = Addresses::new("salt");
        let till = pool.take("uid-1", "till-0", &[]).unwrap();
        let other = pool.take("uid-2", "till-1", &[]).unwrap();
        assert_ne!(till, other);
        pool.release(till, "uid-2");
        assert!(!pool.claim(till, "svc/shop/till"), "not its own to give");
        pool.release(till, "uid-1");
        assert_eq!(pool.take("uid-3", "till-0", &[]), Ok(till));
        assert_eq!(till.octets()[0], 127);
        assert!((64..128).contains(&till.octets()[1]));
    }

    #[test]
    fn an_address_whose_port_is_taken_is_passed_over() {
        let free = Addresses::new("probe").take("x", "x", &[]).unwrap();
        let held = TcpListener::bind((free, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        let chosen = Addresses::new("probe").take("x", "x", &[port]).unwrap();
        assert_ne!(chosen, free);
    }

    #[test]
    fn a_port_taken_on_all_addresses_is_named() {
        let everywhere = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let error = Addresses::new("full").take("x", "x", &[port]).unwrap_err();
        assert_eq!(error.port, port);
    }
}
