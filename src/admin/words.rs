//! Numbers in words, and text from outside as text.
//!
//! What others send must pass [`escaped`] on its way into a page.

/// What stands where a number is not known.
pub fn unknown() -> String {
    "–".to_owned()
}

/// A number with its thousands apart.
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

/// A number of bytes in the unit that suits it.
pub fn bytes(bytes: u64) -> String {
    const STEP: f64 = 1024.0;
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if (bytes as f64) < STEP {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / STEP;
    let mut unit = units[0];
    for next in &units[1..] {
        if value < STEP {
            break;
        }
        (value, unit) = (value / STEP, next);
    }
    let decimals = if value < 10.0 && value.fract() >= 0.05 { 1 } else { 0 };
    format!("{value:.decimals$} {unit}")
}

/// A time, in its two largest units.
pub fn duration(seconds: f64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    if seconds < 1.0 {
        return short_time(seconds);
    }
    let mut left = seconds as u64;
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        if left >= size {
            parts.push(format!("{} {unit}", left / size));
        } else if !parts.is_empty() {
            break; // "2 d 5 min" would be read as something else
        }
        left %= size;
    }
    parts.truncate(2);
    parts.join(" ")
}

/// A time of seconds and less, to two digits.
pub fn short_time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        ..0.001 => (seconds * 1e6, "µs"),
        ..1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let decimals = if value < 10.0 { 1 } else { 0 };
    format!("{value:.decimals$} {unit}")
}

/// Text from outside as HTML text: no markup, and nothing that cannot be seen.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Also what turns the direction of writing around.
            char if char.is_control()
                || matches!(char, '\u{200e}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_read_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 1_600_000, 128 << 20, 5 << 40].map(bytes),
            ["0 B", "1023 B", "1 KiB", "1.5 MiB", "128 MiB", "5 TiB"]
        );
        assert_eq!(
            [0.4, 61.0, 3_600.0, 86_400.0 * 2.0 + 300.0, 90_061.0].map(duration),
            ["400 ms", "1 min 1 s", "1 h", "2 d", "1 d 1 h"]
        );
        assert_eq!(
            [0.000012, 0.0034, 0.25, 2.0].map(short_time),
            ["12 µs", "3.4 ms", "250 ms", "2.0 s"]
        );
    }

    #[test]
    fn hostile_text_is_only_text() {
        assert_eq!(
            escaped("<a href='x'>&\"\u{202e}\u{1b}"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}\u{fffd}"
        );
    }
}
