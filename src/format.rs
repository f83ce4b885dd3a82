//! Numbers, sizes, times and foreign texts as people read them, on the status page and in the
//! reports of the subcommands.
//!
//! A text that a client chose never reaches a terminal or a page as it is: it passes [`harmless`]
//! or [`escaped`].

use crate::limits::{REPORT_ERROR_CHARS_MAX, REPORT_TEXT_CHARS_MAX};
use crate::sys::clock::{Seconds, Timestamp};

/// Stands for a value that is not known.
pub const UNKNOWN: &str = "-";

/// A number with a comma after each group of three digits.
pub fn number(number: u64) -> String {
    const GROUP: usize = 3;
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(GROUP) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the largest unit of which there is at least one.
pub fn bytes(bytes: u64) -> String {
    const STEP: f64 = 1024.0;
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= STEP && unit + 1 < UNITS.len() {
        (value, unit) = (value / STEP, unit + 1);
    }
    with_unit(value, UNITS[unit])
}

/// A length of time: up to a minute in one unit, above in its two largest ones.
pub fn duration(seconds: Seconds) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    match seconds {
        ..0.001 => return with_unit(seconds.max(0.0) * 1e6, "µs"),
        ..1.0 => return with_unit(seconds * 1e3, "ms"),
        ..60.0 => return with_unit(seconds, "s"),
        _ => {}
    }
    let mut rest = seconds.round() as u64;
    let first = UNITS.iter().position(|(size, _)| rest >= *size).unwrap_or(0);
    let mut parts = Vec::new();
    for (size, unit) in UNITS.iter().skip(first).take(2) {
        if rest >= *size {
            parts.push(format!("{} {unit}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

/// A value with one decimal where it is small and not a whole number.
fn with_unit(value: f64, unit: &str) -> String {
    let decimals = usize::from(value < 10.0 && value.fract() >= 0.05);
    format!("{value:.decimals$} {unit}")
}

/// How long ago that was: "5 min ago".
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(now - time))
}

/// A part of a whole, from 0 to 1; 0 of an empty whole.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The same in percent; unknown of an empty whole.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { UNKNOWN.to_owned() } else { format!("{:.1} %", 100.0 * share(part, whole)) }
}

/// Whether a character acts on a terminal or on the order of other characters, or is invisible.
pub fn is_hostile(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// A foreign text for a terminal: hostile characters as escapes, at most
/// [`REPORT_TEXT_CHARS_MAX`] characters.
pub fn harmless(text: &str) -> String {
    cut(text, REPORT_TEXT_CHARS_MAX)
}

/// The same for the text of an error, at most [`REPORT_ERROR_CHARS_MAX`] characters.
pub fn harmless_error(text: &str) -> String {
    cut(text, REPORT_ERROR_CHARS_MAX)
}

fn cut(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    let mut chars = text.chars();
    for char in chars.by_ref().take(chars_max) {
        if is_hostile(char) {
            shown.extend(char.escape_unicode());
        } else {
            shown.push(char);
        }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// A value as that function shows it, if it is known.
pub fn or_unknown<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), show)
}

/// A foreign text as HTML text: no markup, hostile characters replaced.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char if is_hostile(char) => out.push(char::REPLACEMENT_CHARACTER),
            char => out.push(char),
        }
    }
    out
}

/// A template with each `{{name}}` replaced by its value. Values are not searched for names.
pub fn fill(template: &str, value: &mut dyn FnMut(&str) -> String) -> String {
    let mut parts = template.split("{{");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or((part, ""));
        text.push_str(&value(name));
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_are_easy_to_read() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1_600_000, "1.5 MiB"),
            (57_344, "56 KiB"),
            (128 << 20, "128 MiB"),
            (5 << 40, "5 TiB"),
            (5 << 50, "5120 TiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn durations_are_in_units_that_people_use() {
        for (seconds, text) in [
            (-5.0, "0 µs"),
            (0.000_012, "12 µs"),
            (0.003_4, "3.4 ms"),
            (0.25, "250 ms"),
            (1.25, "1.2 s"),
            (42.4, "42 s"),
            (60.0, "1 min"),
            (61.0, "1 min 1 s"),
            (3_725.0, "1 h 2 min"),
            (86_400.0 * 2.0 + 300.0, "2 d"),
            (93_600.0, "1 d 2 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn hostile_characters_are_escaped_in_a_terminal_and_on_a_page() {
        assert_eq!(harmless("a\u{1b}[2Jb\n\u{9b}\u{202e}"), "a\\u{1b}[2Jb\\u{a}\\u{9b}\\u{202e}");
        assert_eq!(harmless("python ✓"), "python ✓");
        let long = "x".repeat(REPORT_TEXT_CHARS_MAX + 1);
        assert_eq!(harmless(&long).chars().count(), REPORT_TEXT_CHARS_MAX + 1);
        assert!(harmless(&long).ends_with('…'));
        assert_eq!(
            escaped("<a href='x'>&\"\u{202e}\u{1b}\u{feff}"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_value_cannot_name_another_one() {
        let filled = fill("a {{x}} b {{y}}", &mut |name| format!("{{{{y}}}} {name}"));
        assert_eq!(filled, "a {{y}} x b {{y}} y");
    }
}
