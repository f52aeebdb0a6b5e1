//! Networks that a Vault server may be in: pure.
//!
//! An Issuer is written by a tenant and asked by the daemon, so its `spec.vault.server` must not lead
//! to what only the daemon reaches: its own loopback, and the link-local addresses at which nodes and
//! clouds keep credentials. The address that is connected to is judged, not the name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses of cloud metadata services that are not link-local.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// A network in CIDR form, such as `10.0.0.0/8`; one address without a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

/// Networks that Vault servers may be in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VaultNetworks {
    /// All addresses but loopback, link-local, multicast, reserved and unspecified ones, and those of
    /// metadata services.
    #[default]
    Routable,
    /// The same and loopback, for a platform on one machine.
    RoutableAndLoopback,
    /// Exactly these.
    Within(Vec<Network>),
}

/// Text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network: write one such as 10.0.0.0/8, fd00::/8 or 127.0.0.1")]
pub struct NotANetwork(String);

// === impl VaultNetworks ===

impl VaultNetworks {
    /// Whether a Vault server may have that address. An IPv6 address that stands for an IPv4 one is
    /// judged as that.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = plain(address);
        match self {
            Self::Routable => is_routable(address),
            Self::RoutableAndLoopback => is_routable(address) || address.is_loopback(),
            Self::Within(networks) => networks.iter().any(|network| network.holds(address)),
        }
    }
}

/// The IPv4 address that an IPv6 one stands for (mapped, compatible, NAT64, 6to4), else itself.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let v4 = |high: u16, low: u16| {
        let bits = u32::from(high) << 16 | u32::from(low);
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        // `::` and `::1` are addresses of their own.
        | [0, 0, 0, 0, 0, 0, high @ 1..=u16::MAX, low] => v4(high, low),
        _ => address,
    }
}

fn is_routable(address: IpAddr) -> bool {
    let is_special = match address {
        // 0/8 is "this network", 240/4 and the broadcast address are reserved.
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[0] == 0 || v4.octets()[0] >= 224,
        // ::/96 is what is left of a form that is not used any more.
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.is_multicast() || v6.segments()[..6] == [0; 6]
        }
    };
    !is_special && !address.is_loopback() && !METADATA.contains(&address)
}

// === impl Network ===

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        let (own, other, bits) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let rest = u32::from(bits - self.length);
        // A shift by the whole width is no number: a length of 0 holds everything.
        let cut = |bits: u128| bits.checked_shr(rest).unwrap_or_default();
        cut(own) == cut(other)
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let bad = || NotANetwork(text.to_owned());
        let (address, length) = match text.trim().split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().map_err(|_| bad())?,
            None => most,
        };
        if length > most || plain(address) != address {
            return Err(bad());
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(networks: &VaultNetworks, address: &str) -> bool {
        networks.allows(address.parse().unwrap())
    }

    #[test]
    fn only_what_is_routable_is_allowed_by_default_in_whatever_form_it_is_written() {
        let networks = VaultNetworks::default();
        for address in [
            "10.1.2.3",
            "192.168.0.1",
            "192.0.2.7",
            "223.255.255.255",
            "fd00::7",
            "2001:db8::1",
            "::ffff:10.1.2.3",
        ] {
            assert!(allowed(&networks, address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "febf::1",
            "::5",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "ff02::1",
            "168.63.129.16",
            "fd00:ec2::254",
        ] {
            assert!(!allowed(&networks, address), "{address}");
        }
    }

    #[test]
    fn a_platform_on_one_machine_has_loopback_and_nothing_else_more() {
        let networks = VaultNetworks::RoutableAndLoopback;
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3"] {
            assert!(allowed(&networks, address), "{address}");
        }
        assert!(!allowed(&networks, "169.254.169.254"));
        assert!(!allowed(&networks, "0.0.0.0"));
    }

    #[test]
    fn networks_that_are_named_are_the_only_ones() {
        let named = ["10.0.0.0/8", "127.0.0.1", "fd00::/8", " 192.0.2.0/31 "];
        let named = named.map(|text| text.parse().unwrap());
        let networks = VaultNetworks::Within(named.to_vec());
        for address in [
            "10.255.0.1",
            "127.0.0.1",
            "::ffff:10.0.0.1",
            "fdff::1",
            "192.0.2.1",
        ] {
            assert!(allowed(&networks, address), "{address}");
        }
        for address in [
            "11.0.0.1",
            "127.0.0.2",
            "fe80::1",
            "192.0.2.2",
            "8.8.8.8",
            "::1",
        ] {
            assert!(!allowed(&networks, address), "{address}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.holds("203.0.113.1".parse().unwrap()));
        assert!(!all.holds("::1".parse().unwrap()));
        assert_eq!(all.to_string(), "0.0.0.0/0");
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "vault",
            "10.0.0.0/",
            "::ffff:1.2.3.4",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
