//! Instants and lengths of time as people read them in messages.

use time::{Duration, OffsetDateTime};

use crate::duration::GoDuration;
use crate::instants::in_utc;

/// An instant to the second, in UTC: `2031-04-05T06:07:08Z`.
pub(super) fn instant(at: &OffsetDateTime) -> String {
    let at = in_utc(*at);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// A length as manifests write it: `2160h0m0s`.
pub(crate) fn length(length: &Duration) -> String {
    GoDuration::try_from(*length).map_or_else(|_| length.to_string(), |length| length.to_string())
}
