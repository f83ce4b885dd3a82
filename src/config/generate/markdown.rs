//! The option reference of the manual, `src/manual/options.md`, as a whole page.

use super::OptionSpec;
use super::options::GROUPS;
use super::subcommands::{self, Subcommand};
use crate::config::spec::{Action, Default, Row};
use crate::config::websocket_options::{self, ProtocolOption};

const HEAD: &str = "\
# Options

All options with their defaults; `wormhole-mailbox --generate=markdown` prints this page. How they
are written, endpoints and the file of options are explained in [command line][command_line]. Where
*Reload* says yes, a file of options can change the value while the server runs, see [reloading].
";

const LIMITS: &str = "
No honest client meets one of the defaults. [Limits][limits] has the texts that clients see, and the
memory that follows from them.
";

const PROTOCOL_OPTIONS: &str = "
## Protocol options

`--websocket-protocol-option` takes these; others are refused by name.

| Name | Meaning | Default |
|---|---|---|
";

const TAIL: &str = "
[command_line]: command_line.md
[limits]: limits.md
[reloading]: reloading.md
";

pub fn text() -> String {
    let mut text = HEAD.to_owned();
    for group in GROUPS {
        text += &format!("\n## {}\n", group.title);
        if group.rows.iter().any(|row| effect(row).is_some()) {
            text += LIMITS;
            text +=
                "\n| Option | Bounds | Default | At the limit | Reload |\n|---|---|---|---|---|\n";
            for row in group.rows {
                let effect = effect(row).unwrap_or_default();
                text += &format!("{} {effect} | {} |\n", entry(&row.spec), reload(row));
            }
        } else {
            text += "\n| Option | Meaning | Default | Reload |\n|---|---|---|---|\n";
            for row in group.rows {
                text += &format!("{} {} |\n", entry(&row.spec), reload(row));
            }
        }
    }
    text += PROTOCOL_OPTIONS;
    for ProtocolOption { name, about, default, .. } in websocket_options::TABLE {
        text += &format!("| `{name}` | {about} | `{default}` |\n");
    }
    for Subcommand { name, about, rows, .. } in subcommands::TABLE {
        text += &format!("\n## Subcommand `{name}`\n\n{about}\n");
        text += "\n| Option | Meaning | Default |\n|---|---|---|\n";
        text += &rows.iter().map(|row| entry(&row.spec) + "\n").collect::<String>();
    }
    text + TAIL
}

/// The first three columns of a row.
fn entry(spec: &OptionSpec) -> String {
    let short = spec.short.map(|short| format!(", `{short}`")).unwrap_or_default();
    let value = spec.value().map(alternatives).unwrap_or_default();
    let default = match spec.default {
        Default::Text(text) => text.replace('|', "\\|"),
        Default::Number(number, unit) => format!("{number} {unit}"),
        Default::Unset => String::new(),
    };
    let help = spec.help.replace(websocket_options::LIST, "See [below](#protocol-options).");
    format!("| `{}`{short}{value} | {} | {default} |", spec.name, help.replace('|', "\\|"))
}

/// The name of a value, or its alternatives: `a`, `b` or `c`.
fn alternatives(value: &str) -> String {
    match value.rsplit_once('|') {
        None => format!(" `{value}`"),
        Some((others, last)) => format!(" `{}` or `{last}`", others.replace('|', "`, `")),
    }
}

/// The effect on a client that meets the limit.
fn effect<S>(row: &Row<S>) -> Option<&'static str> {
    match row.action {
        Action::Limit(limit) => Some(limit.effect),
        _ => None,
    }
}

fn reload<S>(row: &Row<S>) -> &'static str {
    if row.action.is_reloadable() { "yes" } else { "" }
}
