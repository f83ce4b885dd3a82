//! Variables of the environment → options, for containers: `WORMHOLE_MAILBOX_CHANNEL_DB` is
//! `--channel-db` (manual: command_line 2).

use std::ffi::OsString;

use super::arguments::{self, RawOption};
use super::nearest::nearest;
use super::spec::{Action, Arity, Row};
use super::values;

/// How the names of all variables begin.
const PREFIX: &str = "WORMHOLE_MAILBOX_";

/// How Kubernetes begins the value of `WORMHOLE_MAILBOX_PORT` when it has a service of that name.
const KUBERNETES_SERVICE: &str = "tcp://";

/// Values of the variable of a flag.
const SWITCHES: [(&str, bool); 4] = [("yes", true), ("no", false), ("1", true), ("0", false)];

/// Reads variables as options of a table; returns warnings about those of no option as well. An
/// empty variable counts as not set.
pub fn read(
    variables: &mut dyn Iterator<Item = (OsString, OsString)>,
    table: &[&'static Row],
) -> Result<(Vec<RawOption>, Vec<String>), String> {
    let (mut options, mut warnings) = (Vec::new(), Vec::new());
    for (variable, value) in variables {
        let variable = variable.to_string_lossy();
        if !variable.starts_with(PREFIX) {
            continue;
        }
        let error = |problem: &str| format!("{variable}: {problem}");
        let value = value.to_str().ok_or_else(|| error("must be UTF-8"))?;
        let row = table.iter().copied().find(|row| name(row) == variable);
        let Some(row) = row.filter(|_| !value.starts_with(KUBERNETES_SERVICE)) else {
            let names: Vec<String> = table.iter().map(|row| name(row)).collect();
            let mut names = names.iter().map(String::as_str).filter(|name| **name != *variable);
            let meant =
                nearest(&variable, &mut names).map(|name| format!(", did you mean {name}?"));
            let meant = meant.unwrap_or_default();
            warnings.push(format!("{variable}: ignored, this is no option's variable{meant}"));
            continue;
        };
        if !row.action.may_be_in_file() && !matches!(row.action, Action::OptionsFile) {
            return Err(error("may be given on the command line only"));
        }
        let mut push = |value: Option<&str>| {
            arguments::push(&mut options, row, value.map(str::to_owned), format!("{variable}: "))
        };
        match row.arity {
            _ if value.is_empty() => {}
            Arity::Flag => {
                if values::one_of(value, &SWITCHES).map_err(|problem| error(&problem))? {
                    push(None)?;
                }
            }
            Arity::Many(_) => value.split_whitespace().try_for_each(|value| push(Some(value)))?,
            Arity::Optional | Arity::Once(_) => push(Some(value))?,
        }
    }
    Ok((options, warnings))
}

/// The name of an option's variable.
fn name(row: &Row) -> String {
    let name = row.name.trim_start_matches('-').replace('-', "_");
    PREFIX.to_owned() + &name.to_ascii_uppercase()
}
