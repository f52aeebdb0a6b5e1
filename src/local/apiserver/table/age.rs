//! How long ago something was, as `kubectl` prints it.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::instants::Since;

/// The age of an RFC 3339 timestamp: `45s`, `3m20s`, `5h`, `12d`; `<unknown>` if it is none.
pub(super) fn since(timestamp: Option<&str>, now: OffsetDateTime) -> String {
    timestamp
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
        .map_or_else(|| "<unknown>".to_owned(), |at| human(now.since(at)))
}

/// The two largest units while they matter, later only the largest.
pub(super) fn human(duration: Duration) -> String {
    let seconds = duration.whole_seconds();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match hours {
        // A clock that is a second ahead of ours is no reason to alarm anybody.
        _ if seconds < -1 => "<invalid>".to_owned(),
        _ if seconds < 0 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        ..8 => two(hours, "h", minutes % 60, "m"),
        8..48 => format!("{hours}h"),
        48..192 => two(days, "d", hours % 24, "h"),
        192..17_520 => format!("{days}d"),
        17_520..70_080 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (599, "9m59s"),
            (600, "10m"),
            (179 * 60 + 59, "179m"),
            (3 * 3600, "3h"),
            (5 * 3600 + 60, "5h1m"),
            (8 * 3600 + 60, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 86_400, "8d"),
            (729 * 86_400, "729d"),
            (731 * 86_400, "2y1d"),
            (9 * 365 * 86_400, "9y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human(Duration::seconds(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn a_timestamp_that_is_none_has_an_unknown_age() {
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(since(None, now), "<unknown>");
        assert_eq!(since(Some("yesterday"), now), "<unknown>");
        assert_eq!(since(Some("1969-12-31T23:00:00Z"), now), "60m");
    }
}
