//! Texts made from the tables of options: `--help`, the manual page, the option reference of the
//! manual, and completions for shells.
//!
//! A text can name no option that the parser does not know, and misses none.

mod completions;
pub mod help;
mod man;
mod markdown;

use super::spec::{Arity, Group, Row, ShownDefault};
use super::values::one_of;
use super::{options, subcommands};

type Generator = fn() -> String;

/// Values of `--generate`.
const KINDS: [(&str, Generator); 5] = [
    ("man", man::text),
    ("bash", completions::bash),
    ("fish", completions::fish),
    ("zsh", completions::zsh),
    ("markdown", markdown::text),
];

/// Makes the text of a kind; the error completes "--generate: …".
pub fn text(kind: &str) -> Result<String, String> {
    Ok(one_of(kind, &KINDS)?())
}

/// The entries of these rows, one after the other.
fn entries(rows: &[Row], entry: fn(&Row) -> String) -> String {
    rows.iter().map(entry).collect()
}

impl Row {
    /// The name of the value in the help; none for a flag.
    fn value(&self) -> Option<&'static str> {
        match self.arity {
            Arity::Flag | Arity::Optional => None,
            Arity::Once(value) | Arity::Many(value) => Some(value),
        }
    }

    /// The help and the default as plain text.
    fn help_with_default(&self) -> String {
        let mut help = plain(self.help);
        if let ShownDefault::Each(rows) = self.default {
            help += " Known:";
            let each = |row: &Row| format!(" {} [{}]", row.name, row.default().unwrap_or_default());
            help.extend(rows.iter().map(each));
        } else if let Some(default) = self.default() {
            help += &format!(" [default: {}]", default.replace('`', ""));
        }
        help
    }

    /// The default as Markdown, if there is one.
    fn default(&self) -> Option<String> {
        match self.default {
            ShownDefault::Unset | ShownDefault::Each(_) => None,
            ShownDefault::Text(text) => Some(text.to_owned()),
            ShownDefault::OfLimit(option) => {
                options::all().into_iter().find(|row| row.name == option)?.default()
            }
            ShownDefault::Number(number, unit) => Some(format!("{number} {unit}")),
        }
    }
}

/// Markdown as plain text: code that looks like an ordinary word is put in quotes.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for (index, part) in text.split('`').enumerate() {
        let is_code = index % 2 == 1;
        let is_word = part.chars().all(|char| char.is_ascii_lowercase());
        plain += &if is_code && is_word { format!("'{part}'") } else { part.to_owned() };
    }
    plain
}
