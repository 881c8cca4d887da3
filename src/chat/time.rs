//! `strftime` of a moment that the caller names.

use std::fmt::Write;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
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

/// A moment by the calendar, in UTC.
struct Moment {
    year: i64,
    /// From 0.
    month: usize,
    day: i64,
    /// From 0, the first of January.
    day_of_year: i64,
    /// From Sunday, 0.
    weekday: i64,
    second_of_day: i64,
}

impl Moment {
    fn new(seconds: i64) -> Moment {
        let days = seconds.div_euclid(86400);
        // Years begin in March here, so that the leap day is a year's last, and eras of 400 years are alike.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_march_year + 2) / 153;
        let day = day_of_march_year - (153 * march_month + 2) / 5 + 1;
        let month = (march_month + 2) % 12;
        let year = era * 400 + year_of_era + i64::from(month < 2);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let day_of_year = if month < 2 { day_of_march_year - 306 } else { day_of_march_year + 59 + i64::from(is_leap) };
        Moment {
            year,
            month: usize::try_from(month).unwrap_or(0),
            day,
            day_of_year,
            weekday: (days + 4).rem_euclid(7),
            second_of_day: seconds.rem_euclid(86400),
        }
    }
}

/// The moment, in seconds since 1970, as `format` says in C's way. What is no code of C's stays as it is.
pub(super) fn strftime(seconds: i64, format: &str) -> String {
    let moment = Moment::new(seconds.clamp(-62_135_596_800, 253_402_300_799));
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = chars.next();
        // A flag: numbers without what fills them up.
        let bare = code == Some('-');
        if bare {
            code = chars.next();
        }
        match code {
            Some(code) if moment.write(&mut out, code, bare).is_some() => {}
            _ => {
                out.push_str(if bare { "%-" } else { "%" });
                out.extend(code);
            }
        }
    }
    out
}

impl Moment {
    /// What a code stands for; `None` if it is none.
    fn write(&self, out: &mut String, code: char, bare: bool) -> Option<()> {
        let (hour, minute, second) = (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let hour12 = (hour + 11) % 12 + 1;
        let day = DAYS[usize::try_from(self.weekday).ok()?];
        let month = MONTHS[self.month];
        let weekday_from_monday = (self.weekday + 6) % 7;
        let mut number = |n: i64, width: usize, fill: char| {
            let digits = n.to_string();
            let missing = if bare { 0 } else { width.saturating_sub(digits.len()) };
            out.extend(std::iter::repeat_n(fill, missing));
            out.push_str(&digits);
        };
        match code {
            'Y' => number(self.year, 1, '0'),
            'C' => number(self.year / 100, 2, '0'),
            'y' => number(self.year % 100, 2, '0'),
            'm' => number(self.month as i64 + 1, 2, '0'),
            'd' => number(self.day, 2, '0'),
            'e' => number(self.day, 2, ' '),
            'j' => number(self.day_of_year + 1, 3, '0'),
            'H' => number(hour, 2, '0'),
            'k' => number(hour, 2, ' '),
            'I' => number(hour12, 2, '0'),
            'l' => number(hour12, 2, ' '),
            'M' => number(minute, 2, '0'),
            'S' => number(second, 2, '0'),
            'f' => number(0, 6, '0'),
            'u' => number(weekday_from_monday + 1, 1, '0'),
            'w' => number(self.weekday, 1, '0'),
            'U' => number((self.day_of_year + 7 - self.weekday) / 7, 2, '0'),
            'W' => number((self.day_of_year + 7 - weekday_from_monday) / 7, 2, '0'),
            'A' => out.push_str(day),
            'a' => out.push_str(&day[..3]),
            'B' => out.push_str(month),
            'b' | 'h' => out.push_str(&month[..3]),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'P' => out.push_str(if hour < 12 { "am" } else { "pm" }),
            // The moment has no zone.
            'Z' | 'z' => {}
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '%' => out.push('%'),
            _ => {
                let whole = match code {
                    'F' => "%Y-%m-%d",
                    'D' | 'x' => "%m/%d/%y",
                    'T' | 'X' => "%H:%M:%S",
                    'R' => "%H:%M",
                    'r' => "%I:%M:%S %p",
                    'c' => "%a %b %e %H:%M:%S %Y",
                    _ => return None,
                };
                whole.split('%').skip(1).try_for_each(|part| {
                    let mut part = part.chars();
                    self.write(out, part.next()?, false)?;
                    write!(out, "{}", part.as_str()).ok()
                })?;
            }
        }
        Some(())
    }
}
