//! A schedule in words, for people who do not read crontabs.

use super::Schedule;
use super::field::Set;

const MONTHS: [&str; 13] = [
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// How many times of a day are listed before they are described by their parts.
const TIMES_MAX: usize = 4;

impl Schedule {
    /// The schedule in words: `every day at 03:00`, `every 15 minutes from 9:00 to 17:59, Monday to Friday`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let days = self.days_in_words();
        let months = self.months_in_words();
        let (time, is_of_day) = self.time_in_words();
        let mut words = match (is_of_day, days) {
            (true, None) => format!("every day {time}"),
            (true, Some(days)) => format!("{days} {time}"),
            (false, None) => time,
            (false, Some(days)) => format!("{time}, {days}"),
        };
        words.push_str(&months);
        words
    }

    /// When on a day, and whether it has to be said on which.
    fn time_in_words(&self) -> (String, bool) {
        let hours: Vec<u8> = self.hours.iter().collect();
        let minutes: Vec<u8> = self.minutes.iter().collect();
        if hours.len() * minutes.len() <= TIMES_MAX {
            let times = hours
                .iter()
                .flat_map(|hour| minutes.iter().map(move |minute| format!("{hour:02}:{minute:02}")));
            return (format!("at {}", and(&times.collect::<Vec<_>>())), true);
        }
        let often = match (every(&minutes, 60), &minutes[..]) {
            (Some(1), _) => "every minute".to_owned(),
            (Some(step), _) => format!("every {step} minutes"),
            (None, [0]) => String::new(),
            (None, [one]) => format!("at {one} past the hour"),
            (None, some) => format!("at {} past the hour", and(&numbers(some))),
        };
        let past = |hours: &str| match &*often {
            "" => hours.to_owned(),
            often if often.starts_with("at") => format!("{often}, {hours}"),
            often => format!("{often}, {hours}"),
        };
        let words = match (every(&hours, 24), &hours[..]) {
            (Some(1), _) if often.is_empty() => "every hour".to_owned(),
            (Some(1), _) => often,
            (Some(step), _) if often.is_empty() => format!("every {step} hours"),
            (Some(step), _) => past(&format!("in every {} hour", ordinal(step))),
            (None, [first, .., last]) if is_run(&hours) && often.is_empty() => {
                format!("every hour from {first:02}:00 to {last:02}:00")
            }
            (None, [first, .., last]) if is_run(&hours) => {
                past(&format!("from {first:02}:00 to {last:02}:59"))
            }
            (None, [one]) => past(&format!("from {one:02}:00 to {one:02}:59")),
            (None, some) => {
                let hours: Vec<String> = some.iter().map(|hour| format!("{hour:02}")).collect();
                past(&format!("in the hours {}", and(&hours)))
            }
        };
        (words, false)
    }

    /// On which days; none for every day.
    fn days_in_words(&self) -> Option<String> {
        let of_week = (!self.weekdays.is_any()).then(|| weekdays(self.weekdays));
        let days: Vec<u8> = self.days.iter().collect();
        let of_month = (!self.days.is_any()).then(|| match &days[..] {
            [first, .., last] if days.len() > 2 && is_run(&days) => {
                format!("on days {first} to {last} of the month")
            }
            [one] => format!("on day {one} of the month"),
            some => format!("on days {} of the month", and(&numbers(some))),
        });
        match (of_month, of_week) {
            (None, week) => week,
            (month, None) => month,
            (Some(month), Some(week)) => Some(format!("{month} and {week}")),
        }
    }

    fn months_in_words(&self) -> String {
        let months: Vec<u8> = self.months.iter().collect();
        let name = |month: &u8| MONTHS.get(usize::from(*month)).copied().unwrap_or_default().to_owned();
        match &months[..] {
            _ if months.len() == 12 => String::new(),
            [first, .., last] if months.len() > 2 && is_run(&months) => {
                format!(", from {} to {}", name(first), name(last))
            }
            some => format!(", in {}", and(&some.iter().map(name).collect::<Vec<_>>())),
        }
    }
}

fn weekdays(set: Set) -> String {
    let days: Vec<u8> = set.iter().collect();
    let name = |day: &u8| WEEKDAYS.get(usize::from(*day)).copied().unwrap_or_default().to_owned();
    match &days[..] {
        _ if days.len() == 7 => "on every day of the week".to_owned(),
        [0, 6] => "on Saturday and Sunday".to_owned(),
        [first, .., last] if days.len() > 2 && is_run(&days) => format!("{} to {}", name(first), name(last)),
        some => format!("on {}", and(&some.iter().map(name).collect::<Vec<_>>())),
    }
}

/// The step, when the numbers are nought and all its multiples below `end`.
fn every(numbers: &[u8], end: u8) -> Option<u8> {
    let step = match numbers {
        [0, second, ..] => *second,
        _ => return None,
    };
    let all = (0..end).step_by(usize::from(step));
    (end.is_multiple_of(step) && all.eq(numbers.iter().copied())).then_some(step)
}

fn is_run(numbers: &[u8]) -> bool {
    numbers.windows(2).all(|pair| matches!(pair, [one, next] if *one + 1 == *next))
}

fn numbers(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(u8::to_string).collect()
}

/// Only for what divides a day.
fn ordinal(number: u8) -> String {
    match number {
        2 => "2nd".to_owned(),
        3 => "3rd".to_owned(),
        other => format!("{other}th"),
    }
}

/// `a`, `a and b`, `a, b and c`.
fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}
