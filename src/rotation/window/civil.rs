//! From the wall clock to instants, also where the clock jumps.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// The instant at which the clock of `zone` first shows `at` or, where it never does, the instant at
/// which it jumps over it.
pub(super) fn resolve(at: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let shown = zone.to_ambiguous_zoned(at);
    if !matches!(shown.offset(), AmbiguousOffset::Gap { .. }) {
        return Some(shown.compatible().ok()?.timestamp());
    }
    let before = shown.earlier().ok()?.timestamp();
    zone.following(before).next().map(|jump| jump.timestamp())
}
