//! The rows of the table: this server's figure, the one that it is compared with, and the command
//! that measures both.

use std::time::Duration;

use crate::common::report;

/// One row. All figures are medians of the rounds.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    figure: String,
    /// The other figure, with a name; empty if there is none.
    compared_with: String,
    /// This server's figure by the other one, or nothing; then least and greatest of the rounds.
    ratio: String,
}

impl Row {
    /// This server's figures, one a round, without any to compare them with.
    pub fn alone(what: &str, samples: &[f64], write: fn(f64) -> String) -> Row {
        let figure = write(median(samples));
        Row {
            what: what.into(),
            figure,
            compared_with: String::new(),
            ratio: spread(samples, write),
        }
    }

    /// Two figures, and their ratios, one a round.
    pub fn compared(what: &str, figure: String, compared_with: String, ratios: &[f64]) -> Row {
        let ratio = format!("{} {}", times(median(ratios)), spread(ratios, times));
        Row { what: what.into(), figure, compared_with, ratio: ratio.trim_end().to_owned() }
    }

    /// One figure, with others that belong to it.
    pub fn beside(what: &str, figure: String, others: String) -> Row {
        Row { compared_with: others, figure, ..Row::alone(what, &[], times) }
    }

    /// A row that could not be measured, and why.
    pub fn failed(what: &str, why: &str) -> Row {
        Row { figure: format!("not measured: {why}"), ..Row::alone(what, &[], times) }
    }

    /// For progress.
    pub fn line(&self) -> String {
        let Row { what, figure, compared_with, ratio } = self;
        format!("{what}: {figure} | {compared_with} | {ratio}")
    }

    fn cells(&self, group: &str) -> [String; 5] {
        let command = format!("`cargo bench --bench side_by_side -- --only {group}`");
        let Row { what, figure, compared_with, ratio } = self.clone();
        [what, figure, compared_with, ratio, command]
    }
}

const HEADINGS: [&str; 5] =
    ["What", "This server", "Compared with", "Ratio, and its spread", "Command"];

/// The table in Markdown, as in the manual; each row comes with its group.
pub fn markdown(rows: &[(&str, Row)]) -> String {
    let line = |cells: [String; 5]| format!("| {} |\n", cells.join(" | "));
    let head = [HEADINGS, ["---"; 5]].map(|cells| line(cells.map(str::to_owned)));
    head.concat() + &rows.iter().map(|(group, row)| line(row.cells(group))).collect::<String>()
}

/// Least and greatest of the rounds, in parentheses.
fn spread(samples: &[f64], write: fn(f64) -> String) -> String {
    if samples.len() < 2 {
        return String::new();
    }
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let most = samples.iter().copied().fold(0.0, f64::max);
    format!("({} to {})", write(least), write(most))
}

pub fn times(ratio: f64) -> String {
    if ratio >= 20.0 { format!("{ratio:.0} ×") } else { format!("{ratio:.2} ×") }
}

pub fn per_second(figure: f64) -> String {
    format!("{figure:.0}/s")
}

pub fn count(figure: f64) -> String {
    format!("{figure:.2}")
}

pub fn seconds(figure: f64) -> String {
    report::time(Duration::from_secs_f64(figure.max(0.0)))
}

/// The middle of the figures, of two middles the mean; 0 if there is none.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.get(sorted.len() / 2) {
        Some(upper) => f64::midpoint(*upper, sorted[(sorted.len() - 1) / 2]),
        None => 0.0,
    }
}
