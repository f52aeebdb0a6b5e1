//! Users that pods' processes run as.
//!
//! A platform that root starts gives each pod a user and a group of its own, from a range that no
//! account uses. The ids of a security context are not taken: they would be users of this machine,
//! and two pods that name the same one could read each other's keys. A platform that another user
//! starts can only run processes as that user.

use std::fmt;
use std::str::FromStr;

use nix::unistd::{Uid, User};

/// Smallest id that may be given to a pod: below are the accounts of the system and of people.
const FIRST_MIN: u32 = 65_536;
/// The default range. systemd's table of ids has no use for it.
const DEFAULT: (u32, u32) = (1_900_000_000, 1_900_065_535);

/// User and group of a pod; both are the pod's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Ids that pods are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UidRange {
    first: u32,
    last: u32,
}

/// A range that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a range of user ids for pods: write FIRST-LAST with FIRST at least \
     {FIRST_MIN}, such as {}",
    UidRange::default()
)]
pub struct NotARange {
    given: String,
}

// === impl UidRange ===

impl UidRange {
    /// Whether `id` may be a pod's.
    pub const fn holds(self, id: u32) -> bool {
        self.first <= id && id <= self.last
    }

    /// All ids, beginning with the one that `seed` chooses.
    pub fn from_seed(self, seed: u32) -> impl Iterator<Item = u32> {
        let size = u64::from(self.last - self.first) + 1;
        let start = u64::from(seed) % size;
        (0..size).filter_map(move |n| {
            let offset = u32::try_from((start + n) % size).ok()?;
            self.first.checked_add(offset)
        })
    }
}

impl Default for UidRange {
    fn default() -> Self {
        let (first, last) = DEFAULT;
        Self { first, last }
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for UidRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let not_a_range = || NotARange {
            given: text.to_owned(),
        };
        let (first, last) = text.split_once('-').ok_or_else(not_a_range)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| not_a_range());
        let (first, last) = (number(first)?, number(last)?);
        // The last id means "unchanged" to the kernel.
        if first < FIRST_MIN || last < first || last == u32::MAX {
            return Err(not_a_range());
        }
        Ok(Self { first, last })
    }
}

/// Whether the platform runs as root, so that pods have users of their own.
pub fn separates() -> bool {
    Uid::effective().is_root()
}

/// Whether an account has this id.
pub fn is_account(id: u32) -> bool {
    User::from_uid(Uid::from_raw(id)).is_ok_and(|user| user.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_written_and_keeps_off_accounts() {
        let range: UidRange = "200000-200002".parse().unwrap();
        assert_eq!(range.to_string(), "200000-200002");
        assert!(range.holds(200_000) && range.holds(200_002) && !range.holds(200_003));
        for broken in [
            "",
            "7",
            "0-10",
            "1000-2000",
            "70000-69999",
            "a-b",
            "-5-9",
            "70000-4294967295",
            "70000-99999999999",
        ] {
            let error = broken.parse::<UidRange>().unwrap_err().to_string();
            assert!(error.contains("FIRST-LAST"), "{error}");
        }
    }

    #[test]
    fn a_seed_chooses_where_a_search_begins_and_all_ids_are_tried() {
        let range: UidRange = "200000-200002".parse().unwrap();
        let order: Vec<u32> = range.from_seed(4).collect();
        assert_eq!(order, [200_001, 200_002, 200_000]);
    }
}
