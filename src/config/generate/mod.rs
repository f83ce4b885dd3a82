//! Texts made from the tables of options: `--help`, the manual page, the option reference of the
//! manual, and completions for shells.
//!
//! A text can name no option that the parser does not know, and misses none.

mod bash;
mod fish;
pub mod help;
mod man;
mod markdown;
mod zsh;

use super::spec::{Arity, Group, Row, ShownDefault};
use super::values::one_of;
use super::{options, subcommands};

type Generator = fn() -> String;

/// Values of `--generate`.
const KINDS: [(&str, Generator); 5] = [
    ("man", man::text),
    ("bash", bash::text),
    ("fish", fish::text),
    ("zsh", zsh::text),
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
            ShownDefault::Number(number, unit) => Some(format!("{number} {unit}")),
        }
    }

    /// The first sentence of the help, for a list of completions.
    fn summary(&self) -> String {
        let first = self.help.split(". ").next().unwrap_or(self.help);
        plain(first.trim_end_matches('.'))
    }

    /// Values that a shell can offer.
    fn completions(&self) -> Completions {
        match self.value() {
            None => Completions::NoValue,
            Some("FILE") => Completions::Files,
            Some(value) if value.contains('|') => Completions::Choices(value.split('|').collect()),
            Some(_) => Completions::Unknown,
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

/// Values of an option that a shell can offer.
enum Completions {
    /// The option is a flag.
    NoValue,
    Choices(Vec<&'static str>),
    Files,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_the_first_sentence() {
        for (help, summary) in [
            ("Where to listen; repeatable. PORT, unix:PATH.", "Where to listen; repeatable"),
            ("`claim` from `ADDRESS`.", "'claim' from ADDRESS"),
        ] {
            let all = options::all();
            let row = Row { help, ..*all[0] };
            assert_eq!(row.summary(), summary);
        }
    }

    #[test]
    fn options_with_choices_are_known_by_their_value() {
        let found = options::all().into_iter().find(|row| row.name == "--synchronous");
        let found = found.map(|row| row.completions());
        assert!(matches!(found, Some(Completions::Choices(it)) if it == ["full", "normal", "off"]));
    }
}
