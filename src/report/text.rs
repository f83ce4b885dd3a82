//! Numbers, times and other people's texts as a terminal can show them.
//!
//! A text that a client or an address chose must never reach the terminal as it is: it could carry
//! codes that move the cursor, or marks that turn the order of the letters around.

use crate::limits::REPORT_TEXT_CHARS_MAX;
use crate::sys::clock::{Seconds, Timestamp};

/// Whether a character does something instead of showing something.
pub fn is_hostile(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// A text that only shows something, and is not too long.
pub fn harmless(text: &str) -> String {
    let mut shown = String::new();
    let mut chars = text.chars();
    for char in chars.by_ref().take(REPORT_TEXT_CHARS_MAX) {
        if is_hostile(char) {
            shown += &char.escape_unicode().to_string();
        } else {
            shown.push(char);
        }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The same, or a dash for nothing.
pub fn harmless_or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), harmless)
}

const SECONDS_PER_MINUTE: u64 = 60;
const SECONDS_PER_HOUR: u64 = 60 * SECONDS_PER_MINUTE;
const SECONDS_PER_DAY: u64 = 24 * SECONDS_PER_HOUR;

/// A length of time, in its two largest units.
pub fn duration(seconds: Seconds) -> String {
    if seconds < 0.001 {
        return format!("{:.0} µs", seconds.max(0.0) * 1e6);
    }
    if seconds < 1.0 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (large, large_unit, small, small_unit) = if whole < SECONDS_PER_MINUTE {
        return format!("{whole} s");
    } else if whole < SECONDS_PER_HOUR {
        (whole / SECONDS_PER_MINUTE, "min", whole % SECONDS_PER_MINUTE, "s")
    } else if whole < SECONDS_PER_DAY {
        (whole / SECONDS_PER_HOUR, "h", whole % SECONDS_PER_HOUR / SECONDS_PER_MINUTE, "min")
    } else {
        (whole / SECONDS_PER_DAY, "d", whole % SECONDS_PER_DAY / SECONDS_PER_HOUR, "h")
    };
    if small == 0 {
        format!("{large} {large_unit}")
    } else {
        format!("{large} {large_unit} {small} {small_unit}")
    }
}

/// How long ago something was.
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(now - time))
}

const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];

/// A size.
pub fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = if size < 10.0 { 1 } else { 0 };
    format!("{size:.digits$} {}", UNITS[unit])
}

/// A part of a whole, from 0 to 1; of nothing, nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The same in percent.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * share(part, whole)) }
}

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    pub year: i64,
    pub month: u32,
    pub day: u32,
}

impl Day {
    /// The day of a time, in UTC.
    pub fn of(time: Timestamp) -> Day {
        // Counted in years that begin in March, so that the leap day comes last; 719,468 days lie
        // between the first of March of year 0 and the epoch.
        let days = (time.0 / SECONDS_PER_DAY as f64).floor() as i64 + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
        let year_of_era = (day_of_era - leap_days) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        Day { year, month: month as u32, day: day as u32 }
    }
}

/// A time, in UTC.
pub fn time(time: Timestamp) -> String {
    let Day { year, month, day } = Day::of(time);
    let seconds = time.0.rem_euclid(SECONDS_PER_DAY as f64) as u64;
    let (hour, minute) = (seconds / SECONDS_PER_HOUR, seconds % SECONDS_PER_HOUR / 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0.0, "1970-01-01 00:00:00"),
            (951_782_400.0, "2000-02-29 00:00:00"),
            (1_709_251_199.9, "2024-02-29 23:59:59"),
            (1_709_251_200.0, "2024-03-01 00:00:00"),
            (4_107_542_400.0, "2100-03-01 00:00:00"),
            (-1.0, "1969-12-31 23:59:59"),
        ] {
            assert_eq!(time(Timestamp(seconds)), text);
        }
    }

    #[test]
    fn durations_are_in_units_that_people_use() {
        for (seconds, text) in [
            (-5.0, "0 µs"),
            (0.000_25, "250 µs"),
            (0.25, "250 ms"),
            (1.25, "1.2 s"),
            (42.4, "42 s"),
            (60.0, "1 min"),
            (3_725.0, "1 h 2 min"),
            (93_600.0, "1 d 2 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn sizes_are_in_units_that_people_use() {
        for (size, text) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_536, "1.5 KiB"),
            (57_344, "56 KiB"),
            (134_217_728, "128 MiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn what_would_move_the_cursor_or_turn_letters_around_is_spelled_out() {
        assert_eq!(harmless("a\u{1b}[2Jb\n\u{9b}\u{202e}"), "a\\u{1b}[2Jb\\u{a}\\u{9b}\\u{202e}");
        assert_eq!(harmless("python ✓"), "python ✓");
        let long = "x".repeat(REPORT_TEXT_CHARS_MAX + 1);
        assert_eq!(harmless(&long).chars().count(), REPORT_TEXT_CHARS_MAX + 1);
        assert!(harmless(&long).ends_with('…'));
    }
}
