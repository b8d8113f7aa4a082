//! Schedules in tables, around changes of the clock, and against a walk minute by minute.

use proptest::prelude::*;

use super::*;
use crate::unit::Timestamp;

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    let instant: jiff::Timestamp = text.parse().unwrap();
    Timestamp(instant.as_millisecond().try_into().unwrap())
}

fn show(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0.try_into().unwrap()).unwrap().to_string()
}

/// The first moments after one.
fn following(text: &str, in_zone: &str, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (schedule(text), zone(in_zone));
    let next = |after: &Timestamp| schedule.next_after(*after, &zone);
    std::iter::successors(next(&at(after)), next).take(count).map(show).collect()
}

#[test]
fn schedules_are_due_when_they_say() {
    let table = [
        ("*/15 9-10 * * *", "2026-01-01T10:00:00Z", "2026-01-01T10:15:00Z"),
        ("*/15 9-10 * * *", "2026-01-01T10:45:00Z", "2026-01-02T09:00:00Z"),
        ("5/20 * * * *", "2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z"),
        ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("0 0 * * Sun", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("0 0 * * fri-sun", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"),
        ("0 0 1 JAN,jul *", "2026-01-01T00:00:00Z", "2026-07-01T00:00:00Z"),
        ("0 0 29 2 *", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"),
        ("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"),
        // Either is enough where both are given.
        ("0 0 13 * fri", "2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z"),
        ("0 0 13 * fri", "2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z"),
        ("0 0 13 */1 *", "2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z"),
        // No such day, but Mondays.
        ("0 0 31 2 mon", "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"),
        ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@monthly", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("@Daily", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
    ];
    for (text, after, expected) in table {
        assert_eq!(following(text, "UTC", after, 1), [expected], "{text} after {after}");
    }
}

#[test]
fn what_is_no_schedule_says_why() {
    let table = [
        (
            "",
            "a schedule has five fields, for minute, hour, day of the month, month and day of the week; this one has 0",
        ),
        (
            "0 0 3 * * *",
            "a schedule has five fields, for minute, hour, day of the month, month and day of the week; this one has 6",
        ),
        ("60 * * * *", "the minute \"60\" is not within 0 to 59"),
        ("* 24 * * *", "the hour \"24\" is not within 0 to 23"),
        ("* * 0 * *", "the day of the month \"0\" is not within 1 to 31"),
        ("* * * 13 *", "the month \"13\" is not within 1 to 12"),
        ("* * * * 8", "the day of the week \"8\" is not within 0 to 7"),
        ("* * * foo *", "the month \"foo\" is neither a number, a name, a range, a step nor *"),
        ("+5 * * * *", "the minute \"+5\" is neither a number, a name, a range, a step nor *"),
        ("5,,6 * * * *", "the minute \"5,,6\" is neither a number, a name, a range, a step nor *"),
        ("9-5 * * * *", "the minute \"9-5\" has a range that ends before it begins"),
        ("*/0 * * * *", "the minute \"*/0\" has a step that is not within 1 to 59"),
        ("*/+5 * * * *", "the minute \"*/+5\" has a step that is not within 1 to 59"),
        ("* * L * *", "the day of the month \"L\" has 'L', which cron has not"),
        ("H * * * *", "the minute \"H\" has 'H', which cron has not"),
        ("0 0 31 2 *", "no month that it names has such a day, so it would never be due"),
        ("0 0 31 4,6,9,11 *", "no month that it names has such a day, so it would never be due"),
        ("@fortnightly", "\"@fortnightly\" is no schedule that has a name"),
    ];
    for (text, expected) in table {
        assert_eq!(text.parse::<Schedule>().unwrap_err().to_string(), expected, "{text}");
    }
    assert!("@reboot".parse::<Schedule>().unwrap_err().instead().contains("release_command"));
    assert!("Mars/Olympus".parse::<Zone>().is_err());
    assert_eq!(zone("europe/berlin").as_str(), "Europe/Berlin");
}

#[test]
fn an_hour_that_is_left_out_is_made_up_for() {
    // On 29 March 2026 clocks in Berlin go from 02:00 to 03:00, at 01:00 UTC.
    let before = "2026-03-28T12:00:00Z";
    assert_eq!(
        following("30 2 * * *", "Europe/Berlin", before, 2),
        ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    // Twice in the hour that is left out, and when it is over: once.
    assert_eq!(
        following("0,30 2,3 * * *", "Europe/Berlin", before, 3),
        ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:00:00Z"]
    );
    // Time that passes does not stand still.
    assert_eq!(
        following("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 2),
        ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]
    );
    // Samoa went without 30 December 2011.
    assert_eq!(
        following("0 9 * * *", "Pacific/Apia", "2011-12-29T20:00:00Z", 2),
        ["2011-12-30T10:00:00Z", "2011-12-30T19:00:00Z"]
    );
}

#[test]
fn an_hour_that_comes_twice_is_taken_once() {
    // On 25 October 2026 clocks in Berlin go from 03:00 back to 02:00, at 01:00 UTC.
    let before = "2026-10-24T12:00:00Z";
    assert_eq!(
        following("30 2 * * *", "Europe/Berlin", before, 2),
        ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    assert_eq!(
        following("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3),
        ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
    );
    // Half an hour, on Lord Howe: from 02:00 back to 01:30.
    assert_eq!(
        following("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00:00Z", 3),
        ["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z", "2026-04-04T16:15:00Z"]
    );
}

#[test]
fn schedules_have_words() {
    let table = [
        ("0 3 * * *", "every day at 03:00"),
        ("30 3,15 * * *", "every day at 03:30 and 15:30"),
        ("@hourly", "every hour"),
        ("@weekly", "on Sunday at 00:00"),
        ("@monthly", "on day 1 of the month at 00:00"),
        ("@yearly", "on day 1 of the month at 00:00, in January"),
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("0 */6 * * *", "every day at 00:00, 06:00, 12:00 and 18:00"),
        ("0 */2 * * *", "every 2 hours"),
        ("*/10 */2 * * *", "every 10 minutes, in every 2nd hour"),
        ("*/15 9-17 * * mon-fri", "every 15 minutes, from 09:00 to 17:59, Monday to Friday"),
        ("0 9-17 * * *", "every hour from 09:00 to 17:00"),
        ("5 * * * *", "at 5 past the hour"),
        ("5,35 * * * *", "at 5 and 35 past the hour"),
        ("* 4 * * *", "every minute, from 04:00 to 04:59"),
        ("10 1,3,5,7,9 * * *", "at 10 past the hour, in the hours 01, 03, 05, 07 and 09"),
        ("0 0 13 * fri", "on day 13 of the month and on Friday at 00:00"),
        ("0 0 1-7 3-5 *", "on days 1 to 7 of the month at 00:00, from March to May"),
        ("0 8 * * sat,sun", "on Saturday and Sunday at 08:00"),
    ];
    for (text, expected) in table {
        assert_eq!(schedule(text).in_words(), expected, "{text}");
    }
}

/// What the fields say of a minute of civil time, the plainest way.
fn fits(fields: [&str; 5], minute: jiff::civil::DateTime) -> bool {
    let number = |of: i8| u8::try_from(of).unwrap();
    let has = |field: &str, number: u8| field == "*" || field.split(',').any(|it| it.parse() == Ok(number));
    let [minutes, hours, days, months, weekdays] = fields;
    let of_month = has(days, number(minute.day()));
    let of_week = has(weekdays, number(minute.weekday().to_sunday_zero_offset()));
    let day = if days != "*" && weekdays != "*" { of_month || of_week } else { of_month && of_week };
    has(minutes, number(minute.minute()))
        && has(hours, number(minute.hour()))
        && has(months, number(minute.month()))
        && day
}

/// When it is due from one moment on for so many minutes, minute by minute, by what the clock on the wall shows then.
fn minute_by_minute(fields: [&str; 5], zone: &str, from: Timestamp, minutes: u64) -> Vec<Timestamp> {
    let rules = jiff::tz::TimeZone::get(zone).unwrap();
    let wall =
        |at: u64| rules.to_datetime(jiff::Timestamp::from_millisecond(at.try_into().unwrap()).unwrap());
    let passes = fields[1] == "*";
    let mut due = Vec::new();
    let mut latest = wall(from.0);
    for at in (1..=minutes).map(|minute| from.0 + minute * 60_000) {
        let now = wall(at);
        let mut shown = vec![now];
        if !passes && now <= latest {
            // The second time.
            shown.clear();
        } else if !passes {
            // What was left out since the last minute.
            let left_out = latest.series(jiff::Span::new().minutes(1)).skip(1).take_while(|it| *it < now);
            shown.extend(left_out);
        }
        latest = latest.max(now);
        if shown.iter().any(|it| fits(fields, *it)) {
            due.push(Timestamp(at));
        }
    }
    due
}

fn field(least: u8, most: u8) -> impl Strategy<Value = String> {
    let some = proptest::collection::vec(least..=most, 1..4)
        .prop_map(|all| all.iter().map(u8::to_string).collect::<Vec<_>>().join(","));
    prop_oneof![1 => Just("*".to_owned()), 1 => some]
}

fn any_schedule() -> impl Strategy<Value = String> {
    (field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6))
        .prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn it_is_due_whenever_the_clock_on_the_wall_shows_it(
        minute in field(0, 59),
        hour in field(0, 4),
        weekday in field(0, 6),
        place in 0_usize..5,
        offset in 0_u64..(3 * 24 * 60),
    ) {
        // Around changes of all kinds, and a quiet day.
        let (name, around) = [
            ("Europe/Berlin", "2026-03-28T00:00:00Z"),
            ("America/New_York", "2026-10-31T00:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-03T13:00:00Z"),
            ("America/Santiago", "2026-04-03T12:00:00Z"),
            ("Asia/Kolkata", "2026-06-01T00:00:00Z"),
        ][place];
        let text = format!("{minute} {hour} * * {weekday}");
        let (schedule, zone) = (schedule(&text), zone(name));
        let begin = Timestamp(at(around).0 + offset * 60_000);
        let end = Timestamp(begin.0 + 2 * 24 * 3_600_000);
        let expected = minute_by_minute([&minute, &hour, "*", "*", &weekday], name, Timestamp(begin.0 - 6 * 3_600_000), (6 + 48) * 60);
        let expected: Vec<Timestamp> = expected.into_iter().filter(|it| *it > begin).collect();
        let next = |after: &Timestamp| schedule.next_after(*after, &zone);
        let found: Vec<Timestamp> = std::iter::successors(next(&begin), next).take_while(|it| *it <= end).collect();
        prop_assert_eq!(found.iter().copied().map(show).collect::<Vec<_>>(), expected.iter().copied().map(show).collect::<Vec<_>>(), "{} in {}", text, name);
        prop_assert_eq!(schedule.count_between(begin, end, &zone, 10_000), expected.len());
        prop_assert_eq!(schedule.last_until(end, &zone).filter(|it| *it > begin), expected.last().copied());
    }

    #[test]
    fn the_next_and_the_last_meet(text in any_schedule(), at in 0_u64..4_000_000_000_000, berlin: bool) {
        let (schedule, zone) = (schedule(&text), if berlin { zone("Europe/Berlin") } else { Zone::default() });
        if let Some(next) = schedule.next_after(Timestamp(at), &zone) {
            prop_assert!(next > Timestamp(at));
            prop_assert_eq!(schedule.last_until(next, &zone), Some(next));
            prop_assert!(schedule.last_until(Timestamp(next.0 - 1), &zone).is_none_or(|it| it <= Timestamp(at)));
        }
    }

    #[test]
    fn it_comes_back_from_its_text_and_has_words(text in any_schedule()) {
        let read = schedule(&text);
        prop_assert_eq!(&serde_json::from_str::<Schedule>(&serde_json::to_string(&read).unwrap()).unwrap(), &read);
        prop_assert!(!read.in_words().is_empty());
    }

    #[test]
    fn any_text_is_a_schedule_or_an_error(text in "[-0-9a-zA-Z*/,@ #?LWH]{0,30}", other in any::<String>()) {
        for text in [&text, &other] {
            match text.parse::<Schedule>() {
                Ok(read) => {
                    prop_assert!(!read.in_words().is_empty());
                    prop_assert!(read.next_after(Timestamp(1_700_000_000_000), &Zone::default()).is_some(), "{}", read);
                }
                Err(wrong) => prop_assert!(!wrong.to_string().is_empty() && !wrong.instead().is_empty()),
            }
            drop(text.parse::<Zone>());
        }
    }
}
