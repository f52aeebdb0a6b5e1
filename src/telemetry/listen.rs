//! Where the admin server listens: one address, or every address of the machine.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::{AddrParseError, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::ParseIntError;
use std::str::FromStr;

use tokio::net::TcpListener;

/// Where to listen; port 0 is any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// On this address, written `127.0.0.1:9180` or `[::1]:9180`.
    One(SocketAddr),
    /// On every address of the families that the machine has, written `:9180`: what a pod needs,
    /// because it does not know whether its cluster speaks IPv4, IPv6 or both.
    Every(u16),
}

/// A text that says no place to listen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadListenAddress {
    /// Behind the colon is no port.
    #[error("`:{0}` is not a port such as `:9180`")]
    Port(String, #[source] ParseIntError),
    /// It is no address.
    #[error(
        "`{0}` is neither an address with a port, such as `127.0.0.1:9180` or `[::1]:9180`, nor a port on all addresses, such as `:9180`"
    )]
    Address(String, #[source] AddrParseError),
}

// === impl ListenAddress ===

impl ListenAddress {
    /// Listens.
    pub async fn bind(self) -> io::Result<TcpListener> {
        let port = match self {
            Self::One(address) => return TcpListener::bind(address).await,
            Self::Every(port) => port,
        };
        // A socket of `::` takes IPv4 as well, unless the machine has been told otherwise.
        match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            bound => bound,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = BadListenAddress;

    fn from_str(text: &str) -> Result<Self, BadListenAddress> {
        if let Some(port) = text.strip_prefix(':').filter(|rest| !rest.contains(':')) {
            let bad = |source| BadListenAddress::Port(port.to_owned(), source);
            return port.parse().map(Self::Every).map_err(bad);
        }
        let bad = |source| BadListenAddress::Address(text.to_owned(), source);
        text.parse().map(Self::One).map_err(bad)
    }
}

impl Display for ListenAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => address.fmt(f),
            Self::Every(port) => write!(f, ":{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["127.0.0.1:0", "0.0.0.0:9180", "[::1]:9180", ":9180"] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "9180",
            "::1:9180",
            ":",
            ":70000",
            "localhost:9180",
            "127.0.0.1",
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(":9180"), "{error}");
        }
    }

    #[tokio::test]
    async fn whoever_listens_everywhere_is_reached_by_both_families() {
        let listener = ListenAddress::Every(0).bind().await.unwrap();
        let address = listener.local_addr().unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port()))
            .await
            .unwrap();
        if address.is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, address.port()))
                .await
                .unwrap();
        }
        let taken = ListenAddress::Every(address.port()).bind().await;
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
