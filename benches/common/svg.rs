//! A plot of a latency distribution, as SVG text: the share of operations along the bottom, from
//! the fastest to the rarest, and the time they took at most, both logarithmic.

use std::fmt::Write;
use std::time::Duration;

use super::histogram::Histogram;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 72.0;
const BOTTOM: f64 = 58.0;

/// Points of the curve.
const POINTS: u32 = 240;

/// The least and the greatest number of nines on the axis: 90 % has one.
const NINES_MIN: f64 = 2.0;
const NINES_MAX: f64 = 5.0;

/// Of the curve and its name.
const COLOUR: &str = "#0072b2";

const STYLE: &str = "text{font-family:system-ui,sans-serif;fill:#333;font-size:13px}\
    .title{font-size:18px;font-weight:600}.quiet{fill:#777}\
    .grid{stroke:#e6e6e6}.axis{stroke:#999}.curve{fill:none;stroke-width:2.5;stroke-linejoin:round}\
    .paper{fill:#fff}\
    @media(prefers-color-scheme:dark){.paper{fill:#16181c}text{fill:#ddd}.quiet{fill:#999}\
    .grid{stroke:#2c2f36}.axis{stroke:#666}}";

/// Draws the curve, with its name at its end.
pub fn plot(title: &str, subtitle: &str, name: &str, latency: &Histogram) -> String {
    let scale = Scale::fitting(latency);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\">\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"8\"/>\n"
    );
    text(&mut svg, LEFT, 32.0, "start", "title", title);
    text(&mut svg, LEFT, 52.0, "start", "quiet", subtitle);
    scale.draw_axes(&mut svg);
    let end = scale.draw_curve(&mut svg, latency);
    _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{:.1}\" style=\"fill:{COLOUR};font-weight:600\">{}</text>",
        WIDTH - RIGHT + 10.0,
        end + 4.0,
        escape(name)
    );
    svg.push_str("</svg>\n");
    svg
}

/// From shares and times to places in the picture.
struct Scale {
    nines: f64,
    /// Powers of ten of nanoseconds at the bottom and the top.
    low: f64,
    high: f64,
}

impl Scale {
    /// As many nines as the number of values can show, and whole powers of ten.
    fn fitting(latency: &Histogram) -> Scale {
        let nines = (latency.count().max(1) as f64).log10().floor().clamp(NINES_MIN, NINES_MAX);
        let log = |time: Duration| (time.as_nanos().max(1) as f64).log10();
        let (least, most) = (log(latency.quantile(0.0)), log(latency.max()));
        let low = least.floor().min(most.ceil() - 1.0).max(0.0);
        Scale { nines, low, high: most.ceil().max(low + 1.0) }
    }

    fn x(&self, share: f64) -> f64 {
        let nines = -(1.0 - share).max(1e-12).log10();
        LEFT + (WIDTH - LEFT - RIGHT) * (nines / self.nines).min(1.0)
    }

    fn y(&self, time: Duration) -> f64 {
        let log = (time.as_nanos().max(1) as f64).log10().clamp(self.low, self.high);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (log - self.low) / (self.high - self.low)
    }

    fn draw_axes(&self, svg: &mut String) {
        for power in self.low as i32..=self.high as i32 {
            for step in [1_u64, 2, 5] {
                let time = Duration::from_nanos(10_u64.pow(power as u32) * step);
                if (time.as_nanos() as f64).log10() > self.high + 1e-9 {
                    break;
                }
                let y = self.y(time);
                line(svg, "grid", LEFT, y, WIDTH - RIGHT, y);
                text(svg, LEFT - 8.0, y + 4.0, "end", "quiet", &super::report::time(time));
            }
        }
        let shares = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
        let names = ["fastest", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
        for (share, name) in shares.into_iter().zip(names) {
            if -(1.0_f64 - share).log10() > self.nines + 1e-9 {
                break;
            }
            let x = self.x(share);
            line(svg, "grid", x, TOP, x, HEIGHT - BOTTOM);
            text(svg, x, HEIGHT - BOTTOM + 20.0, "middle", "quiet", name);
        }
        line(svg, "axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM);
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        text(svg, middle, HEIGHT - 14.0, "middle", "quiet", "share of operations done within");
    }

    /// Returns the height at which the curve ends.
    fn draw_curve(&self, svg: &mut String, latency: &Histogram) -> f64 {
        let mut path = String::new();
        let mut y = 0.0;
        for point in 0..=POINTS {
            let nines = self.nines * f64::from(point) / f64::from(POINTS);
            let share = 1.0 - 10_f64.powf(-nines);
            y = self.y(latency.quantile(share));
            let command = if point == 0 { 'M' } else { 'L' };
            _ = write!(path, "{command}{:.1} {y:.1}", self.x(share));
        }
        _ = writeln!(svg, "<path class=\"curve\" style=\"stroke:{COLOUR}\" d=\"{path}\"/>");
        y
    }
}

fn line(svg: &mut String, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
    _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
    let text = escape(text);
    _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
