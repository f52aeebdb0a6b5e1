//! Maintenance windows: when a rotation may begin. Pure.
//!
//! A text is one or more windows with `;` between them; one that is open is enough.
//!
//! ```text
//! always
//! Mon-Fri 01:00-05:00 Europe/Berlin
//! Sat,Sun 22:00-06:00
//! cron 0 2 1-7 * SAT for 4h America/New_York
//! ```
//!
//! A time zone counts for the whole list; without one it is UTC. Where the list names several zones,
//! each window names its own. A window that ends before it begins ends on the next day.
//!
//! Days and hours follow the wall clock of their zone: such a window is open while that clock shows a
//! time of it. Where the clock jumps, a window across the gap is shorter, and one that lies within the
//! gap does not open that day. An hour that comes twice counts the first time. A cron window is as long
//! as it says; a start within the gap becomes the gap's end.

mod civil;
mod cron;
mod fields;
#[cfg(test)]
mod tests;

use jiff::civil::{Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Zoned};
use time::OffsetDateTime;

use self::civil::resolve;
use self::cron::Schedule;
use crate::duration::{GoDuration, ParseDurationError};

/// Most windows in one text: more than one for each day is a mistake.
pub const WINDOWS_MAX: usize = 16;
/// Longest text that is read.
pub const TEXT_MAX_BYTES: usize = 1_024;
/// Longest cron window: what is open for a week needs no window.
const LENGTH_MAX: GoDuration = GoDuration::from_hours(7 * 24);
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const GRAMMAR: &str = "write `always`, `Mon-Fri 01:00-05:00 Europe/Berlin` or \
                       `cron 0 2 * * SAT for 4h Europe/Berlin`, with `;` between several";

/// Why a text says no windows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Nothing in it.
    #[error("it is empty: {GRAMMAR}")]
    Empty,
    /// Longer than anybody writes.
    #[error("it is longer than {TEXT_MAX_BYTES} bytes or holds more than {WINDOWS_MAX} windows")]
    TooLong,
    /// Not of a known form.
    #[error("{0:?} is no window: {GRAMMAR}")]
    Form(String),
    /// An unknown day.
    #[error(
        "{0:?} is no day: write Mon, Tue, Wed, Thu, Fri, Sat, Sun, a range such as Mon-Fri, or *"
    )]
    Day(String),
    /// Not a time of day.
    #[error("{0:?} is no time of day: write 00:00 to 24:00")]
    Hour(String),
    /// An unknown time zone.
    #[error("{0:?} is no time zone: write a name such as Europe/Berlin or UTC")]
    Zone(String),
    /// Not a cron expression.
    #[error("{text:?} is no cron expression of five fields: {why}")]
    Cron {
        /// What was written.
        text: String,
        /// What the parser says.
        why: String,
    },
    /// No day has such a date.
    #[error(
        "{text:?} never opens: no day of {} years matches; change its day of the month or its month",
        cron::SEARCH_YEARS
    )]
    Never {
        /// What was written.
        text: String,
    },
    /// A window without a zone in a list that names several.
    #[error(
        "{text:?} names no time zone, and the list names {zones}: write the zone behind each window"
    )]
    ZoneMissing {
        /// The window.
        text: String,
        /// The zones of the others.
        zones: String,
    },
    /// Not a length.
    #[error("the length of {0:?} is not usable: {1}")]
    Length(String, ParseDurationError),
    /// Zero, negative, or longer than a week.
    #[error("the length {0} is outside the limits: more than 0s, at most {LENGTH_MAX}")]
    LengthRange(GoDuration),
}

/// Windows as they were written.
#[derive(Clone, Debug)]
pub struct Windows {
    text: String,
    spans: Vec<Span>,
}

/// When windows are open next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// From then on; past if they are open.
    pub from: OffsetDateTime,
    /// Until then.
    pub until: OffsetDateTime,
}

#[derive(Clone, Debug)]
enum Span {
    Always,
    Days {
        /// Monday first.
        days: [bool; 7],
        from: Time,
        /// `None` is the end of the day.
        until: Option<Time>,
        zone: TimeZone,
    },
    Cron {
        schedule: Box<Schedule>,
        zone: TimeZone,
    },
}

impl PartialEq for Windows {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Windows {}

// === impl Windows ===

impl Windows {
    /// Reads windows.
    pub fn parse(text: &str) -> Result<Self, WindowError> {
        let text = text.trim();
        if text.len() > TEXT_MAX_BYTES {
            return Err(WindowError::TooLong);
        }
        let parts = text.split(';').map(str::trim);
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        match parts.len() {
            0 => return Err(WindowError::Empty),
            1..=WINDOWS_MAX => {}
            _ => return Err(WindowError::TooLong),
        }
        let parts: Vec<Vec<&str>> = parts
            .into_iter()
            .map(|part| part.split_whitespace().collect())
            .collect();
        let common = common_zone(&parts)?;
        let spans = parts.iter().map(|words| span(words, &common));
        let spans = spans.collect::<Result<_, _>>()?;
        let text = text.to_owned();
        Ok(Self { text, spans })
    }

    /// As they were written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The opening that holds `now`, else the next one; `None` if they never open again.
    pub fn next(&self, now: OffsetDateTime) -> Option<Opening> {
        let openings = self.spans.iter().filter_map(|span| span.next(now));
        // Of those that are open, the one that is open longest.
        openings.min_by_key(|opening| (opening.from.max(now), std::cmp::Reverse(opening.until)))
    }
}

// === impl Span ===

impl Span {
    fn next(&self, now: OffsetDateTime) -> Option<Opening> {
        match self {
            Self::Always => Some(Opening {
                from: now,
                until: time::PrimitiveDateTime::MAX.assume_utc(),
            }),
            Self::Days {
                days,
                from,
                until,
                zone,
            } => next_day(*days, *from, *until, &zoned(now, zone)?),
            Self::Cron { schedule, zone } => schedule.next(&zoned(now, zone)?),
        }
    }
}

fn next_day(days: [bool; 7], from: Time, until: Option<Time>, now: &Zoned) -> Option<Opening> {
    let zone = now.time_zone();
    // Yesterday's may still be open. A week and a day ahead there is every weekday once more, and
    // one more in case the clock's change swallows a window.
    let mut date = now.date().yesterday().ok()?;
    for _ in 0..16 {
        let is_day = days
            .get(usize::try_from(date.weekday().to_monday_zero_offset()).ok()?)
            .copied()?;
        let tomorrow = date.tomorrow().ok()?;
        if is_day {
            let opens = resolve(date.to_datetime(from), zone)?;
            let closes = match until {
                Some(until) if until > from => date.to_datetime(until),
                Some(until) => tomorrow.to_datetime(until),
                None => tomorrow.to_datetime(Time::midnight()),
            };
            let closes = resolve(closes, zone)?;
            if closes > now.timestamp() && closes > opens {
                return opening(opens, closes);
            }
        }
        date = tomorrow;
    }
    None
}

// === reading ===

/// The time zone that a window names, in whichever form it is written.
fn named_zone<'a>(words: &[&'a str]) -> Option<&'a str> {
    match words {
        ["cron", _, _, _, _, _, "for", _, name] => Some(name),
        ["cron", ..] => None,
        [_, _, name] => Some(name),
        _ => None,
    }
}

/// The zone of windows that name none: the one that the others name.
fn common_zone(parts: &[Vec<&str>]) -> Result<TimeZone, WindowError> {
    let mut names: Vec<&str> = Vec::new();
    for name in parts.iter().filter_map(|words| named_zone(words)) {
        if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    match names.as_slice() {
        [] => Ok(TimeZone::UTC),
        [name] => zone(name),
        several => {
            let lacks = |words: &&Vec<&str>| words.len() > 1 && named_zone(words).is_none();
            match parts.iter().find(lacks) {
                Some(words) => Err(WindowError::ZoneMissing {
                    text: words.join(" "),
                    zones: several.join(", "),
                }),
                None => Ok(TimeZone::UTC),
            }
        }
    }
}

fn span(words: &[&str], common: &TimeZone) -> Result<Span, WindowError> {
    let zone = match named_zone(words) {
        Some(name) => zone(name)?,
        None => common.clone(),
    };
    match words {
        ["always"] => Ok(Span::Always),
        ["cron", fields @ .., "for", length] | ["cron", fields @ .., "for", length, _]
            if fields.len() == 5 =>
        {
            Ok(Span::Cron {
                schedule: Box::new(Schedule::parse(fields, length)?),
                zone,
            })
        }
        [names, hours] | [names, hours, _] if *names != "cron" => days(names, hours, zone),
        _ => Err(WindowError::Form(words.join(" "))),
    }
}

fn days(names: &str, hours: &str, zone: TimeZone) -> Result<Span, WindowError> {
    let (from, until) = hours
        .split_once('-')
        .ok_or_else(|| WindowError::Form(format!("{names} {hours}")))?;
    let from = hour(from)?.ok_or_else(|| WindowError::Hour(from.to_owned()))?;
    Ok(Span::Days {
        days: weekdays(names)?,
        from,
        until: hour(until)?,
        zone,
    })
}

fn weekdays(text: &str) -> Result<[bool; 7], WindowError> {
    let mut chosen = [false; 7];
    if matches!(text, "*" | "daily") {
        return Ok([true; 7]);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (weekday(first)?, weekday(last)?);
        let mut day = first;
        loop {
            if let Some(chosen) = chosen.get_mut(day) {
                *chosen = true;
            }
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Ok(chosen)
}

fn weekday(name: &str) -> Result<usize, WindowError> {
    let mut days = DAYS.iter();
    let found = days.position(|day| day.eq_ignore_ascii_case(name));
    found.ok_or_else(|| WindowError::Day(name.to_owned()))
}

/// A time of day; `None` is 24:00.
fn hour(text: &str) -> Result<Option<Time>, WindowError> {
    let wrong = || WindowError::Hour(text.to_owned());
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let number = |digits: &str| {
        let is_plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        is_plain.then(|| digits.parse::<i8>().ok()).flatten()
    };
    match (number(hour), number(minute)) {
        (Some(24), Some(0)) => Ok(None),
        (Some(hour), Some(minute)) => Time::new(hour, minute, 0, 0).map(Some).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// A time zone of the database that is built in: the same on every machine.
fn zone(name: &str) -> Result<TimeZone, WindowError> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZoneDatabase::bundled()
        .get(name)
        .map_err(|_| WindowError::Zone(name.to_owned()))
}

// === between the two kinds of time ===

fn zoned(at: OffsetDateTime, zone: &TimeZone) -> Option<Zoned> {
    let nanoseconds = i32::try_from(at.nanosecond()).ok()?;
    let at = Timestamp::new(at.unix_timestamp(), nanoseconds).ok()?;
    Some(at.to_zoned(zone.clone()))
}

fn opening(from: Timestamp, until: Timestamp) -> Option<Opening> {
    Some(Opening {
        from: instant(from)?,
        until: instant(until)?,
    })
}

fn instant(at: Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(at.as_nanosecond()).ok()
}

/// Keeps [`Weekday`]'s order and ours together.
const _: () = assert!(Weekday::Monday.to_monday_zero_offset() == 0);
