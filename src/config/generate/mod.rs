//! What other programs read of the options: a manual page, and completions for shells.
//!
//! Made from the same tables as `--help`, so that none can say what the parser does not know.

mod bash;
mod fish;
mod man;
mod zsh;

use super::options::{self, Arity, Help, OptionSpec};
use super::subcommands::{self, CommandSpec};

/// A maker of a text.
type Maker = fn() -> String;

/// What can be made.
const KINDS: [(&str, Maker); 4] =
    [("man", man::text), ("bash", bash::text), ("fish", fish::text), ("zsh", zsh::text)];

/// Makes the text of a kind; the error completes "--generate: …".
pub fn text(kind: &str) -> Result<String, String> {
    let known = KINDS.iter().find(|(name, _)| *name == kind);
    let (_, make) = known.ok_or_else(|| format!("'{kind}' must be man, bash, fish or zsh"))?;
    Ok(make())
}

/// What a shell can offer for an option's value.
enum Values {
    /// The option has none.
    None,
    /// One of these.
    Choices(Vec<&'static str>),
    /// The name of a file.
    Files,
    /// Nothing that a shell could know.
    Free,
}

fn values(option: &OptionSpec) -> Values {
    match option.value {
        _ if option.arity == Arity::Flag => Values::None,
        "FILE" => Values::Files,
        choices if choices.contains('|') => Values::Choices(choices.split('|').collect()),
        _ => Values::Free,
    }
}

/// What an option does, short enough for a list: its first sentence, as plain text.
fn summary(help: &Help) -> String {
    let (Help::Text(text) | Help::Number(text, ..)) = help;
    let first = text.split(". ").next().unwrap_or(text);
    let first = first.split(" [default").next().unwrap_or(first);
    first.trim_end_matches('.').replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_the_first_sentence() {
        for (text, short) in [
            (
                "Where to listen; repeatable. PORT, unix:PATH. [default: 1]",
                "Where to listen; repeatable",
            ),
            ("`claim` from one address.", "claim from one address"),
            ("Delete mailboxes [default: never]", "Delete mailboxes"),
        ] {
            assert_eq!(summary(&Help::Text(text)), short);
        }
    }

    #[test]
    fn options_with_choices_are_known_by_their_value() {
        let found = options::all().find(|option| option.name == "--synchronous");
        let found = found.map(|option| values(&option));
        assert!(matches!(found, Some(Values::Choices(it)) if it == ["full", "normal", "off"]));
    }
}
