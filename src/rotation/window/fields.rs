//! The five fields of a cron expression, as Kubernetes' `CronJob` reads them (robfig/cron).
//!
//! A field is a list of `*`, `?`, numbers, names and ranges, each of them with a step if need be. `5/15`
//! begins at 5. Sunday is 0, and not 7. Where both days are restricted, one that matches is enough.

/// What a field may hold.
struct Bounds {
    field: &'static str,
    least: u8,
    most: u8,
    /// Names of the values, from the least on.
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds {
    field: "minute",
    least: 0,
    most: 59,
    names: &[],
};
const HOUR: Bounds = Bounds {
    field: "hour",
    least: 0,
    most: 23,
    names: &[],
};
const DAY: Bounds = Bounds {
    field: "day of the month",
    least: 1,
    most: 31,
    names: &[],
};
const MONTH: Bounds = Bounds {
    field: "month",
    least: 1,
    most: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAY: Bounds = Bounds {
    field: "day of the week",
    least: 0,
    most: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// Which minutes, hours and days match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

#[derive(Clone, Copy, Debug, Default)]
struct Field {
    /// One bit for each value.
    values: u64,
    /// Whether it is a `*`, which does not restrict.
    is_star: bool,
}

impl Fields {
    /// Reads five fields; the error says which is wrong and why.
    pub(super) fn parse(texts: &[&str]) -> Result<Self, String> {
        let [minute, hour, day, month, weekday] = texts else {
            return Err("it has to have five fields".to_owned());
        };
        Ok(Self {
            minute: MINUTE.parse(minute)?,
            hour: HOUR.parse(hour)?,
            day: DAY.parse(day)?,
            month: MONTH.parse(month)?,
            weekday: WEEKDAY.parse(weekday)?,
        })
    }

    /// The minutes of an hour that match, ascending.
    pub(super) fn minutes(&self) -> Vec<i8> {
        (0..=59).filter(|minute| self.minute.has(*minute)).collect()
    }

    /// The hours of a day that match, ascending.
    pub(super) fn hours(&self) -> Vec<i8> {
        (0..=23).filter(|hour| self.hour.has(*hour)).collect()
    }

    /// Whether a day matches; Sunday is 0.
    pub(super) fn is_day(&self, month: i8, of_month: i8, weekday: i8) -> bool {
        let (by_month, by_week) = (self.day.has(of_month), self.weekday.has(weekday));
        let is_day = if self.day.is_star || self.weekday.is_star {
            by_month && by_week
        } else {
            by_month || by_week
        };
        self.month.has(month) && is_day
    }
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value)
            .ok()
            .and_then(|value| self.values.checked_shr(value))
            .is_some_and(|rest| rest & 1 == 1)
    }
}

impl Bounds {
    fn parse(&self, text: &str) -> Result<Field, String> {
        let mut field = Field::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last, step, is_star) = self.range(part)?;
            field.is_star |= is_star;
            for value in (first..=last).step_by(usize::from(step)) {
                field.values |= 1 << value;
            }
        }
        Ok(field)
    }

    fn range(&self, part: &str) -> Result<(u8, u8, u8, bool), String> {
        let wrong = |what: &str| Err(format!("{} {part:?}: {what}", self.field));
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => match step.parse::<u32>() {
                Ok(0) => return wrong("a step is 1 or more"),
                Ok(step) => (range, Some(u8::try_from(step).unwrap_or(u8::MAX))),
                Err(_) if step.contains('/') => return wrong("it has two steps"),
                Err(_) => return wrong("its step is not a number"),
            },
        };
        let (first, last, is_star) = match range.split_once('-') {
            None if matches!(range, "*" | "?") => {
                (self.least, self.most, step.is_none_or(|s| s == 1))
            }
            None => {
                let first = self.value(range, part)?;
                // With a step it goes on to the end.
                (first, if step.is_some() { self.most } else { first }, false)
            }
            Some((first, last)) => (self.value(first, part)?, self.value(last, part)?, false),
        };
        if first > last {
            return wrong("it ends before it begins");
        }
        Ok((first, last, step.unwrap_or(1), is_star))
    }

    fn value(&self, text: &str, part: &str) -> Result<u8, String> {
        let mut known = (self.least..).zip(self.names);
        let named = known.find(|(_, name)| name.eq_ignore_ascii_case(text));
        let value = named.map(|(value, _)| value).or_else(|| text.parse().ok());
        value
            .filter(|value| (self.least..=self.most).contains(value))
            .ok_or_else(|| {
                let names = match self.names {
                    [first, .., last] => format!(", or {first} to {last}"),
                    _ => String::new(),
                };
                format!(
                    "{} {part:?}: {text:?} is not a number from {} to {}{names}",
                    self.field, self.least, self.most
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(bounds: &Bounds, text: &str) -> Vec<i8> {
        let field = bounds
            .parse(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        (0..=63).filter(|value| field.has(*value)).collect()
    }

    #[test]
    fn fields_are_read_as_kubernetes_reads_them() {
        for (bounds, text, expected) in [
            (&MINUTE, "5/15", [5, 20, 35, 50].as_slice()),
            (&MINUTE, "50/7", &[50, 57]),
            (&MINUTE, "0-10/5,59", &[0, 5, 10, 59]),
            (&MINUTE, "*/20", &[0, 20, 40]),
            (&MINUTE, "?/30", &[0, 30]),
            (&MINUTE, "1,,2,", &[1, 2]),
            (&MINUTE, "+5,07", &[5, 7]),
            (&HOUR, "22-23", &[22, 23]),
            (&HOUR, "3/300", &[3]),
            (&DAY, "31", &[31]),
            (&MONTH, "JAN,mar-May/2", &[1, 3, 5]),
            (&WEEKDAY, "Mon-FRI", &[1, 2, 3, 4, 5]),
            (&WEEKDAY, "0,6", &[0, 6]),
            (&WEEKDAY, "tue/2", &[2, 4, 6]),
        ] {
            assert_eq!(values(bounds, text), expected, "{} {text}", bounds.field);
        }
        for (bounds, text) in [
            (&WEEKDAY, "7"),
            (&WEEKDAY, "5L"),
            (&WEEKDAY, "1#2"),
            (&WEEKDAY, "FRI-MON"),
            (&WEEKDAY, "monday"),
            (&DAY, "L"),
            (&DAY, "15W"),
            (&DAY, "0"),
            (&DAY, "32"),
            (&MONTH, "13"),
            (&MONTH, "0"),
            (&HOUR, "24"),
            (&MINUTE, "60"),
            (&MINUTE, "-1"),
            (&MINUTE, "5-"),
            (&MINUTE, "5-1"),
            (&MINUTE, "1-2-3"),
            (&MINUTE, "*-5"),
            (&MINUTE, "*/0"),
            (&MINUTE, "*/1/2"),
            (&MINUTE, "/5"),
            (&MINUTE, "H"),
            (&MINUTE, "@daily"),
        ] {
            assert!(bounds.parse(text).is_err(), "{} {text}", bounds.field);
        }
    }

    #[test]
    fn one_of_two_restricted_days_is_enough() {
        let is_day = |day: &str, weekday: &str, (of_month, of_week): (i8, i8)| {
            let fields = Fields::parse(&["0", "2", day, "*", weekday]).unwrap();
            fields.is_day(6, of_month, of_week)
        };
        assert!(is_day("1", "sat", (1, 3)) && is_day("1", "sat", (9, 6)));
        assert!(!is_day("1", "sat", (9, 3)));
        assert!(is_day("1", "*", (1, 3)) && !is_day("1", "*", (9, 6)));
        assert!(!is_day("?", "sat", (1, 3)) && is_day("?", "sat", (1, 6)));
        // A star with a step restricts; with the step 1 it does not.
        assert!(is_day("*/2", "sat", (2, 6)) && is_day("*/2", "sat", (3, 1)));
        assert!(!is_day("*/1", "sat", (3, 1)));
    }
}
