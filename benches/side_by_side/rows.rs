//! The rows of the table: what, bar, what was measured, and whether it is enough.

/// What was to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    AtLeast(f64),
    AtMost(f64),
    /// In words: no number decides.
    Words(&'static str),
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Ratio,
    Count,
    Bytes,
    Seconds,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    bar: Bar,
    unit: Unit,
    samples: Vec<f64>,
    /// What the figure was made of.
    detail: String,
}

impl Row {
    /// `samples` has one figure a round.
    pub fn new(what: &str, bar: Bar, unit: Unit, samples: Vec<f64>, detail: String) -> Row {
        Row { what: what.to_owned(), bar, unit, samples, detail }
    }

    /// A row that could not be measured, and why.
    pub fn failed(what: &str, why: &str) -> Row {
        Row::new(what, Bar::Words("–"), Unit::Count, Vec::new(), format!("not measured: {why}"))
    }

    fn figure(&self) -> String {
        match median(&self.samples) {
            Some(value) => self.unit.write(value),
            None => "–".to_owned(),
        }
    }

    fn spread(&self) -> String {
        if self.samples.len() < 2 {
            return String::new();
        }
        let least = self.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.samples.iter().copied().fold(0.0, f64::max);
        format!("{} to {}", self.unit.write(least), self.unit.write(most))
    }

    fn bar(&self) -> String {
        match self.bar {
            Bar::AtLeast(value) => format!("≥ {}", self.unit.write(value)),
            Bar::AtMost(value) => format!("≤ {}", self.unit.write(value)),
            Bar::Words(words) => words.to_owned(),
        }
    }

    fn verdict(&self) -> &'static str {
        let Some(value) = median(&self.samples) else { return "" };
        match self.bar {
            Bar::AtLeast(bar) if value >= bar => "met",
            Bar::AtMost(bar) if value <= bar => "met",
            Bar::Words(_) => "",
            _ => "missed",
        }
    }

    /// For progress.
    pub fn line(&self) -> String {
        format!(
            "{}: {} ({}) bar {} {} | {}",
            self.what,
            self.figure(),
            self.spread(),
            self.bar(),
            self.verdict(),
            self.detail
        )
    }

    fn cells(&self) -> [String; 6] {
        [
            self.what.clone(),
            self.bar(),
            self.figure(),
            self.spread(),
            self.verdict().to_owned(),
            self.detail.clone(),
        ]
    }
}

const HEADINGS: [&str; 6] = ["what", "bar", "measured", "spread", "", "made of (medians)"];

/// A table for the terminal.
pub fn plain(rows: &[Row]) -> String {
    let headings = HEADINGS.map(str::to_owned);
    let cells: Vec<_> = std::iter::once(headings).chain(rows.iter().map(Row::cells)).collect();
    let width =
        |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let line = |row: &[String; 6]| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    cells.iter().map(line).collect()
}

/// The same in Markdown, for the manual.
pub fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let headings = HEADINGS.map(str::to_owned);
    let rule = HEADINGS.map(|_| "---".to_owned());
    let rows = rows.iter().map(|row| line(&row.cells()));
    line(&headings) + &line(&rule) + &rows.collect::<String>()
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Unit::Ratio if value >= 20.0 => format!("{value:.0} ×"),
            Unit::Ratio => format!("{value:.2} ×"),
            Unit::Count => format!("{value:.2}"),
            Unit::Bytes => crate::common::report::bytes(value),
            Unit::Seconds => {
                let time = std::time::Duration::from_secs_f64(value.max(0.0));
                crate::common::report::time(time)
            }
        }
    }
}

/// The middle of the figures; of two middles the mean.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}
