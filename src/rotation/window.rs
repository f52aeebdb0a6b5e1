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
//! Without a time zone it is UTC. A window that ends before it begins ends on the next day. Days and
//! hours follow the wall clock of their zone, so that a window of four hours is three or five hours
//! long on the day the clock changes; a cron window is as long as it says.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};
use time::OffsetDateTime;

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
        cron: Box<Cron>,
        length: SignedDuration,
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
        let spans = parts.into_iter().map(span).collect::<Result<_, _>>()?;
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
            Self::Cron { cron, length, zone } => next_run(cron, *length, &zoned(now, zone)?),
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
            let opens = date.to_datetime(from).to_zoned(zone.clone()).ok()?;
            let closes = match until {
                Some(until) if until > from => date.to_datetime(until),
                Some(until) => tomorrow.to_datetime(until),
                None => tomorrow.to_datetime(Time::midnight()),
            };
            let closes = closes.to_zoned(zone.clone()).ok()?;
            if closes > *now && closes > opens {
                return opening(&opens, &closes);
            }
        }
        date = tomorrow;
    }
    None
}

fn next_run(cron: &Cron, length: SignedDuration, now: &Zoned) -> Option<Opening> {
    if let Ok(last) = cron.find_previous_occurrence(now, true) {
        let closes = last.checked_add(length).ok()?;
        if closes > *now {
            return opening(&last, &closes);
        }
    }
    let next = cron.find_next_occurrence(now, false).ok()?;
    let closes = next.checked_add(length).ok()?;
    opening(&next, &closes)
}

// === reading ===

fn span(text: &str) -> Result<Span, WindowError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["always"] => Ok(Span::Always),
        ["cron", fields @ .., "for", length] if fields.len() == 5 => {
            cron(fields, length, TimeZone::UTC)
        }
        ["cron", fields @ .., "for", length, name] if fields.len() == 5 => {
            cron(fields, length, zone(name)?)
        }
        [names, hours] => days(names, hours, TimeZone::UTC),
        [names, hours, name] => days(names, hours, zone(name)?),
        _ => Err(WindowError::Form(text.to_owned())),
    }
}

fn cron(fields: &[&str], length: &str, zone: TimeZone) -> Result<Span, WindowError> {
    let text = fields.join(" ");
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    let cron = parser.parse(&text).map_err(|error| WindowError::Cron {
        text: text.clone(),
        why: error.to_string(),
    })?;
    let parsed: GoDuration = length
        .parse()
        .map_err(|error| WindowError::Length(length.to_owned(), error))?;
    if parsed <= GoDuration::ZERO || parsed > LENGTH_MAX {
        return Err(WindowError::LengthRange(parsed));
    }
    Ok(Span::Cron {
        cron: Box::new(cron),
        length: SignedDuration::from_nanos(parsed.nanoseconds()),
        zone,
    })
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

fn opening(from: &Zoned, until: &Zoned) -> Option<Opening> {
    Some(Opening {
        from: instant(from)?,
        until: instant(until)?,
    })
}

fn instant(at: &Zoned) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(at.timestamp().as_nanosecond()).ok()
}

/// Keeps [`Weekday`]'s order and ours together.
const _: () = assert!(Weekday::Monday.to_monday_zero_offset() == 0);

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn next(text: &str, now: OffsetDateTime) -> Opening {
        Windows::parse(text).unwrap().next(now).unwrap()
    }

    #[test]
    fn days_and_hours_are_those_of_the_zone() {
        // Berlin is two hours ahead of UTC in June; 2031-06-06 is a Friday.
        let open = next(
            "Mon-Fri 01:00-05:00 Europe/Berlin",
            datetime!(2031-06-06 02:00 UTC),
        );
        assert_eq!(open.from, datetime!(2031-06-05 23:00 UTC));
        assert_eq!(open.until, datetime!(2031-06-06 03:00 UTC));
        // On Friday evening the next one is Monday's.
        let next_one = next(
            "Mon-Fri 01:00-05:00 Europe/Berlin",
            datetime!(2031-06-06 18:00 UTC),
        );
        assert_eq!(next_one.from, datetime!(2031-06-08 23:00 UTC));
    }

    #[test]
    fn a_window_may_end_on_the_next_day_and_the_week_wraps() {
        let night = next("Sun 22:00-06:00", datetime!(2031-06-09 05:59 UTC));
        assert_eq!(night.from, datetime!(2031-06-08 22:00 UTC));
        assert_eq!(night.until, datetime!(2031-06-09 06:00 UTC));
        let wrapped = next("Sat-Mon 00:00-24:00", datetime!(2031-06-09 12:00 UTC));
        assert_eq!(wrapped.until, datetime!(2031-06-10 00:00 UTC));
    }

    #[test]
    fn the_change_of_the_clock_moves_the_instant_and_not_the_wall_clock() {
        // In Berlin the clock goes from 2:00 to 3:00 on 2031-03-30.
        let spring = next(
            "* 01:00-05:00 Europe/Berlin",
            datetime!(2031-03-30 00:30 UTC),
        );
        assert_eq!(spring.until - spring.from, time::Duration::hours(3));
        // A window that the change swallows does not open that day.
        let gone = next(
            "* 02:00-03:00 Europe/Berlin",
            datetime!(2031-03-29 12:00 UTC),
        );
        assert_eq!(gone.from, datetime!(2031-03-31 00:00 UTC));
    }

    #[test]
    fn cron_windows_open_when_the_expression_says_and_for_as_long_as_it_says() {
        let text = "cron 0 2 * * SAT for 4h America/New_York";
        let open = next(text, datetime!(2031-06-07 09:59 UTC));
        assert_eq!(open.from, datetime!(2031-06-07 06:00 UTC));
        assert_eq!(open.until, datetime!(2031-06-07 10:00 UTC));
        let later = next(text, datetime!(2031-06-07 10:00 UTC));
        assert_eq!(later.from, datetime!(2031-06-14 06:00 UTC));
        // 30 February never comes.
        let never = Windows::parse("cron 0 0 30 2 * for 1h");
        assert!(
            never.is_err()
                || never
                    .unwrap()
                    .next(datetime!(2031-06-07 10:00 UTC))
                    .is_none()
        );
    }

    #[test]
    fn of_several_windows_the_one_that_is_open_counts() {
        let text = "Sat 00:00-02:00; daily 12:00-13:00";
        let noon = next(text, datetime!(2031-06-07 12:30 UTC));
        assert_eq!(noon.until, datetime!(2031-06-07 13:00 UTC));
        assert_eq!(
            next("always", datetime!(2031-06-07 12:30 UTC)).from,
            datetime!(2031-06-07 12:30 UTC)
        );
    }

    #[test]
    fn what_is_no_window_is_refused_by_its_part() {
        let error = |text: &str| Windows::parse(text).unwrap_err().to_string();
        assert!(error(" ; ").contains("empty"));
        assert!(
            error("Mon-Fri").contains("is no window"),
            "{}",
            error("Mon-Fri")
        );
        assert!(error("Mon-Fry 01:00-02:00").contains("\"Fry\" is no day"));
        assert!(error("Mon 1:00-02:00").contains("\"1:00\" is no time of day"));
        assert!(error("Mon 24:00-02:00").contains("no time of day"));
        assert!(
            error("Mon 01:00-02:00 Europe/Berlim").contains("\"Europe/Berlim\" is no time zone")
        );
        assert!(error("cron 0 2 * * for 4h").contains("is no window"));
        assert!(error("cron 61 2 * * * for 4h").contains("is no cron expression"));
        assert!(error("cron 0 2 * * * for 4d").contains("\"d\""));
        assert!(error("cron 0 2 * * * for 169h").contains("outside the limits"));
        assert!(error(&"x".repeat(TEXT_MAX_BYTES + 1)).contains("longer"));
    }
}
