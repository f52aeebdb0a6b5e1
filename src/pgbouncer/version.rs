//! Which PgBouncer this is.

use std::fmt;

/// A version of PgBouncer; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    /// Major number.
    pub major: u16,
    /// Minor number.
    pub minor: u16,
    /// Patch number.
    pub patch: u16,
}

impl Version {
    /// First version in which SIGTERM waits for clients, and in which the console knows
    /// `SHUTDOWN WAIT_FOR_SERVERS`.
    pub const GRACEFUL_SHUTDOWN: Self = Self::new(1, 23, 0);

    /// First version with `client_idle_timeout`.
    pub const CLIENT_IDLE_TIMEOUT: Self = Self::new(1, 24, 0);

    /// The version of those numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Reads `1.18.0`, `1.24`, and what `SHOW VERSION` and `pgbouncer --version` answer
    /// (`PgBouncer 1.18.0`, possibly with a suffix such as `1.26.1-dev`).
    pub fn parse(text: &str) -> Option<Self> {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let end = text[start..]
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .map_or(text.len(), |length| start + length);
        let mut numbers = text[start..end].split('.').map(str::parse::<u16>);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next()?.ok()?;
        let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
        Some(Self::new(major, minor, patch))
    }

    /// Whether clients can be closed for being idle.
    pub fn can_time_out_idle_clients(self) -> bool {
        self >= Self::CLIENT_IDLE_TIMEOUT
    }

    /// Whether the console can be told to stop once no transaction is open.
    pub fn can_wait_for_servers(self) -> bool {
        self >= Self::GRACEFUL_SHUTDOWN
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_program_says() {
        assert_eq!(
            Version::parse("PgBouncer 1.18.0"),
            Some(Version::new(1, 18, 0))
        );
        assert_eq!(Version::parse("1.24"), Some(Version::new(1, 24, 0)));
        assert_eq!(
            Version::parse("PgBouncer 1.26.1-dev"),
            Some(Version::new(1, 26, 1))
        );
        assert_eq!(Version::parse("PgBouncer"), None);
        assert_eq!(Version::parse("7"), None);
    }

    #[test]
    fn a_later_version_is_greater() {
        assert!(Version::new(1, 9, 3) < Version::new(1, 18, 0));
        assert!(Version::new(1, 23, 1).can_wait_for_servers());
        assert!(!Version::new(1, 22, 1).can_wait_for_servers());
    }
}
