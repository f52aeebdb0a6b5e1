use proptest::prelude::*;
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
    let every = next("cron 5/15 * * * * for 1m", datetime!(2031-06-07 10:36 UTC));
    assert_eq!(every.from, datetime!(2031-06-07 10:50 UTC));
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
    assert!(error("Mon 01:00-02:00 Europe/Berlim").contains("\"Europe/Berlim\" is no time zone"));
    assert!(error("cron 0 2 * * for 4h").contains("is no window"));
    assert!(error("cron 61 2 * * * for 4h").contains("is no cron expression"));
    assert!(error("cron 0 2 * * 7 for 4h").contains("day of the week \"7\""));
    assert!(error("cron 0 2 L * * for 4h").contains("day of the month \"L\""));
    assert!(error("cron 0 2 15W * * for 4h").contains("is no cron expression"));
    assert!(error("cron 0 2 * * 5#2 for 4h").contains("is no cron expression"));
    assert!(error("cron 0 2 * * * for 4d").contains("\"d\""));
    assert!(error("cron 0 2 * * * for 169h").contains("outside the limits"));
    assert!(error(&"x".repeat(TEXT_MAX_BYTES + 1)).contains("longer"));
}

// === the clock's change ===

#[test]
fn a_window_is_open_while_the_wall_clock_shows_a_time_of_it() {
    // Berlin goes from 2:00 to 3:00 on 2031-03-30, at 01:00 UTC.
    let noon = datetime!(2031-03-29 12:00 UTC);
    let gap = datetime!(2031-03-30 01:00 UTC);
    let spring = |hours: &str| next(&format!("* {hours} Europe/Berlin"), noon);
    // Within the gap: not that day.
    for hours in ["02:30-02:45", "02:00-03:00", "02:00-02:59", "02:59-03:00"] {
        let open = spring(hours);
        assert!(
            open.from > datetime!(2031-03-30 23:00 UTC),
            "{hours}: {open:?}"
        );
    }
    // Across its beginning: until the gap.
    let open = spring("01:30-02:30");
    assert_eq!(
        (open.from, open.until),
        (datetime!(2031-03-30 00:30 UTC), gap)
    );
    // Across its end: from the gap's end.
    let open = spring("02:30-05:00");
    assert_eq!(
        (open.from, open.until),
        (gap, datetime!(2031-03-30 03:00 UTC))
    );
    // Across all of it.
    let open = spring("01:00-05:00");
    assert_eq!(
        (open.from, open.until),
        (
            datetime!(2031-03-30 00:00 UTC),
            datetime!(2031-03-30 03:00 UTC)
        )
    );
}

#[test]
fn an_hour_that_comes_twice_counts_the_first_time() {
    // Berlin goes from 3:00 back to 2:00 on 2031-10-26, at 01:00 UTC.
    let noon = datetime!(2031-10-25 12:00 UTC);
    let autumn = |hours: &str| next(&format!("* {hours} Europe/Berlin"), noon);
    let open = autumn("02:30-02:45");
    assert_eq!(
        (open.from, open.until),
        (
            datetime!(2031-10-26 00:30 UTC),
            datetime!(2031-10-26 00:45 UTC)
        )
    );
    let open = autumn("01:00-05:00");
    assert_eq!(
        (open.from, open.until),
        (
            datetime!(2031-10-25 23:00 UTC),
            datetime!(2031-10-26 04:00 UTC)
        )
    );
}

#[test]
fn half_hours_midnights_and_whole_days_may_be_missing() {
    // Lord Howe Island: 2:00 becomes 2:30 on 2031-10-05.
    let eve = datetime!(2031-10-04 12:00 UTC);
    let open = next("* 02:15-04:00 Australia/Lord_Howe", eve);
    assert_eq!(
        (open.from, open.until),
        (
            datetime!(2031-10-04 15:30 UTC),
            datetime!(2031-10-04 17:00 UTC)
        )
    );
    let open = next("* 02:00-02:30 Australia/Lord_Howe", eve);
    assert!(open.from > datetime!(2031-10-05 12:00 UTC), "{open:?}");
    // Sao Paulo, 2018: midnight became 1:00 on 4 November.
    let eve = datetime!(2018-11-03 12:00 UTC);
    let open = next("Sun 00:00-05:00 America/Sao_Paulo", eve);
    assert_eq!(
        (open.from, open.until),
        (
            datetime!(2018-11-04 03:00 UTC),
            datetime!(2018-11-04 07:00 UTC)
        )
    );
    let open = next("Sat 20:00-24:00 America/Sao_Paulo", eve);
    assert_eq!(open.until, datetime!(2018-11-04 03:00 UTC));
    let open = next("Sun 00:00-00:45 America/Sao_Paulo", eve);
    assert_eq!(open.from, datetime!(2018-11-11 02:00 UTC));
    // Samoa had no 2011-12-30, a Friday.
    let eve = datetime!(2011-12-29 20:00 UTC);
    let open = next("Fri 02:00-06:00 Pacific/Apia", eve);
    assert_eq!(open.from, datetime!(2012-01-05 12:00 UTC));
    let open = next("Thu 22:00-24:00 Pacific/Apia", eve);
    assert_eq!(
        (open.from, open.until),
        (
            datetime!(2011-12-30 08:00 UTC),
            datetime!(2011-12-30 10:00 UTC)
        )
    );
}

#[test]
fn a_cron_window_in_the_gap_opens_at_its_end_and_is_as_long_as_it_says() {
    let open = next(
        "cron 30 2 * * SUN for 15m Europe/Berlin",
        datetime!(2031-03-29 12:00 UTC),
    );
    assert_eq!(
        (open.from, open.until),
        (
            datetime!(2031-03-30 01:00 UTC),
            datetime!(2031-03-30 01:15 UTC)
        )
    );
    let open = next(
        "cron 30 2 * * SUN for 15m Europe/Berlin",
        datetime!(2031-10-25 12:00 UTC),
    );
    assert_eq!(open.from, datetime!(2031-10-26 00:30 UTC));
}

/// The rule once more, by brute force: a window begins and ends in the first minute in which the clock
/// of the zone shows its time or a later one.
#[test]
fn minute_by_minute_windows_are_open_as_the_rule_says() {
    const DAYS: i64 = 6;
    for (zone, first) in [
        ("Europe/Berlin", datetime!(2031-03-28 00:00 UTC)),
        ("Europe/Berlin", datetime!(2031-10-24 00:00 UTC)),
        ("Australia/Lord_Howe", datetime!(2031-10-03 00:00 UTC)),
        ("Australia/Lord_Howe", datetime!(2031-04-04 00:00 UTC)),
        ("Pacific/Apia", datetime!(2011-12-28 00:00 UTC)),
        ("Pacific/Kwajalein", datetime!(1993-08-19 00:00 UTC)),
        ("America/Santiago", datetime!(2031-09-05 00:00 UTC)),
        ("America/Santiago", datetime!(2031-04-03 00:00 UTC)),
        ("Asia/Beirut", datetime!(2031-03-28 00:00 UTC)),
        ("Asia/Beirut", datetime!(2031-10-24 00:00 UTC)),
        ("America/Asuncion", datetime!(2023-09-29 00:00 UTC)),
        ("America/Asuncion", datetime!(2024-03-22 00:00 UTC)),
    ] {
        let clock = TimeZoneDatabase::bundled().get(zone).unwrap();
        let shown: Vec<_> = (0..DAYS * 24 * 60)
            .map(|minute| {
                let at = first.unix_timestamp() + minute * 60;
                clock.to_datetime(Timestamp::from_second(at).unwrap())
            })
            .collect();
        let first_at = |time| shown.iter().position(|now| *now >= time);
        for hours in [
            "00:00-24:00",
            "00:00-01:00",
            "00:00-00:30",
            "00:30-03:00",
            "01:00-05:00",
            "02:00-02:30",
            "02:00-03:00",
            "02:15-02:45",
            "02:30-02:45",
            "23:00-24:00",
            "22:00-00:30",
            "23:30-01:30",
            "12:00-11:00",
        ] {
            let (from, until) = hours.split_once('-').unwrap();
            let (from, until) = (hour(from).unwrap().unwrap(), hour(until).unwrap());
            // The days in the middle, whose windows do not reach beyond what was looked at.
            let mut open = vec![false; shown.len()];
            let mut day = shown[0].date();
            while day <= shown[shown.len() - 1].date() {
                let last = match until {
                    Some(until) if until > from => day.to_datetime(until),
                    Some(until) => day.tomorrow().unwrap().to_datetime(until),
                    None => day.tomorrow().unwrap().to_datetime(Time::midnight()),
                };
                let begins = first_at(day.to_datetime(from)).unwrap_or(shown.len());
                let ends = first_at(last).unwrap_or(shown.len());
                open[begins.min(ends)..ends].fill(true);
                day = day.tomorrow().unwrap();
            }
            let windows = Windows::parse(&format!("* {hours} {zone}")).unwrap();
            for minute in (25 * 60..(DAYS - 1) * 24 * 60).step_by(5) {
                let at = first + time::Duration::minutes(minute);
                let is_open = windows.next(at).unwrap().from <= at;
                let index = usize::try_from(minute).unwrap();
                assert_eq!(
                    is_open, open[index],
                    "{hours} {zone} at {at} ({})",
                    shown[index]
                );
            }
        }
    }
}

// === bounds ===

#[test]
fn a_schedule_that_never_opens_is_refused_and_a_rare_one_is_found() {
    for never in ["* * 31 2,4,6,9,11 *", "0 0 30 2 *", "0 0 31 4 *"] {
        let error = Windows::parse(&format!("cron {never} for 1h"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("never opens") && error.contains(never),
            "{error}"
        );
    }
    let leap = next("cron 0 3 29 2 * for 1h", datetime!(2096-03-01 00:00 UTC));
    assert_eq!(leap.from, datetime!(2104-02-29 03:00 UTC));
}

#[test]
fn sixteen_windows_at_any_time_cost_little() {
    let text = vec!["cron 0 3 29 2 * for 1h Europe/Berlin"; WINDOWS_MAX].join(";");
    let began = std::time::Instant::now();
    for _ in 0..10 {
        let windows = Windows::parse(&text).unwrap();
        assert!(windows.next(datetime!(2096-03-01 00:00 UTC)).is_some());
    }
    // A tenth of a second each would be too much; this is a hundred times more than it takes.
    assert!(began.elapsed() < std::time::Duration::from_secs(20));
    assert!(Windows::parse(&vec!["always"; WINDOWS_MAX + 1].join(";")).is_err());
}

// === the zone ===

#[test]
fn a_zone_counts_for_the_whole_list_and_two_have_to_be_written_at_each() {
    let text = "Mon-Fri 01:00-05:00; Sat,Sun 00:00-24:00 Europe/Berlin";
    let friday = next(text, datetime!(2031-06-05 12:00 UTC));
    assert_eq!(friday.from, datetime!(2031-06-05 23:00 UTC));
    let saturday = next(text, datetime!(2031-06-06 12:00 UTC));
    assert_eq!(saturday.from, datetime!(2031-06-06 22:00 UTC));
    let first = "cron 0 1 * * 5 for 4h Europe/Berlin; always";
    assert!(Windows::parse(first).is_ok());
    let several = "Mon 01:00-05:00 UTC; Tue 01:00-05:00 Europe/Berlin";
    assert!(Windows::parse(several).is_ok());
    let error = Windows::parse(&format!("Wed 01:00-05:00; {several}")).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("Wed 01:00-05:00") && error.contains("Europe/Berlin"),
        "{error}"
    );
}

// === whatever is written ===

proptest! {
    #[test]
    fn no_text_and_no_instant_makes_a_window_panic(
        text in "(cron )?[0-9*/,LW#? -]{0,20}( for [0-9]{1,3}[hms])?|[MTWFSaudehintuo,*-]{1,12} [0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}( UTC| Europe/Berlin| Pacific/Apia| Australia/Lord_Howe)?",
        seconds in prop_oneof![Just(-377_705_116_800_i64), Just(253_402_300_799), -377_705_116_800_i64..=253_402_300_799],
    ) {
        let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        if let Ok(windows) = Windows::parse(&text)
            && let Some(opening) = windows.next(at)
        {
            prop_assert!(opening.until > at && opening.from < opening.until);
        }
    }

    #[test]
    fn the_next_opening_of_a_cron_window_is_the_first_minute_that_matches(
        hour in 0_u8..24, minute in 0_u8..60, day in 1_u8..29, minutes in 0_i64..2_000_000,
    ) {
        let at = datetime!(2031-01-01 00:00 UTC) + time::Duration::minutes(minutes);
        let opening = next(&format!("cron {minute} {hour} {day} * * for 1m"), at);
        prop_assert!(opening.until > at && opening.from - at <= time::Duration::days(32));
        prop_assert_eq!((opening.from.day(), opening.from.hour(), opening.from.minute()), (day, hour, minute));
    }
}
