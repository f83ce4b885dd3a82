//! Small charts as SVG within HTML: stacked bars, and curves over time.
//!
//! The SVG has only shapes and is stretched to the space there is; texts stand around it as HTML,
//! so that they keep their size on every screen. All texts are this program's own: nothing is
//! escaped here. It is written to memory, which cannot fail.

use std::fmt::Write;

use crate::format::{duration, number};
use crate::sys::clock::Seconds;

/// Height of the drawing in its own units; each bucket is one unit wide.
const HEIGHT: f64 = 100.0;

/// The width of a bar, and the gap on either side.
const BAR: f64 = 0.8;
const BAR_GAP: f64 = 0.1;

/// The time span of a chart.
#[derive(Debug)]
pub struct Span {
    pub name: &'static str,
    pub caption: &'static str,
    /// The length of a bucket, shown after the caption.
    pub bucket: &'static str,
    /// The times at the left end and in the middle; the right end is now.
    pub when: [&'static str; 2],
    pub bucket_seconds: Seconds,
}

#[derive(Clone, Debug)]
pub struct Frame<'a> {
    pub span: &'a Span,
    /// Unique on the page with the span's name.
    pub id: &'a str,
    pub caption: &'a str,
    /// The content for screen readers.
    pub description: String,
}

#[derive(Clone, Debug)]
pub struct Bar {
    /// CSS class and height, which is not 0, from the bottom up.
    pub parts: Vec<(&'static str, u64)>,
    /// Shown when the pointer is over the bar.
    pub hint: String,
}

/// A vertical scale.
#[derive(Debug)]
pub struct Scale {
    /// At equal distances, from the top.
    labels: Vec<String>,
    /// What grows evenly from the bottom to the top: the value, or its power of ten.
    measure: fn(f64) -> f64,
    bottom: f64,
    top: f64,
}

impl Scale {
    /// Whole numbers, from 0 to a round one that is not less than `most`.
    pub fn linear(most: u64) -> Scale {
        let top = round_up(most);
        let labels = [top, top / 2, 0].map(number).into();
        Scale { labels, measure: |value| value, bottom: 0.0, top: top as f64 }
    }

    /// Durations in seconds, from the power of ten below the least to the one above the greatest.
    pub fn logarithmic(least: f64, most: f64) -> Scale {
        let (bottom, top) = decades(least, most);
        let labels = (bottom..=top).rev().map(|decade| duration(10f64.powi(decade))).collect();
        Scale { labels, measure: power, bottom: bottom.into(), top: top.into() }
    }

    /// Where a value lies, in units of the drawing, which count from the top.
    fn y(&self, value: f64) -> f64 {
        let share = ((self.measure)(value) - self.bottom) / (self.top - self.bottom);
        HEIGHT - HEIGHT * share.clamp(0.0, 1.0)
    }
}

pub fn bars(frame: Frame<'_>, bars: &[Bar]) -> String {
    let total = |bar: &Bar| -> u64 { bar.parts.iter().map(|(_, count)| count).sum() };
    let scale = Scale::linear(bars.iter().map(total).max().unwrap_or(0));
    let mut shapes = String::new();
    for (bucket, bar) in bars.iter().enumerate().filter(|(_, bar)| !bar.parts.is_empty()) {
        let mut ground = HEIGHT;
        for (class, count) in &bar.parts {
            let height = HEIGHT - scale.y(*count as f64);
            ground -= height;
            let x = bucket as f64 + BAR_GAP;
            _ = write!(
                shapes,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{ground:.2}\" width=\"{BAR}\" height=\"{height:.2}\"/>"
            );
        }
        hit(&mut shapes, bucket, &bar.hint);
    }
    plot(frame, bars.len(), &scale, &shapes)
}

/// A line through the first value of each bucket that has values, and the area between it and the
/// second one.
pub fn curve(
    frame: Frame<'_>,
    scale: &Scale,
    values: &[Option<(f64, f64)>],
    hint: &dyn Fn(usize, (f64, f64)) -> String,
) -> String {
    let (mut line, mut area, mut hits) = (String::new(), String::new(), String::new());
    for (bucket, value) in values.iter().enumerate() {
        let Some(value) = *value else { continue };
        let (height, other) = (scale.y(value.0), scale.y(value.1));
        // Level for the width of the bucket, and joined to the one before, if that has a value.
        let is_joined = bucket > 0 && values[bucket - 1].is_some();
        let pen = if is_joined { "L" } else { "M" };
        _ = write!(line, "{pen}{bucket} {height:.2}H{}", bucket + 1);
        _ = write!(area, "M{bucket} {other:.2}V{height:.2}h1V{other:.2}z");
        hit(&mut hits, bucket, &hint(bucket, value));
    }
    let shapes =
        format!("<path class=\"area\" d=\"{area}\"/><path class=\"line\" d=\"{line}\"/>{hits}");
    plot(frame, values.len(), scale, &shapes)
}

/// The least and the greatest power of ten of a scale for these durations.
fn decades(least: f64, most: f64) -> (i32, i32) {
    if most <= 0.0 {
        return (DECADE_IDLE, DECADE_IDLE + 2);
    }
    let bottom = (power(least).floor() as i32).clamp(DECADE_MIN, DECADE_MAX - 1);
    (bottom, (power(most).ceil() as i32).clamp(bottom + 1, DECADE_MAX))
}

/// Scales lie between 10 µs and 10 s; one without values begins at 100 µs.
const DECADE_MIN: i32 = -5;
const DECADE_MAX: i32 = 1;
const DECADE_IDLE: i32 = -4;

fn power(seconds: f64) -> f64 {
    seconds.max(10f64.powi(DECADE_MIN)).log10()
}

/// The next of 2, 4, 10, 20, 40, 100 … that is not smaller; its half is a whole number.
fn round_up(most: u64) -> u64 {
    let units = (0..).map(|power| 10_u64.saturating_pow(power));
    let mut tops = units.flat_map(|unit| [2, 4, 10].map(|digits| unit.saturating_mul(digits)));
    tops.find(|top| *top >= most).unwrap_or(most)
}

/// Shows a text when the pointer is over a bucket.
fn hit(shapes: &mut String, bucket: usize, hint: &str) {
    _ = write!(
        shapes,
        "<rect class=\"hit\" x=\"{bucket}\" y=\"0\" width=\"1\" height=\"{HEIGHT}\"><title>{hint}</title></rect>"
    );
}

/// The drawing, with its scale on the left, from the top, and the time under it.
fn plot(frame: Frame<'_>, buckets: usize, scale: &Scale, shapes: &str) -> String {
    let Frame { span, id, caption, description } = frame;
    let Span { name, bucket, when: [left, middle], .. } = span;
    let last = scale.labels.len() - 1;
    let labels: String = scale.labels.iter().map(|label| format!("<span>{label}</span>")).collect();
    let mut grid = String::new();
    for index in 0..=last {
        let class = if index == last { "base" } else { "grid" };
        let y = HEIGHT * index as f64 / last as f64;
        _ = write!(grid, "<path class=\"{class}\" d=\"M0 {y:.2}H{buckets}\"/>");
    }
    format!(
        "<figure><figcaption>{caption} <span>{bucket}</span></figcaption>\
         <div class=\"plot\"><div class=\"scale\" aria-hidden=\"true\">{labels}</div>\
         <svg viewBox=\"0 0 {buckets} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-labelledby=\"{id}-{name}-title {id}-{name}-text\"><title id=\"{id}-{name}-title\">{caption}</title>\
         <desc id=\"{id}-{name}-text\">{description}</desc>{grid}{shapes}</svg></div>\
         <div class=\"when\" aria-hidden=\"true\"><span>{left}</span><span>{middle}</span>\
         <span>now</span></div></figure>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_in_round_numbers_with_whole_halves() {
        for (most, top) in
            [(0, 2), (1, 2), (2, 2), (3, 4), (5, 10), (11, 20), (30, 40), (41, 100), (999, 1000)]
        {
            assert_eq!(round_up(most), top);
        }
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }

    #[test]
    fn durations_lie_within_their_scale() {
        assert_eq!(decades(0.0004, 0.03), (-4, -1));
        assert_eq!(decades(0.001, 0.001), (-3, -2));
        assert_eq!(decades(f64::INFINITY, 0.0), (-4, -2));
        assert_eq!(decades(1e-9, 1e9), (-5, 1));
        assert_eq!(
            [1, 0, -1, -3, -4, -5].map(|decade| duration(10f64.powi(decade))),
            ["10 s", "1 s", "100 ms", "1 ms", "100 µs", "10 µs"]
        );
    }

    #[test]
    fn a_line_stops_where_there_is_nothing() {
        let (name, caption, bucket, when) = ("hour", "Last hour", "per minute", ["", ""]);
        let span = Span { name, caption, bucket, when, bucket_seconds: 60.0 };
        let frame = Frame { span: &span, id: "", caption, description: String::new() };
        let values = [Some((0.0, 0.0)), Some((1.0, 0.0)), None, Some((2.0, 0.0))];
        let chart = curve(frame, &Scale::linear(2), &values, &|_, _| String::new());
        let path = "<path class=\"line\" d=\"M0 100.00H1L1 50.00H2M3 0.00H4\"/>";
        assert!(chart.contains(path), "{chart}");
    }
}
