//! Durations as Go writes them (`2160h`, `1h20m`, `1.5h`): the spelling of every duration in the
//! Kubernetes objects that we read and write.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A signed number of nanoseconds that reads and prints as Go's `time.Duration` does.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoDuration {
    nanoseconds: i64,
}

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Not of the form number and unit, repeated.
    #[error("{text:?} is not a duration: write numbers with units, such as 2160h or 1h30m")]
    Malformed {
        /// What was written.
        text: String,
    },
    /// A number without a unit after it.
    #[error("{text:?} lacks a unit: one of h, m, s, ms, us, ns")]
    MissingUnit {
        /// What was written.
        text: String,
    },
    /// A unit that Go does not know, such as `d`.
    #[error(
        "{text:?} has the unknown unit {unit:?}: write one of h, m, s, ms, us, ns (a day is 24h)"
    )]
    UnknownUnit {
        /// What was written.
        text: String,
        /// The unit.
        unit: String,
    },
    /// More nanoseconds than a signed 64-bit number holds.
    #[error("{text:?} is longer than a duration may be (about 292 years)")]
    TooLong {
        /// What was written.
        text: String,
    },
}

/// Nobody writes a longer duration; a longer text is refused unread.
const TEXT_MAX_BYTES: usize = 128;

const NANOSECOND: u64 = 1;
const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

impl GoDuration {
    /// No time at all.
    pub const ZERO: Self = Self { nanoseconds: 0 };

    /// So many hours; saturates at about 292 years.
    pub const fn from_hours(hours: i64) -> Self {
        Self {
            nanoseconds: hours.saturating_mul(HOUR.cast_signed()),
        }
    }

    /// So many seconds; saturates at about 292 years.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self {
            nanoseconds: seconds.saturating_mul(SECOND.cast_signed()),
        }
    }

    /// The length in nanoseconds.
    pub const fn nanoseconds(self) -> i64 {
        self.nanoseconds
    }

    /// The same length as the program's own duration type.
    pub const fn to_time(self) -> time::Duration {
        time::Duration::nanoseconds(self.nanoseconds)
    }

    /// The same length as an unsigned duration; `None` for a negative one.
    pub fn to_std(self) -> Option<std::time::Duration> {
        u64::try_from(self.nanoseconds)
            .ok()
            .map(std::time::Duration::from_nanos)
    }
}

impl From<GoDuration> for time::Duration {
    fn from(duration: GoDuration) -> Self {
        duration.to_time()
    }
}

impl TryFrom<time::Duration> for GoDuration {
    type Error = std::num::TryFromIntError;

    fn try_from(duration: time::Duration) -> Result<Self, Self::Error> {
        Ok(Self {
            nanoseconds: i64::try_from(duration.whole_nanoseconds())?,
        })
    }
}

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > TEXT_MAX_BYTES {
            let text = text.chars().take(TEXT_MAX_BYTES).collect();
            return Err(ParseDurationError::Malformed { text });
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if unsigned == "0" {
            return Ok(Self::ZERO);
        }
        if unsigned.is_empty() {
            return Err(ParseDurationError::Malformed {
                text: text.to_owned(),
            });
        }
        let mut total: i128 = 0;
        let mut rest = unsigned;
        while !rest.is_empty() {
            let (part, after) = parse_part(rest, text)?;
            // A text of bounded length adds up to far less than an i128 holds.
            total = total.saturating_add(part);
            rest = after;
        }
        let signed = if negative { -total } else { total };
        i64::try_from(signed)
            .map(|nanoseconds| Self { nanoseconds })
            .map_err(|_| ParseDurationError::TooLong {
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.nanoseconds.unsigned_abs();
        if self.nanoseconds < 0 {
            f.write_str("-")?;
        }
        match length {
            0 => f.write_str("0s"),
            1..MICROSECOND => write!(f, "{length}ns"),
            MICROSECOND..MILLISECOND => write_fraction(f, length, MICROSECOND, "µs"),
            MILLISECOND..SECOND => write_fraction(f, length, MILLISECOND, "ms"),
            SECOND.. => {
                let (hours, minutes) = (length / HOUR, length % HOUR / MINUTE);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if length >= MINUTE {
                    write!(f, "{minutes}m")?;
                }
                write_fraction(f, length % MINUTE, SECOND, "s")
            }
        }
    }
}

impl fmt::Debug for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Duration")
    }

    // KubeDB and cert-manager publish a bare string; a pattern here would refuse what they admit.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Reads one number with its unit; returns its nanoseconds and what follows it.
fn parse_part<'a>(rest: &'a str, text: &str) -> Result<(i128, &'a str), ParseDurationError> {
    let malformed = || ParseDurationError::Malformed {
        text: text.to_owned(),
    };
    let (whole, rest) = split_digits(rest);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => split_digits(after),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(malformed());
    }
    let unit_end = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let scale = unit_nanoseconds(unit, text)?;
    let too_long = || ParseDurationError::TooLong {
        text: text.to_owned(),
    };
    let whole = if whole.is_empty() {
        0
    } else {
        // More digits than a u64 holds are too long in every unit.
        i128::from(whole.parse::<u64>().map_err(|_| too_long())?)
    };
    let whole = whole * i128::from(scale);
    Ok((whole + fraction_nanoseconds(fraction, scale), rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn unit_nanoseconds(unit: &str, text: &str) -> Result<u64, ParseDurationError> {
    match unit {
        "ns" => Ok(NANOSECOND),
        // The micro sign, and the Greek letter that looks like it.
        "us" | "\u{b5}s" | "\u{3bc}s" => Ok(MICROSECOND),
        "ms" => Ok(MILLISECOND),
        "s" => Ok(SECOND),
        "m" => Ok(MINUTE),
        "h" => Ok(HOUR),
        "" => Err(ParseDurationError::MissingUnit {
            text: text.to_owned(),
        }),
        _ => Err(ParseDurationError::UnknownUnit {
            text: text.to_owned(),
            unit: unit.to_owned(),
        }),
    }
}

/// `0.<digits>` of a unit, cut off below a nanosecond, as Go computes it: from as many digits as
/// 63 bits hold, with a floating-point number of 64 bits.
fn fraction_nanoseconds(digits: &str, scale: u64) -> i128 {
    const MOST: u64 = i64::MAX.cast_unsigned();
    let (mut value, mut divisor) = (0_u64, 1.0_f64);
    for digit in digits.bytes() {
        // The digits that do not fit any more are left out.
        if value > MOST / 10 || value * 10 + u64::from(digit - b'0') > MOST + 1 {
            break;
        }
        value = value * 10 + u64::from(digit - b'0');
        divisor *= 10.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "Go rounds here as well; less than one unit is far below 2^63 nanoseconds"
    )]
    let nanoseconds = (value as f64 * (scale as f64 / divisor)) as i64;
    i128::from(nanoseconds)
}

/// Writes `length` in `unit`s with as many decimals as it needs.
fn write_fraction(f: &mut fmt::Formatter<'_>, length: u64, unit: u64, suffix: &str) -> fmt::Result {
    write!(f, "{}", length / unit)?;
    let remainder = length % unit;
    if remainder > 0 {
        let width = unit.ilog10() as usize;
        let digits = format!("{remainder:0width$}");
        write!(f, ".{}", digits.trim_end_matches('0'))?;
    }
    f.write_str(suffix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<i64, ParseDurationError> {
        text.parse::<GoDuration>().map(GoDuration::nanoseconds)
    }

    #[test]
    fn durations_print_in_gos_canonical_form() {
        for (written, canonical) in [
            ("2160h", "2160h0m0s"),
            ("1h20m", "1h20m0s"),
            ("5m", "5m0s"),
            ("1.5h", "1h30m0s"),
            ("90s", "1m30s"),
            ("-1m0.25s", "-1m0.25s"),
            ("1500us", "1.5ms"),
            ("1.5\u{b5}s", "1.5µs"),
            (".5s", "500ms"),
            ("7ns", "7ns"),
            ("+0", "0s"),
        ] {
            assert_eq!(
                written.parse::<GoDuration>().unwrap().to_string(),
                canonical
            );
        }
    }

    #[test]
    fn a_text_that_is_no_duration_says_what_is_wrong_with_it() {
        assert!(matches!(
            parse(""),
            Err(ParseDurationError::Malformed { .. })
        ));
        assert!(matches!(
            parse("."),
            Err(ParseDurationError::Malformed { .. })
        ));
        assert!(matches!(
            parse("h"),
            Err(ParseDurationError::Malformed { .. })
        ));
        assert!(matches!(
            parse("30"),
            Err(ParseDurationError::MissingUnit { .. })
        ));
        assert!(matches!(
            parse("999999999h"),
            Err(ParseDurationError::TooLong { .. })
        ));
        let days = parse("90d").unwrap_err().to_string();
        assert!(days.contains("\"d\"") && days.contains("24h"), "{days}");
        assert!(parse(&"1h".repeat(100)).is_err());
    }

    /// What Go 1.27's `time.ParseDuration` makes of these.
    #[test]
    fn a_fraction_is_cut_off_where_go_cuts_it_off() {
        for (text, nanoseconds) in [
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.9223372036854775807h", 3_320_413_933_267),
            ("0.9223372036854775808h", 3_320_413_933_267),
            ("0.99999999999999999999h", 3_600_000_000_000),
            ("0.100000000000000000000h", 360_000_000_000),
            ("0.000000000000000000001h", 0),
            ("1.0000000000000003h", 3_600_000_000_000),
            ("0.1666666666666667h", 600_000_000_000),
            ("0.830103483285477580700h", 2_988_372_539_827),
            ("81.0008857759333210174101h", 291_603_188_793_359),
            ("74.003698521211491942941m", 4_440_221_911_272),
            ("8.8688052675854595469ns", 8),
            ("8.8303974284727040676h", 31_789_430_742_501),
            ("1.s", 1_000_000_000),
            ("9223372036854775.807us", i64::MAX),
            ("2562047.788015215501944444h", i64::MAX),
            ("-2562047h47m16.854775808s", i64::MIN),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
        for text in [
            "9223372036854775808ns",
            "2562047.99h",
            ".s",
            ".5.5s",
            "1e3s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_is_a_string_in_json() {
        let read: GoDuration = serde_json::from_str("\"36h\"").unwrap();
        assert_eq!(read, GoDuration::from_hours(36));
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"36h0m0s\"");
        assert!(serde_json::from_str::<GoDuration>("\"36\"").is_err());
    }

    proptest! {
        #[test]
        fn every_duration_reads_what_it_writes(nanoseconds: i64) {
            let duration = GoDuration { nanoseconds };
            prop_assert_eq!(duration.to_string().parse::<GoDuration>().unwrap(), duration);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[-+]?[0-9.a-zµ]{0,40}") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
