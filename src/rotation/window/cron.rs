//! Cron windows: five fields and a length. The search for the next opening walks over days, and no
//! further than [`SEARCH_YEARS`].

use jiff::civil::{Date, Time, date};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::civil::resolve;
use super::fields::Fields;
use super::{LENGTH_MAX, Opening, WindowError, opening};
use crate::duration::GoDuration;

/// How far the next opening is searched: 29 February comes within eight years at the latest.
pub(super) const SEARCH_YEARS: usize = 9;
const SEARCH_DAYS: usize = SEARCH_YEARS * 366;
/// Days before today whose openings may still last: the longest is a week.
const PAST_DAYS: usize = 9;
/// Where the search for any opening at all begins. It holds two leap years.
const ANY: Date = date(2028, 1, 1);

/// When to open, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    fields: Fields,
    /// Hours and minutes of a day that match, ascending.
    hours: Vec<i8>,
    minutes: Vec<i8>,
    length: SignedDuration,
}

impl Schedule {
    /// Reads five fields and a length.
    pub(super) fn parse(fields: &[&str], length: &str) -> Result<Self, WindowError> {
        let text = fields.join(" ");
        let cron = Fields::parse(fields).map_err(|why| WindowError::Cron {
            text: text.clone(),
            why,
        })?;
        let parsed: GoDuration = length
            .parse()
            .map_err(|error| WindowError::Length(length.to_owned(), error))?;
        if parsed <= GoDuration::ZERO || parsed > LENGTH_MAX {
            return Err(WindowError::LengthRange(parsed));
        }
        let schedule = Self {
            hours: cron.hours(),
            minutes: cron.minutes(),
            length: SignedDuration::from_nanos(parsed.nanoseconds()),
            fields: cron,
        };
        let opens = days_from(ANY).any(|day| schedule.is_day(day));
        if opens && !schedule.hours.is_empty() && !schedule.minutes.is_empty() {
            Ok(schedule)
        } else {
            Err(WindowError::Never { text })
        }
    }

    /// The opening that holds `now` and lasts longest, else the next one.
    pub(super) fn next(&self, now: &Zoned) -> Option<Opening> {
        let opens = self.last_before(now).or_else(|| self.first_after(now))?;
        let closes = opens.checked_add(self.length).ok()?;
        opening(opens, closes)
    }

    /// The latest start up to `now`, if it is still open.
    fn last_before(&self, now: &Zoned) -> Option<Timestamp> {
        let (instant, zone) = (now.timestamp(), now.time_zone());
        // The clock may have been put back since: the next date may have begun already.
        let mut day = now.date().tomorrow().unwrap_or_else(|_| now.date());
        for _ in 0..PAST_DAYS {
            if self.is_day(day) {
                let hours = self.hours.iter().rev();
                let times = hours.flat_map(|hour| {
                    self.minutes
                        .iter()
                        .rev()
                        .map(move |minute| (*hour, *minute))
                });
                for (hour, minute) in times {
                    let time = Time::new(hour, minute, 0, 0).ok()?;
                    let opens = resolve(day.to_datetime(time), zone)?;
                    if opens <= instant {
                        let closes = opens.checked_add(self.length).ok()?;
                        return (closes > instant).then_some(opens);
                    }
                }
            }
            day = day.yesterday().ok()?;
        }
        None
    }

    /// The first start after `now`.
    fn first_after(&self, now: &Zoned) -> Option<Timestamp> {
        let (instant, zone) = (now.timestamp(), now.time_zone());
        let days = days_from(now.date()).filter(|day| self.is_day(*day));
        for day in days {
            for hour in &self.hours {
                for minute in &self.minutes {
                    let time = Time::new(*hour, *minute, 0, 0).ok()?;
                    let opens = resolve(day.to_datetime(time), zone)?;
                    if opens > instant {
                        return Some(opens);
                    }
                }
            }
        }
        None
    }

    fn is_day(&self, day: Date) -> bool {
        let weekday = day.weekday().to_sunday_zero_offset();
        self.fields.is_day(day.month(), day.day(), weekday)
    }
}

fn days_from(first: Date) -> impl Iterator<Item = Date> {
    std::iter::successors(Some(first), |day| day.tomorrow().ok()).take(SEARCH_DAYS)
}
